"""Conversations with tools in each way that a client has, against the simulated provider."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from headrace import AsyncToolStream, Client, RunToolsResult, ToolStream
from headrace.testing import Script, ScriptedToolCall, SimulatedProvider
from tests.conftest import HELLO
from tests.e2e.provider_runs import MODELS


def calling(*calls: tuple[str, dict[str, Any]], **more: Any) -> Script:
    """Return the script of an answer that calls tools."""
    return Script(tool_calls=[ScriptedToolCall(name, arguments) for name, arguments in calls], **more)


def run_tools(client: Client, provider: str, way: str, tools: Sequence[Any], **arguments: Any) -> RunToolsResult[Any]:
    """Run the provider's model with its tools; return the result."""
    said = {"provider": provider, "model": MODELS[provider], "messages": HELLO, "tools": tools, **arguments}
    if way.startswith("async"):
        return asyncio.run(_run_async(client, way, said))
    if way == "sync":
        whole: RunToolsResult[Any] = client.run_tools(**said)
        return whole
    stream: ToolStream[Any] = client.run_tools(stream=True, **said)
    return stream.result.result()


async def _run_async(client: Client, way: str, said: dict[str, Any]) -> RunToolsResult[Any]:
    if way == "async":
        whole: RunToolsResult[Any] = await client.arun_tools(**said)
        return whole
    stream: AsyncToolStream[Any] = await client.arun_tools(stream=True, **said)
    return await stream.result


def tool_texts(result: RunToolsResult) -> list[Any]:
    """Return what the model was told by its tools, in order."""
    return [message.content for message in result.messages if message.role == "tool"]


def statuses(provider: SimulatedProvider) -> set[int | None]:
    """Return with which statuses the provider has answered."""
    return {record.status for record in provider.requests()}
