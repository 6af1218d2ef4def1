"""Two servers that take spans: an OpenTelemetry collector and a span API. A test sets the answer to each request."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Say(msgspec.Struct, frozen=True):
    """One answer. ``delay`` in seconds before it; ``hangs`` never gives one, ``endless`` a body that does not end."""

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b""
    delay: float = 0.0
    hangs: bool = False
    endless: bool = False


OK = Say()


def partial_success(rejected: int, words: str) -> Say:
    partial = ExportTracePartialSuccess(rejected_spans=rejected, error_message=words)
    return Say(body=ExportTraceServiceResponse(partial_success=partial).SerializeToString())


class Received(msgspec.Struct, frozen=True):
    """One request: when it came (monotonic), with what, and what it was answered. ``spans`` are the ids (``sp_…``) in it."""

    time: float
    path: str
    headers: dict[str, str]
    body: bytes
    spans: list[str]
    status: int


class FakeSink:
    """Answers with ``script``, one after the other, and then with ``after``, or what it says to the ids in the request."""

    def __init__(
        self, script: Iterable[Say] = (), after: Say | Callable[[list[str]], Say] = OK, *, port: int = 0
    ) -> None:
        self._script = list(script)
        self._after = after
        self._lock = threading.Lock()
        self.received: list[Received] = []
        self.stopping = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.fake = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def taken(self) -> list[str]:
        """Return the ids of all spans in requests that were answered with success, in their order."""
        with self._lock:
            return [span for request in self.received if 200 <= request.status < 300 for span in request.spans]

    def next_answer(self, time: float, path: str, headers: dict[str, str], body: bytes) -> Say:
        with self._lock:
            spans = span_ids(headers, body)
            after = self._after(spans) if callable(self._after) else self._after
            say = self._script.pop(0) if self._script else after
            self.received.append(Received(time, path, headers, body, spans, 0 if say.hangs else say.status))
            return say

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def otlp_request(request: Received) -> ExportTraceServiceRequest:
    """Return the message in a request."""
    message = ExportTraceServiceRequest()
    message.ParseFromString(_unpacked(request.headers, request.body))
    return message


def json_request(request: Received) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(request.body)
    return decoded


def span_ids(headers: dict[str, str], body: bytes) -> list[str]:
    if headers["content-type"] == "application/json":
        return [json.loads(body)["spanId"]]
    request = ExportTraceServiceRequest.FromString(_unpacked(headers, body))
    return [
        f"sp_{span.span_id.hex()}"
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def _unpacked(headers: dict[str, str], body: bytes) -> bytes:
    return gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    fake: FakeSink

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    server: _Server

    def do_POST(self) -> None:
        now = time.monotonic()
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers["content-length"]))
        fake = self.server.fake
        say = fake.next_answer(now, self.path, headers, body)
        if say.hangs:
            fake.stopping.wait()
            self.close_connection = True
            return
        fake.stopping.wait(say.delay)
        self.send_response(say.status)
        for name, value in say.headers.items():
            self.send_header(name, value)
        if say.endless:
            self._talk(fake)
            return
        self.send_header("Content-Length", str(len(say.body)))
        self.end_headers()
        self.wfile.write(say.body)

    def _talk(self, fake: FakeSink) -> None:
        self.close_connection = True
        self.send_header("Connection", "close")
        self.end_headers()
        while not fake.stopping.is_set():
            self.wfile.write(bytes(64 * 1024))

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""
