"""A server that answers with recorded responses: status, headers and body as recorded, split as the request says.

A request's body names the recording and the cut in its field ``replay``; nothing else of it is looked at. Prints its port, and
serves until its standard input ends. Never alters a byte of a body.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from functools import lru_cache

from tests.workers import corpus

CUTS: dict[str, Callable[[corpus.Recording], list[bytes]]] = {
    "recorded": corpus.as_recorded,
    "bytes": corpus.bytewise,
    "whole": lambda case: [case.body],
}
"""In how many pieces a body travels, by name."""

_MAX_REQUEST = 1024 * 1024
# They say how the recorded connection framed its bytes, not what it said.
_FRAMING = {"connection", "content-encoding", "content-length", "keep-alive", "trailer", "transfer-encoding"}


async def serve() -> None:
    """Serve until standard input ends."""
    server = await asyncio.start_server(_answer_all, "127.0.0.1", 0, limit=_MAX_REQUEST)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    server.close()


async def _answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_content_length(head))
            wanted = json.loads(body)["replay"]
            await _answer(writer, _load(wanted["case"]), wanted["cut"])
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client needs no more
    finally:
        writer.close()


async def _answer(writer: asyncio.StreamWriter, case: corpus.Recording, cut: str) -> None:
    """Send a response in HTTP chunks. Single bytes are sent without chunks, which would be six times as long."""
    is_chunked = cut != "bytes"
    headers = [f"{name}: {value}" for name, value in case.headers.items() if name not in _FRAMING]
    headers.append("transfer-encoding: chunked" if is_chunked else f"content-length: {len(case.body)}")
    writer.write("\r\n".join([f"HTTP/1.1 {case.status} Recorded", *headers, "\r\n"]).encode("latin-1"))
    for piece in CUTS[cut](case):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked and piece else piece)
        await writer.drain()
        await asyncio.sleep(0)  # the others' turn; in the meantime the client reads this piece
    if is_chunked:
        writer.write(b"0\r\n\r\n")


def _content_length(head: bytes) -> int:
    fields = (line.partition(b":") for line in head.split(b"\r\n"))
    return next(int(value) for name, _, value in fields if name.strip().lower() == b"content-length")


_load = lru_cache(maxsize=None)(corpus.load)


if __name__ == "__main__":
    asyncio.run(serve())
