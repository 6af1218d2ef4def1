"""A provider for benchmarks: answers each POST with server-sent events, one per HTTP chunk. Never measured itself.

The request's headers say what to send: ``x-chunks`` (how many) and ``x-gap`` (milliseconds between them). Prints its port.
"""

from __future__ import annotations

import asyncio
import json
from typing import cast

import httptools
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(text: str) -> bytes:
    event = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
    }
    return _chunk(b"data: " + json.dumps(event).encode() + b"\n\n")


TOKEN = _event("token ")
END = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class SSEServer(asyncio.Protocol):
    """One connection; answers one request after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)
        self._settings: dict[bytes, int] = {}
        self._task: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in {b"x-chunks", b"x-gap"}:
            self._settings[name.lower()] = int(value)

    def on_message_complete(self) -> None:
        self._task = asyncio.get_running_loop().create_task(
            self._answer(self._settings[b"x-chunks"], self._settings[b"x-gap"] / 1000)
        )

    def connection_lost(self, _: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _answer(self, chunks: int, gap: float) -> None:
        self._transport.write(HEAD)
        for _ in range(chunks):
            self._transport.write(TOKEN)
            await asyncio.sleep(gap)
        self._transport.write(END)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(SSEServer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
