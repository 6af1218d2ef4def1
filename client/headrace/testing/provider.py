"""``SimulatedProvider``: starts, scripts and stops a simulated model provider on this machine."""

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

_POLL = 0.004  # seconds between two checks of the log
_CONTROL_TIMEOUT = 30.0

_decode_records = msgspec.json.Decoder(list[RequestRecord]).decode


class SimulatedProvider:
    """A local server that speaks the wire formats of all providers, answers by script, and logs its requests.

    ``script`` is the default script. ``port`` 0 means a free port. The server runs from construction to ``close()``: in
    a thread of this process or, with ``process=True``, in a process of its own, which does not slow down this
    interpreter. All methods are thread-safe and block for a moment. If ``wait_until`` waits for your event loop, call
    it by ``asyncio.to_thread``.

    A request is answered by its own ``simulate`` field (a ``Script`` as JSON), else by the oldest enqueued script, else
    by ``script``. Times in the records are ``time.monotonic()`` seconds, comparable between processes of one Linux
    machine. Raises OSError if the port cannot be used.
    """

    def __init__(self, script: Script | None = None, port: int = 0, *, process: bool = False) -> None:
        self._server = _ServerProcess(script, port) if process else ServerThread(script, port)
        self.port = self._server.port
        self.api_key = "sk-simulated"
        self._lock = threading.Lock()
        self._control = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_CONTROL_TIMEOUT)

    @property
    def base_url(self) -> str:
        """The base URL for an OpenAI client, such as ``http://127.0.0.1:8000/v1``."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that send runs of all wire formats here, if they are set when a run begins."""
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
        """The number of open connections of clients."""
        return msgspec.json.decode(self._call("GET", "connections"), type=int)

    def enqueue(self, *scripts: Script) -> None:
        """Answer the next valid requests by these scripts, one script for each request."""
        self._call("POST", "scripts", msgspec.json.encode(scripts))

    def requests(self) -> list[RequestRecord]:
        """Return the requests since the start or the last ``clear()``, in the order of their arrival."""
        return _decode_records(self._call("GET", "requests"))

    def clear(self) -> None:
        """Remove all requests from the log, and all enqueued scripts."""
        self._call("POST", "clear")

    def wait_until(
        self, predicate: Callable[[list[RequestRecord]], object], timeout: float = 10.0
    ) -> list[RequestRecord]:
        """Return the requests as soon as ``predicate(requests)`` is true.

        Raises TimeoutError after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while not predicate(records := self.requests()):
            if time.monotonic() >= deadline:
                seen = [(record.number, record.status, record.outcome, record.chunks_sent) for record in records]
                raise TimeoutError(
                    f"the predicate was false for {timeout} s; the requests (number, status, outcome, chunks) are: {seen}"
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
    """The simulated provider in a child process. It ends with this process, because its standard input ends then."""

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
