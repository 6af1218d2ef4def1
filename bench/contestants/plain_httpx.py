"""Plain httpx: ``AsyncClient.stream`` and ``aiter_lines``, with the standard library's json, as its documentation has it."""

from __future__ import annotations

import json

import httpx

from bench.contestants.common import API_KEY, BASE_URL, TimedAnswer, run_async
from bench.works import Work

# The defaults allow 100 connections and 5 s for each read: W2 would fail. These are what the openai SDK sets.
LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)
TIMEOUT = httpx.Timeout(600, connect=60)


class PlainHttpx:
    """A client with a pool of connections."""

    def __init__(self) -> None:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        self._client = httpx.AsyncClient(base_url=BASE_URL, headers=headers, timeout=TIMEOUT, limits=LIMITS)

    async def answer(self, work: Work, received: TimedAnswer) -> None:
        if not work.streams:
            response = await self._client.post("/chat/completions", json=work.body())
            response.raise_for_status()
            received.add(response.json()["choices"][0]["message"]["content"])
            return
        async with self._client.stream("POST", "/chat/completions", json=work.body()) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                for choice in json.loads(line[6:])["choices"]:
                    if content := choice["delta"].get("content"):
                        received.add(content)

    async def aclose(self) -> None:
        await self._client.aclose()


if __name__ == "__main__":
    run_async(PlainHttpx)
