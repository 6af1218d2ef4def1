"""Headrace: the async client in one event loop, the embedded engine, default settings."""

from __future__ import annotations

import headrace
from bench.contestants.common import TimedAnswer, run_async
from bench.works import MESSAGES, MODEL, Work


class Headrace:
    """A client, and the engine that it starts."""

    def __init__(self) -> None:
        self._client = headrace.Client()

    async def answer(self, work: Work, received: TimedAnswer) -> None:
        options = {"simulate": work.script()}
        if not work.streams:
            result = await self._client.arun_local(model=MODEL, messages=MESSAGES, custom_options=options)
            received.add(result.text)
            return
        stream = await self._client.arun_local(stream=True, model=MODEL, messages=MESSAGES, custom_options=options)
        add = received.add
        async for text in stream:
            add(text)

    async def settle(self) -> None:
        """Wait until the spans of all runs are stored: this is a part of the work."""
        await self._client.aflush()

    async def aclose(self) -> None:
        await self._client.aclose()


if __name__ == "__main__":
    run_async(Headrace, Headrace.settle)
