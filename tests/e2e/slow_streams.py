"""Streams that last as long as a test needs them."""

from __future__ import annotations

import asyncio

from headrace import AsyncLocalStream, Client, LocalStream
from tests.conftest import HELLO, simulate


def start(client: Client, **script: object) -> LocalStream:
    """Start a stream. ``script`` says what the provider does, in place of 100,000 chunks with a pace of 0.01 s."""
    return client.run_local(
        model="gpt-4o",
        messages=HELLO,
        stream=True,
        custom_options=simulate(**({"repeat": 100_000, "pace": 0.01} | script)),
    )


class AllOpen:
    """Has each reader stop at its first chunk until ``count`` streams have one: a stream longer than its window cannot end before."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self._are_open = asyncio.Event()

    async def read(self, stream: AsyncLocalStream) -> str:
        """Read a stream to its end, and return its text."""
        texts: list[str] = []
        async for chunk in stream:
            if not texts:
                self._missing -= 1
                if not self._missing:
                    self._are_open.set()
                await self._are_open.wait()
            texts.append(chunk)
        return "".join(texts)
