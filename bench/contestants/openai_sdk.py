"""The official openai SDK: ``AsyncOpenAI`` with its defaults, except that nothing is tried twice."""

from __future__ import annotations

from typing import Any

from openai import AsyncOpenAI

from bench.contestants.common import TimedAnswer, run_async
from bench.works import MESSAGES, MODEL, Work


class OpenAISdk:
    """The SDK's client; address and key come from the environment."""

    def __init__(self) -> None:
        self._client = AsyncOpenAI(max_retries=0)

    async def answer(self, work: Work, received: TimedAnswer) -> None:
        messages: Any = MESSAGES
        options = {"simulate": work.script()}
        create = self._client.chat.completions.create
        if not work.streams:
            completion = await create(model=MODEL, messages=messages, extra_body=options)
            received.add(completion.choices[0].message.content or "")
            return
        async for chunk in await create(model=MODEL, messages=messages, stream=True, extra_body=options):
            for choice in chunk.choices:
                if content := choice.delta.content:
                    received.add(content)

    async def aclose(self) -> None:
        await self._client.close()


if __name__ == "__main__":
    run_async(OpenAISdk)
