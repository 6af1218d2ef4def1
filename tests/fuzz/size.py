"""``scripts/fuzz --size``: puts answers of up to 64 MiB through a real worker.

Prints its longest stall and how far it grew.

A stall is one turn of the worker's loop, in CPU time, so that a busy machine does not count. Growth is the highest that the worker's
memory came to, above what it had before. A bystander reads streams on the same worker all the while.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import Client
from headrace.errors import HeadraceError
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, ROOT, engine_process
from tests.e2e.engines import running_engine
from tests.fuzz.sizes import APIS, EMBEDDINGS, SizedAnswer, answers
from tests.waiting import wait_until

MAX_STALL = 0.5
MAX_GROWTH = 200 * 1024 * 1024
_TIMEOUT = 4.0
"""Seconds that an answer is taken for: the worst is over by then."""
_PROVIDERS = {
    "openai-chat": ("openai", "gpt-4o"),
    "openai-responses": ("openai-responses", "gpt-5"),
    "anthropic": ("anthropic", "claude-sonnet-5"),
    "google": ("google", "gemini-3-pro"),
    "openai embeddings": ("openai", "text-embedding-3-large"),
    "google embeddings": ("google", "gemini-embedding-001"),
}
_KEYS = {"OPENAI_API_KEY": "sk-x", "ANTHROPIC_API_KEY": "sk-x", "GEMINI_API_KEY": "sk-x"}
_BASES = {"OPENAI_BASE_URL": "/v1", "ANTHROPIC_BASE_URL": "", "GOOGLE_GEMINI_BASE_URL": ""}


class Figure(msgspec.Struct):
    """What one answer did to the worker: seconds and bytes. ``gap`` is the bystander's longest wait for a chunk."""

    answer: SizedAnswer
    stall: float
    growth: int
    gap: float
    seconds: float
    outcome: str
    is_alive: bool

    @property
    def is_kept(self) -> bool:
        """Whether the promise held."""
        return self.stall <= MAX_STALL and self.growth <= MAX_GROWTH and self.is_alive

    def row(self) -> str:
        """Return a row of the table."""
        answer = self.answer
        stall, growth, gap = self.stall * 1000, self.growth / 2**20, self.gap * 1000
        form = "streamed" if answer.is_stream else "whole"
        mark = "" if self.is_kept else " **broken**"
        size = answer.size / 2**20
        return (
            f"| {answer.api} | {form} | {answer.kind} | {size:.0f} | {stall:.0f} | {growth:.0f} | {gap:.0f} |"
            f" {self.outcome}{mark} |"
        )


HEAD = (
    "| format | form | kind | MiB | stall ms | growth MiB | bystander ms | outcome |\n|---|---|---|---|---|---|---|---|"
)


