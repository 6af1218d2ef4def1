"""Small HTTP servers that answer and misbehave on command, and a receiver that records its calls."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from headrace_workers.http.http_client import HttpClient, HttpExchange
from headrace_workers.http.http_request import HttpRequest

Handler = Callable[["Peer"], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, None]], None]

HEADERS = (("Authorization", "Bearer key-1"), ("Content-Type", "application/json"))
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
OPEN_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()

    async def request(self) -> bytes:
        """Return the next request, head and body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        request = head + await self.reader.readexactly(int(length.split(b":")[1]))
        self.requests.append(request)
        return request

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, response: bytes) -> None:
        await self.request()
        await self.say(response)

    async def wait_gone(self) -> None:
        """Wait until the client has closed the connection."""
        while await self.reader.read(65536):
            pass


class Server:
    """Runs ``handler`` for each connection. It is not an error if the client's close interrupts it."""

    def __init__(self, handler: Handler) -> None:
        self.peers: list[Peer] = []
        self.url = ""
        self._handler = handler

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            await self._handler(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            peer.gone.set()
            writer.transport.abort()


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(handler)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    server.url = f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/chat?a=b"
    try:
        yield server
    finally:
        listener.close()
        for peer in server.peers:
            peer.writer.transport.abort()
        await asyncio.gather(*(peer.gone.wait() for peer in server.peers))


@asynccontextmanager
async def talking(handler: Handler, **settings: Any) -> AsyncIterator[tuple[HttpClient, Server]]:
    """Run a server and a client. The client is closed first."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(handler, settings.pop("tls", None)))
        client = HttpClient(asyncio.get_running_loop(), **{"connect_timeout": 5.0, **settings})
        stack.push_async_callback(client.aclose)
        yield client, server


class Recorder:
    """Records all calls. Calls ``act`` with its exchange inside the call named ``act_in``."""

    def __init__(self, act_in: str = "", act: Callable[[HttpExchange], None] | None = None) -> None:
        self.calls: list[str] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.failure: tuple[str, str] | None = None
        self.exchange: HttpExchange | None = None
        self.answered = asyncio.Event()
        self.read = asyncio.Event()
        self.ended = asyncio.Event()
        self._act_in = act_in
        self._act = act

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self._act_in and self._act is not None:
            assert self.exchange is not None
            self._act(self.exchange)

    def on_response(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers
        self.answered.set()
        self._note("response")

    def on_chunk(self, data: bytes) -> bool:  # noqa: ARG002 - the receiver's form
        return False

    def on_bytes(self, data: bytes) -> None:
        self.pieces.append(data)
        self.read.set()
        self._note("bytes")

    def on_complete(self) -> None:
        self.ended.set()
        self._note("complete")

    def on_failure(self, stage: str, reason: str) -> None:
        self.failure = (stage, reason)
        self.ended.set()
        self._note("failure")


def send(client: HttpClient, url: str, recorder: Recorder, body: bytes = b"{}") -> HttpExchange:
    recorder.exchange = client.send(HttpRequest(url, HEADERS, body), recorder)
    assert recorder.calls == [], "the receiver was called from inside send"
    return recorder.exchange


async def ask(client: HttpClient, url: str) -> Recorder:
    recorder = Recorder()
    send(client, url, recorder)
    await recorder.ended.wait()
    return recorder


def always(response: bytes) -> Handler:
    """Answer each request on a connection with these bytes."""

    async def handle(peer: Peer) -> None:
        while True:
            await peer.answer(response)

    return handle


def in_turn(*responses: bytes) -> Handler:
    """Answer the first request with the first of these, the second with the second, whatever connection they come on."""
    left = iter(responses)

    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(next(left))

    return handle


def once(response: bytes) -> Handler:
    """Answer one request with these bytes, then close."""

    async def handle(peer: Peer) -> None:
        await peer.answer(response)
        peer.writer.close()
        await peer.wait_gone()

    return handle


def then_hold(response: bytes) -> Handler:
    """Answer one request with these bytes, then wait until the client closes."""

    async def handle(peer: Peer) -> None:
        await peer.answer(response)
        await peer.wait_gone()

    return handle
