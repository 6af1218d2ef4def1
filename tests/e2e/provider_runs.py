"""Runs on each provider, in each way that a client has, against the simulated provider."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from headrace import AsyncLocalStream, Client, LocalStream, RunLocalResult
from headrace.testing import SimulatedProvider
from tests.conftest import simulate

MODELS = {
    "openai": "gpt-4o",
    "openai-responses": "gpt-5",
    "anthropic": "claude-sonnet-5",
    "google": "gemini-3-pro",
}
"""The providers of the four wire formats, and a model of each."""
PROVIDERS = tuple(MODELS)
WAYS = ("sync", "sync streamed", "async", "async streamed")


def run(
    client: Client, provider: str, messages: Sequence[Any], way: str, script: dict[str, Any], **arguments: Any
) -> RunLocalResult:
    """Run the provider's model, to be answered by ``script``; return the result."""
    if way.startswith("async"):
        return asyncio.run(_run_async(client, provider, messages, way, script, **arguments))
    said = {"provider": provider, "model": MODELS[provider], "messages": messages, **arguments}
    if way == "sync":
        result: RunLocalResult = client.run_local(**said, custom_options=simulate(**script))
        return result
    stream: LocalStream = client.run_local(**said, stream=True, custom_options=simulate(**script))
    return stream.result.result()


async def _run_async(
    client: Client, provider: str, messages: Sequence[Any], way: str, script: dict[str, Any], **arguments: Any
) -> RunLocalResult:
    said = {"provider": provider, "model": MODELS[provider], "messages": messages, **arguments}
    if way == "async":
        result: RunLocalResult = await client.arun_local(**said, custom_options=simulate(**script))
        return result
    stream: AsyncLocalStream = await client.arun_local(**said, stream=True, custom_options=simulate(**script))
    return await stream.result


def last_body(provider: SimulatedProvider) -> dict[str, Any]:
    """Return the body of the last request."""
    body = provider.requests()[-1].body
    assert isinstance(body, dict)
    return body