class _SizeServer:
    """Says to each request what :attr:`answer` is, and closes."""

    def __init__(self) -> None:
        self.answer: SizedAnswer | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        answer = self.answer
        assert answer is not None
        with peer, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                if not (more := peer.recv(65536)):
                    return
                request += more
            head, _, body = request.partition(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            while len(body) < length:
                if not (more := peer.recv(65536)):
                    return
                body += more
            label = "text/event-stream" if answer.is_stream else "application/json"
            fields = "\r\n".join((f"content-type: {label}", "connection: close", *answer.headers))
            peer.sendall(f"HTTP/1.1 {answer.status} Status\r\n{fields}\r\n\r\n".encode())
            for piece in answer.pieces():
                peer.sendall(piece)
            peer.shutdown(socket.SHUT_WR)
            peer.settimeout(_TIMEOUT)
            peer.recv(1)


class Rig:
    """An engine with one worker that is measured, a server for it, and a bystander."""

    def __init__(self, address: str, server: _SizeServer, folder: Path, bystander: mmap.mmap | None) -> None:
        self._server = server
        self._folder = folder
        self._bystander = bystander
        self._address = address
        self.client = Client(address, connect_timeout=60.0)

    @property
    def worker(self) -> int:
        """The worker's process."""
        return engine_process(self._address, "-m headrace_workers")

    def measure(self, answer: SizedAnswer) -> Figure:
        """Have the worker take one answer."""
        self._server.answer = answer
        worker = self.worker
        turns = self._folder / f"turns-{worker}"
        Path(f"/proc/{worker}/clear_refs").write_text("5")
        before = _memory(worker, "VmRSS")
        with turns.open("r+b") as file:
            shared = mmap.mmap(file.fileno(), 8)
        shared[:8] = bytes(8)
        if self._bystander is not None:
            self._bystander[:8] = bytes(8)
        began = time.monotonic()
        outcome = self._ask(answer)
        seconds = time.monotonic() - began
        is_alive = Path(f"/proc/{worker}").exists()
        growth = _memory(worker, "VmHWM") - before if is_alive else 0
        gap = struct.unpack("d", self._bystander[:8])[0] if self._bystander is not None else 0.0
        return Figure(answer, struct.unpack("d", shared[:8])[0], growth, gap, seconds, outcome, is_alive)

    def _ask(self, answer: SizedAnswer) -> str:
        provider, model = _PROVIDERS[answer.api]
        said: dict[str, Any] = {"provider": provider, "model": model}
        try:
            if answer.api in EMBEDDINGS:
                count = 2048 if "2048" in answer.kind else 1024 if "1024" in answer.kind else 1
                self.client.run_embedding(**said, input=["text"] * count)
                return "ok"
            said |= {"messages": HELLO, "timeout_ms": int(_TIMEOUT * 1000)}
            if answer.is_stream:
                stream = self.client.run_local(**said, stream=True)
                for _ in stream:
                    pass
                stream.result.result(_TIMEOUT)
            else:
                self.client.run_local(**said)
        except HeadraceError as error:
            return f"{type(error).__name__}: {error}"[:160].replace("\n", " ").replace("|", "/")
        return "ok"


def _memory(pid: int, name: str) -> int:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024
    return 0


class _Environment:
    def __init__(self, port: int) -> None:
        bases = {name: f"http://127.0.0.1:{port}{path}" for name, path in _BASES.items()}
        self.environment = _KEYS | bases


@contextmanager
def rig(provider: SimulatedProvider | None) -> Iterator[Rig]:
    """An engine to measure; with a bystander where there is a provider for its streams."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hr-size-")))
        server = _SizeServer()
        stack.callback(server.close)
        environment = _Environment(server.port)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in environment.environment.items():
            patch.setenv(name, value)
        patch.setenv("HEADRACE_DATA", str(folder / "spans"))
        patch.setenv("HEADRACE_PROBE", str(folder))
        if provider is not None:
            config = folder / "headrace.toml"
            base = provider.environment["OPENAI_BASE_URL"]
            config.write_text(
                f'[providers.bystander]\napi = "openai-chat"\nbase_url = "{base}"\napi_key_env = "BYSTANDER_KEY"\n'
            )
            patch.setenv("BYSTANDER_KEY", provider.environment["OPENAI_API_KEY"])
            patch.setenv("HEADRACE_CONFIG", str(config))
        patch.setenv("PYTHONPATH", str(ROOT / "tests" / "fuzz" / "probe"), prepend=os.pathsep)
        address = stack.enter_context(running_engine(environment, "--workers", "1"))  # type: ignore[arg-type]
        shared = None if provider is None else stack.enter_context(_bystander(address, folder))
        made = Rig(address, server, folder, shared)
        stack.callback(made.client.close)
        yield made


@contextmanager
def _bystander(address: str, folder: Path) -> Iterator[mmap.mmap]:
    figures = folder / "bystander"
    figures.write_bytes(bytes(24))
    with figures.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 24)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.bystander", address, str(figures)],
        cwd=ROOT,
    )
    try:
        wait_until(lambda: process.poll() is not None or struct.unpack("d", shared[:8])[0] > 0, 30.0, "a bystander")
        yield shared
        wait_until(lambda: process.poll() is not None or struct.unpack("d", shared[8:16])[0] > 0, 30.0, "its text")
        assert process.poll() is None, "the bystander's stream failed"
        assert struct.unpack("d", shared[16:24])[0] == 0, "the bystander's text is not what was sent"
    finally:
        process.kill()
        process.wait()


def main(arguments: Sequence[str]) -> int:
    """Measure the answers of the named formats, or of all. ``-k WORD`` takes only the answers that have the word in their names."""
    names = [name for name in arguments if name in (*APIS, *EMBEDDINGS)] or [*APIS, *EMBEDDINGS]
    word = arguments[list(arguments).index("-k") + 1] if "-k" in arguments else ""
    print(HEAD, flush=True)
    broken = 0
    with SimulatedProvider(process=True) as provider:
        for name in names:
            chosen = [answer for answer in answers(name) if word in str(answer)]
            with rig(provider) as made:
                for answer in chosen:
                    figure = made.measure(answer)
                    print(figure.row(), flush=True)
                    broken += not figure.is_kept
    print(f"\n{broken} beyond {MAX_STALL * 1000:.0f} ms or {MAX_GROWTH // 2**20} MiB")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
