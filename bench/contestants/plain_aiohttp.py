"""Plain aiohttp, as a careful user writes it: one session, its own reader of server-sent events, and a typed msgspec decode."""

from __future__ import annotations

import aiohttp
import msgspec

from bench.contestants.common import API_KEY, BASE_URL, TimedAnswer, run_async
from bench.works import Work


class Piece(msgspec.Struct, gc=False):
    """A choice's piece of the message, or the message itself."""

    content: str | None = None


class PieceChoice(msgspec.Struct, gc=False):
    """One choice."""

    delta: Piece | None = None
    message: Piece | None = None
    finish_reason: str | None = None


class Completion(msgspec.Struct, gc=False):
    """An event of a stream, or a whole completion."""

    choices: list[PieceChoice]


_decode = msgspec.json.Decoder(Completion).decode


class PlainAiohttp:
    """A session without aiohttp's default limits: 100 connections, and 5 minutes for an answer."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=600),
            headers={"Authorization": f"Bearer {API_KEY}"},
        )
        self._url = f"{BASE_URL}/chat/completions"

    async def answer(self, work: Work, received: TimedAnswer) -> None:
        async with self._session.post(self._url, json=work.body()) as response:
            response.raise_for_status()
            if not work.streams:
                for choice in _decode(await response.read()).choices:
                    received.add((choice.message and choice.message.content) or "")
                return
            rest = b""
            async for data in response.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event.startswith(b"data: ") and event != b"data: [DONE]":
                        _note(_decode(event[6:]), received)

    async def aclose(self) -> None:
        await self._session.close()


def _note(completion: Completion, received: TimedAnswer) -> None:
    for choice in completion.choices:
        if choice.delta is not None and choice.delta.content:
            received.add(choice.delta.content)


if __name__ == "__main__":
    run_async(PlainAiohttp)
