"""Promises of the worker's HTTP client, against small servers that answer and misbehave on command."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import shutil
import socket
import ssl
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace_workers.http.body_decoding import PIECE
from headrace_workers.http.direct_exchange import CUT_REASON, DirectExchange
from headrace_workers.http.http1_connection import MAX_HEAD_BYTES, Http1Connection
from headrace_workers.http.http_client import HttpClient, HttpExchange, HttpOrigin, connect_reason
from headrace_workers.http.http_request import HttpRequest
from tests.workers.http.http_servers import (
    OPEN_HEAD,
    SMALL,
    Peer,
    Recorder,
    Run,
    Server,
    always,
    ask,
    chunked,
    once,
    send,
    talking,
    then_hold,
)


def test_a_request_is_sent_whole_with_the_clients_own_fields(run: Run) -> None:
    async def story() -> None:
        async with talking(always(SMALL)) as (client, server):
            recorder = await ask(client, server.url)
            host = server.url.split("/")[2].encode()
            head, _, body = server.peers[0].requests[0].partition(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            assert lines[:2] == [b"POST /v1/chat?a=b HTTP/1.1", b"Host: " + host]
            assert lines[2].startswith(b"User-Agent: headrace/")
            assert lines[3:5] == [b"Authorization: Bearer key-1", b"Content-Type: application/json"]
            assert lines[5:] == [b"Accept-Encoding: identity", b"Content-Length: 2"]
            assert body == b"{}"
            assert recorder.calls == ["response", "bytes", "complete"]
            assert (recorder.status, recorder.body) == (200, b"hello")

    run(story())


def test_a_connection_is_kept_for_the_next_request(run: Run) -> None:
    async def story() -> None:
        async with talking(always(SMALL)) as (client, server):
            for _ in range(3):
                assert (await ask(client, server.url)).body == b"hello"
            assert len(server.peers) == 1

    run(story())


def test_a_request_sent_from_on_complete_finds_the_connection(run: Run) -> None:
    async def story() -> None:
        async with talking(always(SMALL)) as (client, server):
            second = Recorder()

            def send_second(_: HttpExchange) -> None:
                send(client, server.url, second)

            send(client, server.url, Recorder("complete", send_second))
            await second.ended.wait()
            assert (second.body, len(server.peers)) == (b"hello", 1)

    run(story())


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        SMALL + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        SMALL + b"garbage",
    ],
    ids=["connection: close", "http/1.0", "a second response", "garbage after it"],
)
def test_a_connection_that_cannot_be_trusted_again_is_closed(run: Run, response: bytes) -> None:
    async def story() -> None:
        async with talking(then_hold(response)) as (client, server):
            recorder = await ask(client, server.url)
            assert (recorder.calls[-1], recorder.body) == ("complete", b"hello")
            await server.peers[0].gone.wait()

    run(story())


def test_an_idle_connection_leaves_when_it_expires(run: Run) -> None:
    async def story() -> None:
        async with talking(always(SMALL), keepalive=0.02) as (client, server):
            await ask(client, server.url)
            await server.peers[0].gone.wait()
            await ask(client, server.url)
            assert len(server.peers) == 2

    run(story())


def test_no_more_idle_connections_are_kept_than_allowed(run: Run) -> None:
    async def story() -> None:
        async with talking(always(SMALL), max_idle_per_origin=1) as (client, server):
            await asyncio.gather(*(ask(client, server.url) for _ in range(3)))
            ends = [asyncio.ensure_future(peer.gone.wait()) for peer in server.peers]
            while sum(end.done() for end in ends) < 2:
                await asyncio.wait([end for end in ends if not end.done()], return_when=asyncio.FIRST_COMPLETED)
            assert sum(end.done() for end in ends) == 2

    run(story())


def test_data_on_an_idle_connection_closes_it(run: Run) -> None:
    async def story() -> None:
        go_on = asyncio.Event()

        async def handle(peer: Peer) -> None:
            await peer.answer(SMALL)
            await go_on.wait()
            await peer.say(SMALL)
            await peer.wait_gone()

        async with talking(handle) as (client, server):
            await ask(client, server.url)
            go_on.set()
            await server.peers[0].gone.wait()

    run(story())


def test_close_in_the_middle_of_a_body_closes_the_connection_at_once(run: Run) -> None:
    async def story() -> None:
        async with talking(then_hold(OPEN_HEAD + b"5\r\nhello\r\n")) as (client, server):
            recorder = Recorder()
            exchange = send(client, server.url, recorder)
            await recorder.read.wait()
            assert exchange.is_connected
            exchange.close()
            exchange.close()
            await server.peers[0].gone.wait()
            assert recorder.calls == ["response", "bytes"]

    run(story())


def test_close_while_connecting_sends_nothing(run: Run) -> None:
    async def story() -> None:
        async with talking(always(SMALL)) as (client, server):
            recorder = Recorder()
            exchange = send(client, server.url, recorder)
            assert not exchange.is_connected
            exchange.close()
            await ask(client, server.url)
            assert recorder.calls == []
            assert sum(len(peer.requests) for peer in server.peers) == 1

    run(story())


@pytest.mark.parametrize("call", ["response", "bytes"])
def test_no_call_follows_a_close_from_inside_a_call(run: Run, call: str) -> None:
    async def story() -> None:
        async with talking(then_hold(OPEN_HEAD + b"5\r\nhello\r\n")) as (client, server):
            recorder = Recorder(call, lambda exchange: exchange.close())
            send(client, server.url, recorder)
            await recorder.answered.wait()
            await server.peers[0].gone.wait()
            assert recorder.calls[-1] == call

    run(story())


@pytest.mark.parametrize("act", ["close", "release"])
def test_a_response_that_is_complete_keeps_its_connection_through_close_and_release(run: Run, act: str) -> None:
    async def story() -> None:
        async with talking(always(OPEN_HEAD + chunked(b"data: [DONE]\n\n"))) as (client, server):
            recorder = Recorder("bytes", lambda exchange: getattr(exchange, act)())
            send(client, server.url, recorder)
            await recorder.read.wait()
            assert (await ask(client, server.url)).body == b"data: [DONE]\n\n"
            assert len(server.peers) == 1
            assert recorder.calls == ["response", "bytes"]

    run(story())


def test_a_released_connection_is_closed_when_its_body_does_not_end(run: Run) -> None:
    async def story() -> None:
        async with talking(then_hold(OPEN_HEAD + b"5\r\nhello\r\n"), linger=0.02) as (client, server):
            recorder = Recorder("bytes", lambda exchange: exchange.release())
            send(client, server.url, recorder)
            await recorder.read.wait()
            await server.peers[0].gone.wait()
            assert recorder.calls == ["response", "bytes"]

    run(story())


def test_pause_stops_reading_from_the_socket_and_resume_reads_again(run: Run) -> None:
    async def story() -> None:
        size = 32 * 1024 * 1024  # more than the kernel buffers for a paused reader
        block = bytes(1024 * 1024)
        blocks_out = 0

        async def handle(peer: Peer) -> None:
            nonlocal blocks_out
            if b"small" in await peer.request():
                await peer.say(SMALL)
                await always(SMALL)(peer)
            peer.writer.transport.set_write_buffer_limits(high=0)
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(size // len(block)):
                await peer.say(block)
                blocks_out += 1
            await peer.wait_gone()

        async with talking(handle) as (client, server):
            recorder = Recorder("response", lambda exchange: exchange.pause())
            exchange = send(client, server.url, recorder)
            await recorder.answered.wait()
            for _ in range(20):  # time for the server to fill every buffer
                other = Recorder()
                send(client, server.url, other, b"small")
                await other.ended.wait()
            assert len(recorder.body) < 1024 * 1024
            assert blocks_out < size // len(block)
            exchange.resume()
            await recorder.ended.wait()
            assert (len(recorder.body), recorder.calls[-1]) == (size, "complete")

    run(story())


class FakeTransport(asyncio.Transport):
    """Records what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: everything is sent at once."""

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class FakeOwner:
    def __init__(self) -> None:
        self.free: list[Http1Connection] = []

    def connection_free(self, connection: Http1Connection) -> None:
        self.free.append(connection)

    def connection_gone(self, connection: Http1Connection) -> None:
        pass

    def connection_closed(self, connection: Http1Connection) -> None:
        pass


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_response_reads_the_same_in_pieces_of_any_size(run: Run, size: int) -> None:
    async def story() -> None:
        owner, recorder = FakeOwner(), Recorder()
        connection = Http1Connection(asyncio.get_running_loop(), owner, 0.5)
        connection.connection_made(FakeTransport())
        connection.start(DirectExchange(recorder, b"request"), is_reused=False)
        head = b"HTTP/1.1 200 OK\r\nX-One: 1\r\nX-one: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        response = head + b"5;note=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: 3\r\n\r\n"
        for start in range(0, len(response), size):
            connection.data_received(response[start : start + size])
        assert (recorder.body, recorder.calls[-1]) == (b"hello world", "complete")
        assert recorder.headers == {"x-one": "1, 2", "transfer-encoding": "chunked"}
        assert size < len(response) or recorder.calls == ["response", "bytes", "complete"]
        assert owner.free == [connection]

    run(story())


def test_a_released_connection_is_kept_once_its_body_has_ended(run: Run) -> None:
    async def story() -> None:
        owner, recorder, transport = FakeOwner(), Recorder(), FakeTransport()
        connection = Http1Connection(asyncio.get_running_loop(), owner, 0.0)
        connection.connection_made(transport)
        exchange = DirectExchange(recorder, b"request")
        connection.start(exchange, is_reused=False)
        connection.data_received(OPEN_HEAD + b"5\r\nhello\r\n")
        exchange.release()
        assert owner.free == []
        connection.data_received(b"5\r\nworld\r\n0\r\n\r\n")
        assert owner.free == [connection]
        assert recorder.calls == ["response", "bytes"]
        exchange.close()
        assert not transport.is_aborted

    run(story())


def _bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"hello " * 1000)),
        ("GZIP", gzip.compress(b"hello " * 400) + gzip.compress(b"hello " * 600)),
        ("deflate", zlib.compress(b"hello " * 1000)),
        ("deflate", _bare_deflate(b"hello " * 1000)),
        ("identity", b"hello " * 1000),
    ],
    ids=["gzip", "two gzip files", "zlib", "bare deflate", "identity"],
)
def test_a_compressed_body_is_unpacked_although_it_was_not_asked_for(run: Run, encoding: str, body: bytes) -> None:
    async def story() -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        pieces = [body[start : start + 9] for start in range(0, len(body), 9)]
        async with talking(always(head + chunked(*pieces))) as (client, server):
            recorder = await ask(client, server.url)
            assert recorder.failure is None
            assert recorder.body == b"hello " * 1000

    run(story())


def test_a_body_that_unpacks_to_very_much_comes_in_pieces_and_can_be_refused(run: Run) -> None:
    async def story() -> None:
        plain = os.urandom(1024 * 1024).hex().encode() * 10
        body = gzip.compress(plain, 1)
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
        async with talking(always(head + body)) as (client, server):
            assert (await ask(client, server.url)).body == plain
            refusing = Recorder("bytes", lambda exchange: exchange.close())
            send(client, server.url, refusing)
            await refusing.read.wait()
            assert refusing.calls == ["response", "bytes"]
            assert len(refusing.body) <= PIECE

    run(story())


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (OPEN_HEAD + b"5\r\nhello\r\n", CUT_REASON),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", CUT_REASON),
        (b"HTTP/1.1 200 OK\r\nContent-Le", CUT_REASON),
        (b"", CUT_REASON),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "malformed HTTP response"),
        (OPEN_HEAD + b"hello", "malformed HTTP response"),
        (b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", "another protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nhello", "content-encoding"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", "damaged"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello")[:-3], CUT_REASON),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", "response head over"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000, "response head over"),
    ],
    ids=[
        "chunked body cut",
        "counted body cut",
        "head cut",
        "nothing",
        "not HTTP",
        "not chunked",
        "another protocol",
        "unknown coding",
        "damaged gzip",
        "gzip cut",  # its bytes hold the time, so as test ids they would differ between processes
        "long header",
        "many headers",
    ],
)
def test_a_response_that_is_cut_or_broken_fails_once_and_says_why(run: Run, response: bytes, reason: str) -> None:
    async def story() -> None:
        async with talking(once(response)) as (client, server):
            recorder = await ask(client, server.url)
            assert recorder.failure is not None
            stage, said = recorder.failure
            assert stage == ("read" if said == CUT_REASON else "unreadable")
            assert reason in said
            assert recorder.calls.count("failure") == 1
            assert len(server.peers) == 1, "it was sent twice"

    run(story())


def test_a_server_that_accepts_and_closes_fails_each_request_once(run: Run) -> None:
    async def story() -> None:
        async def handle(_: Peer) -> None:
            """Close at once."""

        async with talking(handle) as (client, server):
            for recorder in await asyncio.gather(*(ask(client, server.url) for _ in range(30))):
                assert recorder.calls == ["failure"]

    run(story())


def test_a_connection_that_was_lost_before_it_was_used_fails_the_connect(run: Run) -> None:
    async def story() -> None:
        async def accept_and_close(factory: Callable[[], Http1Connection], *_: object) -> None:
            connection = factory()
            connection.connection_made(FakeTransport())
            connection.connection_lost(None)

        class RefusingLoop:
            def __getattr__(self, name: str) -> Any:
                return accept_and_close if name == "create_connection" else getattr(asyncio.get_running_loop(), name)

        loop: Any = RefusingLoop()
        client = HttpClient(loop, connect_timeout=5)
        recorder = await ask(client, "http://127.0.0.1:9/v1")
        await client.aclose()
        assert recorder.failure == ("connect", "127.0.0.1:9 closed the connection at once")

    run(story())


def test_a_connection_that_dies_before_the_request_was_out_fails_the_send(run: Run) -> None:
    async def story() -> None:
        async def handle(peer: Peer) -> None:
            await peer.reader.readexactly(1)

        async with talking(handle) as (client, server):
            recorder = Recorder()
            send(client, server.url, recorder, bytes(32 * 1024 * 1024))
            await recorder.ended.wait()
            assert recorder.failure == ("send", "connection closed before the request was sent")

    run(story())


def test_a_body_without_a_length_ends_with_the_connection(run: Run) -> None:
    async def story() -> None:
        async with talking(once(b"HTTP/1.1 200 OK\r\n\r\nhello")) as (client, server):
            recorder = await ask(client, server.url)
            assert (recorder.body, recorder.calls[-1]) == (b"hello", "complete")

    run(story())


def test_informational_responses_are_skipped(run: Run) -> None:
    async def story() -> None:
        informational = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        async with talking(always(informational + SMALL)) as (client, server):
            for _ in range(2):
                recorder = await ask(client, server.url)
                assert (recorder.status, recorder.body) == (200, b"hello")
                assert recorder.headers == {"content-length": "5"}
            assert len(server.peers) == 1

    run(story())


@pytest.mark.parametrize("status", [b"204 No Content", b"429 Too Many\r\nContent-Length: 0"])
def test_a_response_without_a_body_completes(run: Run, status: bytes) -> None:
    async def story() -> None:
        async with talking(always(b"HTTP/1.1 " + status + b"\r\n\r\n")) as (client, server):
            for _ in range(2):
                recorder = await ask(client, server.url)
                assert recorder.calls == ["response", "complete"]
            assert len(server.peers) == 1

    run(story())


def test_a_connection_that_closed_as_the_request_was_written_is_replaced_once(run: Run) -> None:
    async def story() -> None:
        async def handle(peer: Peer) -> None:
            await peer.answer(SMALL)
            if len(server.peers) == 1:
                await peer.request()  # and close instead of an answer
            else:
                await peer.wait_gone()

        async with talking(handle) as (client, server):
            await ask(client, server.url)
            recorder = await ask(client, server.url)
            assert (recorder.failure, recorder.body) == (None, b"hello")
            assert [len(peer.requests) for peer in server.peers] == [2, 1]

    run(story())


def test_a_reused_connection_that_dies_after_a_byte_of_the_response_is_not_replaced(run: Run) -> None:
    async def story() -> None:
        async def handle(peer: Peer) -> None:
            await peer.answer(SMALL)
            await peer.answer(b"H")
            peer.writer.close()
            await peer.wait_gone()

        async with talking(handle) as (client, server):
            await ask(client, server.url)
            assert (await ask(client, server.url)).failure == ("read", CUT_REASON)
            assert len(server.peers) == 1

    run(story())


def test_a_lack_of_descriptors_is_named() -> None:
    reason = connect_reason(HttpOrigin("https", "api.example.com", 443), OSError(errno.EMFILE, "Too many open files"))

    assert "no descriptor is left for a connection to api.example.com:443" in reason


def test_a_tls_context_that_could_not_be_made_is_made_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def no_descriptor() -> ssl.SSLContext:
        calls.append(1)
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        client = HttpClient(asyncio.get_running_loop(), connect_timeout=1.0)
        for _ in range(2):
            with pytest.raises(OSError, match="Too many"):
                await client._tls_context()
        await client.aclose()

    monkeypatch.setattr("headrace_workers.http.http_client._create_tls_context", no_descriptor)
    asyncio.run(main())
    assert len(calls) == 2


def test_a_refused_connection_is_named(run: Run) -> None:
    async def story() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            client = HttpClient(asyncio.get_running_loop(), connect_timeout=5)
            recorder = await ask(client, f"http://127.0.0.1:{port}/v1")
            await client.aclose()
        assert recorder.failure == ("connect", f"127.0.0.1:{port} refused the connection")

    run(story())


def test_a_host_that_has_no_address_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        client = HttpClient(loop, connect_timeout=5)
        # An asyncio or uvloop resolver refuses this name without asking a server: a label over 63 characters.
        recorder = await ask(client, f"http://{'a' * 64}.invalid/v1")
        await client.aclose()
        assert recorder.failure is not None
        assert recorder.failure[0] == "connect"
        assert ".invalid:80" in recorder.failure[1]

    run(story())


def test_a_server_that_never_accepts_fails_within_the_connect_timeout(run: Run) -> None:
    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            address = full.getsockname()
            waiting = [socket.socket() for _ in range(4)]
            for waiter in waiting:
                waiter.setblocking(False)
                waiter.connect_ex(address)
            client = HttpClient(asyncio.get_running_loop(), connect_timeout=0.1)
            recorder = await ask(client, f"http://127.0.0.1:{address[1]}/v1")
            await client.aclose()
            for waiter in waiting:
                waiter.close()
        assert recorder.failure == ("connect", f"no connection to 127.0.0.1:{address[1]} within 0.1 s")

    run(story())


@pytest.mark.parametrize(
    ("url", "header", "reason"),
    [
        ("http://127.0.0.1/", ("X", "secret\r\nY: 1"), "the value of the header X holds"),
        ("http://127.0.0.1/", ("X\r\nY", "secret"), "a header's name holds"),
        ("http://127.0.0.1/", ("X", "secret\u20ac"), "the value of the header X holds"),
        ("http://127.0.0.1/", ("Content-Length", "3"), "may not set the header content-length"),
        ("http://127.0.0.1/ HTTP/1.1\r\nX: 1", ("X", "1"), "the URL holds characters"),
        ("ftp://127.0.0.1/", ("X", "1"), "the URL is not http"),
        ("http://127.0.0.1:99999/", ("X", "1"), "Port out of range"),
        ("http://me:secret@127.0.0.1/", ("X", "1"), "credentials"),
    ],
)
def test_a_request_that_could_be_read_in_two_ways_is_not_sent(
    run: Run, url: str, header: tuple[str, str], reason: str
) -> None:
    async def story() -> None:
        client, recorder = HttpClient(asyncio.get_running_loop(), connect_timeout=5), Recorder()
        client.send(HttpRequest(url, (header,), b""), recorder)
        await recorder.ended.wait()
        await client.aclose()
        assert recorder.failure is not None
        assert recorder.failure[0] == "settings"
        assert reason in recorder.failure[1]
        assert "secret" not in recorder.failure[1]

    run(story())


@pytest.mark.parametrize("call", ["response", "bytes", "complete"])
def test_a_receivers_own_exception_reaches_the_loop_and_closes_its_connection(run: Run, call: str) -> None:
    def fail(_: HttpExchange) -> None:
        raise LookupError(call)

    async def story() -> None:
        reported: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.set_result(context))
        async with talking(always(SMALL)) as (client, server):
            recorder = Recorder(call, fail)
            send(client, server.url, recorder)
            assert isinstance((await reported)["exception"], LookupError)
            await server.peers[0].gone.wait()
            assert recorder.calls[-1] == call
            assert (await ask(client, server.url)).body == b"hello"

    run(story())


def test_aclose_ends_exchanges_without_a_call_and_refuses_new_ones(run: Run) -> None:
    async def story() -> None:
        async with talking(then_hold(OPEN_HEAD + b"5\r\nhello\r\n")) as (client, server):
            recorder, connecting = Recorder(), Recorder()
            send(client, server.url, recorder)
            await recorder.read.wait()
            send(client, server.url, connecting)
            await client.aclose()
            await server.peers[0].gone.wait()
            assert recorder.calls == ["response", "bytes"]
            assert connecting.calls == []
            assert (await ask(client, server.url)).failure == ("connect", "the HTTP client is closed")

    run(story())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("makes its certificate with the openssl command")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


def _server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def test_tls_is_spoken_with_certificates_of_the_environment_and_kept_alive(
    run: Run, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def story() -> None:
        async with talking(always(SMALL), tls=_server_tls(certificate)) as (client, server):
            for _ in range(2):
                assert (await ask(client, server.url)).body == b"hello"
            (peer,) = server.peers
            assert peer.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"

    run(story())


def test_an_untrusted_certificate_fails_the_connect(run: Run, certificate: Path) -> None:
    async def story() -> None:
        trusting_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        settings = {"tls": _server_tls(certificate), "ssl_context": trusting_nobody}
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's handshake error
        async with talking(always(SMALL), **settings) as (client, server):
            recorder = await ask(client, server.url)
            assert recorder.failure is not None
            assert recorder.failure[0] == "connect"
            assert recorder.failure[1].startswith("TLS with 127.0.0.1:")
            assert "self-signed" in recorder.failure[1]

    run(story())


@pytest.fixture
def proxied(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[Server], str]:
    def use(server: Server) -> str:
        monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1/chat?a=b"))
        return "http://provider.test/v1/chat"

    return use


def test_a_proxy_of_the_environment_carries_the_request(run: Run, proxied: Callable[[Server], str]) -> None:
    async def story() -> None:
        async with talking(always(OPEN_HEAD + chunked(b"hello", b" world"))) as (client, server):
            url = proxied(server)
            for _ in range(2):
                recorder = await ask(client, url)
                assert recorder.calls[0] == "response"
                assert (recorder.body, recorder.calls[-1]) == (b"hello world", "complete")
                assert recorder.exchange is not None
                assert recorder.exchange.is_connected
            (peer,) = server.peers
            assert peer.requests[0].startswith(b"POST http://provider.test/v1/chat HTTP/1.1\r\n")
            assert b"authorization: bearer key-1" in peer.requests[0].lower()

    run(story())


def test_a_request_goes_directly_if_no_proxy_applies(
    run: Run, proxied: Callable[[Server], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with talking(always(SMALL)) as (client, server):
            proxied(server)
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            await ask(client, server.url)
            assert server.peers[0].requests[0].startswith(b"POST /v1/chat?a=b HTTP/1.1\r\n")

    run(story())


def test_close_through_a_proxy_closes_the_connection(run: Run, proxied: Callable[[Server], str]) -> None:
    async def story() -> None:
        async with talking(then_hold(OPEN_HEAD + b"5\r\nhello\r\n")) as (client, server):
            recorder = Recorder("bytes", lambda exchange: exchange.close())
            send(client, proxied(server), recorder)
            await recorder.read.wait()
            await server.peers[0].gone.wait()
            assert recorder.calls == ["response", "bytes"]

    run(story())


def test_release_through_a_proxy_closes_a_body_that_does_not_end(run: Run, proxied: Callable[[Server], str]) -> None:
    async def story() -> None:
        async with talking(then_hold(OPEN_HEAD + b"5\r\nhello\r\n"), linger=0.02) as (client, server):
            recorder = Recorder("bytes", lambda exchange: exchange.release())
            send(client, proxied(server), recorder)
            await recorder.read.wait()
            await server.peers[0].gone.wait()
            assert recorder.calls == ["response", "bytes"]

    run(story())


def test_a_response_through_a_proxy_may_be_cut_or_paused(run: Run, proxied: Callable[[Server], str]) -> None:
    async def story() -> None:
        async with talking(once(OPEN_HEAD + b"5\r\nhello\r\n")) as (client, server):
            recorder = Recorder("response", lambda exchange: exchange.pause())
            exchange = send(client, proxied(server), recorder)
            await recorder.answered.wait()
            assert recorder.calls == ["response"]
            exchange.resume()
            await recorder.ended.wait()
            assert recorder.failure == ("read", CUT_REASON)

    run(story())


def test_a_proxy_that_refuses_is_a_connect_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused.getsockname()[1]}")
            client = HttpClient(asyncio.get_running_loop(), connect_timeout=5)
            recorder = await ask(client, "http://provider.test/v1")
            await client.aclose()
        assert recorder.failure is not None
        assert recorder.failure[0] == "connect"
        assert recorder.failure[1].startswith("no connection to provider.test:80 through the proxy")

    run(story())
