"""LocalProvider: a model provider on this machine, as a test sees it: its address, its requests, its end."""

from __future__ import annotations

import http.client
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

import msgspec

from headrace.testing.shared.http_request import CONTROL_PREFIX
from headrace.testing.shared.request_log import Arrival, RequestRecord

_POLL = 0.004  # seconds between two checks of the log
_CONTROL_TIMEOUT = 30.0

_decode_records = msgspec.json.Decoder(list[RequestRecord]).decode
_decode_arrivals = msgspec.json.Decoder(list[Arrival]).decode


class RunningServer(Protocol):
    """A server that runs in a thread or in a process of its own."""

    port: int

    def close(self) -> None:
        """Stop serving. May be called twice."""


_running: set[RunningServer] = set()
"""Servers that are not closed. A server runs until then, also if nothing refers to its provider any more."""


class LocalProvider:
    """A server on this machine that answers as a model provider does, and logs its requests.

    It runs from construction to ``close()``. One process may have several, at once and one after another, also in
    threads and inside a running event loop. All methods are thread-safe and block for a moment. If ``wait_until`` waits
    for your event loop, call it by ``asyncio.to_thread``.
    """

    def __init__(self, server: RunningServer) -> None:
        self.port = server.port
        self.api_key = "sk-simulated"
        self._server = server
        self._control = _Control(server.port)
        weakref.finalize(self, self._control.close)
        _running.add(server)

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

    @contextmanager
    def in_environment(self) -> Iterator[Self]:
        """Set the variables of ``environment`` in this process for a ``with`` block, and restore them after it.

        ``GOOGLE_API_KEY``, which would take the place of ``GEMINI_API_KEY``, is removed for the block.
        """
        names = [*self.environment, "GOOGLE_API_KEY"]
        before = {name: os.environ.get(name) for name in names}
        os.environ.pop("GOOGLE_API_KEY", None)
        os.environ.update(self.environment)
        try:
            yield self
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    @property
    def open_connections(self) -> int:
        """The number of open connections of clients."""
        return msgspec.json.decode(self._call("GET", "connections"), type=int)

    def requests(self) -> list[RequestRecord]:
        """Return the requests since the start or the last ``clear()``, in the order of their arrival."""
        return _decode_records(self._call("GET", "requests"))

    def arrivals(self) -> list[Arrival]:
        """Return the same requests in a few words: time, key, model, status. For tests that make thousands of them."""
        return _decode_arrivals(self._call("GET", "arrivals"))

    def clear(self) -> None:
        """Remove all requests from the log, and what waits to be answered with."""
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
        self._control.close()
        self._server.close()
        _running.discard(self._server)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, name: str, body: bytes = b"") -> bytes:
        if self._server not in _running:
            raise ValueError(f"this {type(self).__name__} is closed; make a new one")
        return self._control.call(method, name, body)


class _Control:
    """The connection for questions to the server. A forked child gets a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._connect()

    def call(self, method: str, name: str, body: bytes) -> bytes:
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            self._connection.close()  # closes the child's copy only
            self._connect()
        with self._lock:
            self._connection.request(method, CONTROL_PREFIX + name, body)
            response = self._connection.getresponse()
            data = response.read()
        if response.status != http.client.OK:
            raise ValueError(msgspec.json.decode(data)["error"]["message"])
        return data

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> None:
        self._pid = os.getpid()
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_CONTROL_TIMEOUT)
