"""Starts what is measured: the provider, an engine as a service, and groups of client processes. Reads their CPU and memory.

Never runs two engines at once.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

import headrace
from bench.kept_results import ROOT
from bench.measure import TreeFigures, mark, process_cpu
from bench.scale.client_group import ClientFigures, ClientGroup
from headrace.process.descriptors import raise_limit

_STARTING = 30.0
"""Seconds for an engine to start."""


class ScaleError(Exception):
    """A program that is measured has failed."""


class LoadProvider:
    """The simulated provider, in a process of its own."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid

    def ask(self, method: str, what: str) -> Any:
        """Send a control request, and return the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, f"/_headrace/{what}")
            return msgspec.json.decode(connection.getresponse().read() or b"null")
        finally:
            connection.close()

    def connections(self) -> int:
        """Return how many connections of workers are open."""
        return int(self.ask("GET", "connections"))


@contextlib.contextmanager
def provider() -> Iterator[LoadProvider]:
    """Run the provider."""
    raise_limit()  # its limit is this process's
    command = [sys.executable, "-m", "bench.stamping_provider"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield LoadProvider(int(process.stdout.readline()), process.pid)
        assert process.stdin is not None
        process.stdin.close()


class MeasuredEngine:
    """An engine that runs, and its address."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.address = f"ipc://{directory}"
        self.pid = process.pid
        self._observer = headrace.Client(self.address, connect_timeout=10.0)

    def figures(self) -> TreeFigures:
        """Return what the engine's processes have used so far."""
        return mark(self.pid)

    def joined(self, group: ClientGroup) -> ClientGroup:
        """Return the group as clients of this engine."""
        return msgspec.structs.replace(group, address=self.address)

    def running_and_waiting(self) -> tuple[int, int]:
        """Return how many runs the engine has, and how many wait for a place. Raises EngineUnavailableError after three tries."""
        for last in (False, False, True):
            try:
                status = self._observer.status()
            except headrace.EngineUnavailableError:
                if last:
                    raise
            else:
                return status.runs, status.waiting
        raise AssertionError

    def descriptors(self) -> dict[str, int]:
        """Return how many descriptors the processes have open: the most of one process of each role."""
        most: dict[str, int] = {}
        for pid, (role, _) in process_cpu(self.pid).items():
            with contextlib.suppress(OSError):
                most[role] = max(most.get(role, 0), len(list(Path(f"/proc/{pid}/fd").iterdir())))
        return most

    def close(self) -> None:
        """Disconnect."""
        self._observer.close()


@contextlib.contextmanager
def engine(
    source: LoadProvider, workers: int, settings: str = "", open_files: int | None = None
) -> Iterator[MeasuredEngine]:
    """Run an engine with these settings (the text of a headrace.toml). ``open_files``: its limit of descriptors."""
    folder = Path(tempfile.mkdtemp(prefix="hr-scale-"))
    (folder / "headrace.toml").write_text(settings)
    directory = folder / "engine"
    directory.mkdir(mode=0o700)
    environment = os.environ | {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{source.port}/v1",
        "OPENAI_API_KEY": "sk-simulated",
        "HEADRACE_CONFIG": str(folder / "headrace.toml"),
        "HEADRACE_DATA": str(folder / "spans"),
    }
    command = [sys.executable, "-m", "headrace_engine", "--directory", str(directory), "--workers", str(workers)]
    if open_files is not None:
        command = ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *command]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=log)
    made = MeasuredEngine(process, directory)
    try:
        _wait_for_workers(made, workers)
        yield made
    finally:
        made.close()
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30.0)
        process.kill()
        process.wait()
        said = [line for line in (folder / "log").read_text().splitlines() if " INFO " not in line]
        print(*said[:20], sep="\n", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        source.ask("POST", "clear")


def _wait_for_workers(made: MeasuredEngine, workers: int) -> None:
    deadline = time.monotonic() + _STARTING
    while time.monotonic() < deadline:
        with contextlib.suppress(headrace.HeadraceError), headrace.Client(made.address) as client:
            if sum(worker.state == "ok" for worker in client.status().workers) == workers:
                return
        time.sleep(0.05)
    raise ScaleError(f"the engine has not started {workers} workers within {_STARTING:g} s")


class Clients:
    """A group of client processes under way."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process

    def ask(self, command: str) -> list[ClientFigures]:
        """Have all processes carry out a command. Return what they say."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise ScaleError(f"the client processes have ended at the command {command!r}")
        return msgspec.json.decode(line, type=list[ClientFigures])

    def figures(self) -> TreeFigures:
        """Return what the client processes have used so far."""
        return mark(self.pid)


@contextlib.contextmanager
def clients(group: ClientGroup) -> Iterator[Clients]:
    """Run a group of client processes."""
    command = [sys.executable, "-m", "bench.scale.client_group", msgspec.json.encode(group).decode()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield Clients(process)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60.0)
        finally:
            process.kill()


def merged(figures: Sequence[TreeFigures]) -> TreeFigures:
    """Return the sums of several trees, by role."""
    cpu: dict[str, float] = {}
    memory: dict[str, float] = {}
    for one in figures:
        for role in one.cpu:
            cpu[role] = cpu.get(role, 0.0) + one.cpu[role]
            memory[role] = memory.get(role, 0.0) + one.memory[role]
    return TreeFigures(cpu, memory)
