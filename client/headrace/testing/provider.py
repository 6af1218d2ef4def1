"""``SimulatedProvider``: a model provider on this machine, for tests and benchmarks."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec

from headrace.process.import_path import engine_environment
from headrace.testing.server import ServerThread
from headrace.testing.shared.request_log import RequestRecord
from headrace.testing.shared.script import Script
from headrace.testing.simulation import CONTROL_PREFIX

_POLL = 0.004  # between two looks at the log
_CONTROL_TIMEOUT = 30.0

_decode_records = msgspec.json.Decoder(list[RequestRecord]).decode


class SimulatedProvider:
    """A local server that speaks a provider's wire format, answers by script and logs what it was asked.

    It serves from construction to ``close()``; in a thread of this process or, with ``process=True``, in a process of its own, so
    that its load does not share this interpreter's lock. All methods are thread-safe and block for a moment; call
    ``wait_until`` by ``asyncio.to_thread`` if what it waits for happens in your event loop.

    A request is answered by its own ``simulate`` field if it has one (a ``Script`` as JSON), else by the oldest script enqueued,
    else by ``script``. Times in the records are ``time.monotonic()``, comparable between processes of one Linux machine.
    """

    def __init__(self, script: Script | None = None, port: int = 0, *, process: bool = False) -> None:
        self._server = _ServerProcess(script, port) if process else ServerThread(script, port)
        self.port = self._server.port
        self.api_key = "sk-simulated"
        self._lock = threading.Lock()
        self._control = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_CONTROL_TIMEOUT)

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that send clients of all wire formats here: the runs that begin while they are set."""
        host = f"http://127.0.0.1:{self.port}"
        return {
            "OPENAI_BASE_URL": self.base_url,
            "OPENAI_API_KEY": self.api_key,
            "ANTHROPIC_BASE_URL": host,
            "ANTHROPIC_API_KEY": self.api_key,
            "GOOGLE_GEMINI_BASE_URL": host,
            "GEMINI_API_KEY": self.api_key,
        }

    @property
    def open_connections(self) -> int:
        """How many connections of clients are open."""
        return msgspec.json.decode(self._call("GET", "connections"), type=int)

    def enqueue(self, *scripts: Script) -> None:
        """Have the next valid requests answered by these scripts, one each."""
        self._call("POST", "scripts", msgspec.json.encode(scripts))

    def requests(self) -> list[RequestRecord]:
        """Return the requests since the start or the last ``clear()``, in order of arrival."""
        return _decode_records(self._call("GET", "requests"))

    def clear(self) -> None:
        """Forget the log and the enqueued scripts."""
        self._call("POST", "clear")

    def wait_until(
        self, predicate: Callable[[list[RequestRecord]], object], timeout: float = 10.0
    ) -> list[RequestRecord]:
        """Return the requests as soon as ``predicate`` is true of them; raise ``TimeoutError`` if that takes too long."""
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while not predicate(records := self.requests()):
            if time.monotonic() >= deadline:
                seen = [(record.number, record.status, record.outcome, record.chunks_sent) for record in records]
                raise TimeoutError(
                    f"not true of the requests (number, status, outcome, chunks) after {timeout} s: {seen}"
                )
            pause.wait(_POLL)
        return records

    def close(self) -> None:
        """Stop serving. May be called twice."""
        with self._lock:
            self._control.close()
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, name: str, body: bytes = b"") -> bytes:
        with self._lock:
            self._control.request(method, CONTROL_PREFIX + name, body)
            response = self._control.getresponse()
            data = response.read()
        if response.status != http.client.OK:
            raise ValueError(msgspec.json.decode(data)["error"]["message"])
        return data


class _ServerProcess:
    """The simulated provider in a child process, which ends when this process does: its standard input ends then."""

    def __init__(self, script: Script | None, port: int) -> None:
        command = [sys.executable, "-m", "headrace.testing", "--port", str(port)]
        environ = engine_environment(os.environ, sys.path)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        try:
            self._write(msgspec.json.encode(script or Script()) + b"\n")
            self.port = self._read_port()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process. May be called twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def _read_port(self) -> int:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the simulated provider did not start; its standard error says why")
        return msgspec.json.decode(line, type=dict[str, int])["port"]
