"""The floor: what Python can do at best in one process.

Uvloop, a Protocol, httptools, and a typed decode of every event.

No abort, no limits, no retries, no errors but a crash: everything that a client also needs is what the others cost beyond this.
"""

from __future__ import annotations

import asyncio
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

from bench.contestants.common import API_KEY, BASE_URL, TimedAnswer, run_async
from bench.works import Work


class Delta(msgspec.Struct, gc=False):
    """A choice's piece of the message, or the message itself."""

    content: str | None = None


class FloorChoice(msgspec.Struct, gc=False):
    """One choice."""

    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None


class FloorChunk(msgspec.Struct, gc=False):
    """An event of a stream, or a whole completion."""

    choices: list[FloorChoice]


_decode = msgspec.json.Decoder(FloorChunk).decode
_encode = msgspec.json.Encoder().encode


class FloorConnection(asyncio.Protocol):
    """One connection, which answers one request at a time. The parser calls the methods that begin with ``on_``."""

    def __init__(self, idle: list[FloorConnection]) -> None:
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._rest = b""

    def ask(self, request: bytes, received: TimedAnswer, *, streams: bool) -> asyncio.Future[None]:
        """Send a request; the future is the one thing awaited per answer."""
        self._parser = httptools.HttpResponseParser(self)
        self._add = received.add
        self._streams = streams
        self._ended = self._loop.create_future()
        self._transport.write(request)
        return self._ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_exception(exc or ConnectionError("closed"))

    def on_body(self, body: bytes) -> None:
        if self._rest:
            body = self._rest + body
        if not self._streams:
            self._rest = body
            return
        *events, self._rest = body.split(b"\n\n")
        for event in events:
            if event != b"data: [DONE]":
                for choice in _decode(event[6:]).choices:
                    if choice.delta is not None and choice.delta.content:
                        self._add(choice.delta.content)

    def on_message_complete(self) -> None:
        body, self._rest = self._rest, b""
        status = self._parser.get_status_code()
        self._idle.append(self)
        if status != 200:
            self._ended.set_exception(RuntimeError(f"status {status}: {body.decode()}"))
            return
        if not self._streams:
            for choice in _decode(body).choices:
                if choice.message is not None and choice.message.content:
                    self._add(choice.message.content)
        self._ended.set_result(None)


class Floor:
    """Connections that are kept alive, and the head of every request."""

    def __init__(self, base_url: str = BASE_URL, key: str = API_KEY) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._idle: list[FloorConnection] = []
        self._head = (
            f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()

    async def answer(self, work: Work, received: TimedAnswer) -> None:
        body = _encode(work.body())
        request = b"%b%d\r\n\r\n%b" % (self._head, len(body), body)
        connection = self._idle.pop() if self._idle else await self._open()
        await connection.ask(request, received, streams=work.streams)

    async def aclose(self) -> None:
        """Leave the connections to the end of the process."""

    async def _open(self) -> FloorConnection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: FloorConnection(self._idle), self._host, self._port)
        return connection


if __name__ == "__main__":
    run_async(Floor)
