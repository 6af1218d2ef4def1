"""HTTP calls of the batch process: lines of downloads, redirects without the key, and what may have arrived."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from headrace_workers.batches.batch_http import BatchCallError, BatchHttp, Headers
from headrace_workers.providers.openai_chat.api import API

KEY: Headers = [("authorization", "Bearer sk-secret")]
LINES = b"one\r\n\n" + b"x" * 3_000_000 + b"\nlast"


class Handler(BaseHTTPRequestHandler):
    """Answers by the path."""

    seen: ClassVar[list[tuple[str, str | None]]] = []
    other = ""

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("authorization")))
        match self.path:
            case "/lines":
                self.answer(200, LINES)
            case "/moved":
                self.answer(302, b"", location="/lines")
            case "/elsewhere":
                self.answer(302, b"", location=f"{self.other}/lines")
            case "/circle":
                self.answer(302, b"", location="/circle")
            case _:
                self.answer(404, b'{"error": {"message": "there is no such file"}}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        match self.path:
            case "/cut":
                self.close_connection = True
            case "/busy":
                self.answer(503, b"busy")
            case "/refused":
                self.answer(400, b'{"error": {"message": "no"}}')
            case _:
                self.answer(200, b'{"bytes": %d}' % len(body))

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    for each in servers:
        threading.Thread(target=each.serve_forever, args=(0.01,), daemon=True).start()
    Handler.seen.clear()
    Handler.other = f"http://127.0.0.1:{servers[1].server_port}"
    yield f"http://127.0.0.1:{servers[0].server_port}"
    for each in servers:
        each.shutdown()
        each.server_close()


@pytest.fixture
def http() -> Iterator[BatchHttp]:
    http = BatchHttp(5.0)
    yield http
    http.close()


def failed(http: BatchHttp, method: str, url: str) -> BatchCallError:
    with pytest.raises(BatchCallError) as caught:
        http.call(API, method, url, KEY, b"{}" if method == "POST" else None)
    return caught.value


def test_a_download_comes_line_by_line(http: BatchHttp, server: str) -> None:
    with http.lines(API, f"{server}/lines", KEY) as lines:
        assert [len(line) for line in lines] == [4, 3_000_000, 4]


def test_a_redirect_to_another_server_does_not_take_the_key_along(http: BatchHttp, server: str) -> None:
    for path in ("/moved", "/elsewhere"):
        with http.lines(API, server + path, KEY) as lines:
            assert len(list(lines)) == 3
    assert Handler.seen == [
        ("/moved", "Bearer sk-secret"),
        ("/lines", "Bearer sk-secret"),
        ("/elsewhere", "Bearer sk-secret"),
        ("/lines", None),
    ]
    with pytest.raises(BatchCallError, match="redirects"), http.lines(API, f"{server}/circle", KEY):
        pass


def test_an_error_is_read_as_the_wire_format_reads_it(http: BatchHttp, server: str) -> None:
    error = failed(http, "GET", f"{server}/gone")
    assert (error.failure.kind, error.failure.status_code) == ("invalid_request", 404)
    assert "there is no such file" in error.failure.reason


@pytest.mark.parametrize(("path", "may_have_arrived"), [("/cut", True), ("/busy", True), ("/refused", False)])
def test_a_failed_post_says_whether_it_may_have_arrived(
    http: BatchHttp, server: str, path: str, may_have_arrived: bool
) -> None:
    assert failed(http, "POST", server + path).may_have_arrived is may_have_arrived


def test_without_a_connection_nothing_has_arrived(http: BatchHttp) -> None:
    error = failed(http, "POST", "http://127.0.0.1:1/v1/batches")
    assert not error.may_have_arrived
    assert error.failure.may_retry


def test_a_long_body_is_sent_in_pieces(http: BatchHttp, server: str) -> None:
    reply = http.send(API, f"{server}/upload", KEY, (b"x" * 1000 for _ in range(1000)), 1_000_000)
    assert reply.json() == {"bytes": 1_000_000}
