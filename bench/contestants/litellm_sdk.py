"""The LiteLLM SDK: ``litellm.acompletion`` with its defaults, except that nothing is tried twice. Runs in ``.venv-litellm``."""

from __future__ import annotations

from typing import Any

import litellm

from bench.contestants.common import API_KEY, BASE_URL, TimedAnswer, run_async
from bench.works import MESSAGES, MODEL, Work


class LiteLLMSdk:
    """LiteLLM keeps its own clients."""

    async def answer(self, work: Work, received: TimedAnswer) -> None:
        options: dict[str, Any] = {
            "model": f"openai/{MODEL}",
            "messages": MESSAGES,
            "api_base": BASE_URL,
            "api_key": API_KEY,
            "extra_body": {"simulate": work.script()},
            "max_retries": 0,
        }
        if not work.streams:
            completion = await litellm.acompletion(**options)
            received.add(completion.choices[0].message.content or "")
            return
        async for chunk in await litellm.acompletion(stream=True, **options):
            for choice in chunk.choices:
                if content := choice.delta.content:
                    received.add(content)

    async def aclose(self) -> None:
        """Leave the connections to the end of the process."""


if __name__ == "__main__":
    run_async(LiteLLMSdk)
