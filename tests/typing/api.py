"""Uses the public API as users do, for type checkers. Never run: `scripts/check` checks its types."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import assert_type

from headrace import AsyncLocalStream, Client, LocalStream, RunEmbeddingResult, RunLocalResult, StreamResult

client = Client()
MESSAGES = [{"role": "user", "content": "Hello"}]


def sync(is_streaming: bool) -> None:
    stream = client.run_local(model="gpt-4o", messages=MESSAGES, stream=True)
    assert_type(stream, LocalStream)
    assert_type(stream.result, concurrent.futures.Future[StreamResult])
    assert_type(stream.result.result().aborted, bool)
    stream.started(timeout=5)
    for chunk in stream:
        assert_type(chunk, str)
    assert_type(client.run_local(model="gpt-4o", messages=MESSAGES), RunLocalResult)
    assert_type(client.run_local(model="gpt-4o", messages=MESSAGES, stream=False).text, str)
    either = client.run_local(model="gpt-4o", messages=MESSAGES, stream=is_streaming)
    assert_type(either, LocalStream | RunLocalResult)
    assert_type(client.run_embedding(model="text-embedding-3-small", input="x"), RunEmbeddingResult)
    client.run_local(model="gpt-4o", messages=MESSAGES, temprature=1)  # type: ignore[call-overload]


async def from_asyncio() -> None:
    stream = await client.arun_local(model="gpt-4o", messages=MESSAGES, stream=True, tags=["a"])
    assert_type(stream, AsyncLocalStream)
    assert_type(stream.result, asyncio.Future[StreamResult])
    await stream.started()
    async for chunk in stream:
        assert_type(chunk, str)
    assert_type(await client.arun_local(model="gpt-4o", messages=MESSAGES), RunLocalResult)
