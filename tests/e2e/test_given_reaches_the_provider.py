"""From the caller to the provider's log.

Values arrive as they were given, and a refusal names the caller's own place.
"""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import Any

import pytest
from django.utils.safestring import mark_safe

from headrace import Client, InvalidRequestError, Message, TextPart
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO

MODELS = {
    "openai": "gpt-4o",
    "openai-responses": "gpt-4o",
    "anthropic": "claude-sonnet-4-5",
    "google": "gemini-2.5-flash",
}


@pytest.mark.parametrize("provider_name", MODELS)
def test_almost_plain_values_arrive_as_plain_ones(
    client: Client, provider: SimulatedProvider, provider_name: str
) -> None:
    safe = mark_safe
    client.run_local(
        model=safe(MODELS[provider_name]),
        provider=safe(provider_name),
        messages=({safe("role"): safe("user"), "content": (TextPart(safe("Grüße, {{name}}")),)},),
        variables=MappingProxyType({"name": safe("Ann")}),
        tools=(MappingProxyType({"name": safe("f"), "input_schema": MappingProxyType({"type": safe("object")})}),),
        provider_api_key=safe(provider.api_key),
        priority=safe("batch"),
        span_id=safe("sp_00000000000000ab"),
        tags=(safe("t"),),
    )

    (record,) = provider.requests()
    assert "Grüße, Ann" in str(record.body)
    assert "'f'" in str(record.body)


def test_a_worker_s_refusal_names_the_place_as_the_caller_gave_it(client: Client, provider: SimulatedProvider) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}", "colour": "red"}}
    messages: list[Any] = [*HELLO, {"role": "assistant", "tool_calls": [call]}]
    messages.append({"role": "tool", "tool_call_id": "c", "content": "5"})

    for model in MODELS.values():
        with pytest.raises(InvalidRequestError) as caught:
            client.run_local(model=model, messages=messages)
        assert caught.value.argument == "messages[1].tool_calls[0].function.colour"
    assert provider.requests() == []


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("messages[0].content[0].text", {"messages": [Message("user", [TextPart("\ud83d")])]}),
        ("tools[0].parameters.default", {"tools": [{"name": "f", "parameters": {"default": {1, 2}}}]}),
        ("custom_options.n", {"custom_options": {"n": float("nan")}}),
        ("tools[0].params", {"tools": [{"name": "f", "params": {}}]}),
    ],
)
def test_what_cannot_be_sent_is_refused_at_the_call(
    client: Client, provider: SimulatedProvider, argument: str, changes: dict[str, Any]
) -> None:
    arguments: dict[str, Any] = {"model": "gpt-4o", "messages": HELLO, **changes}
    with pytest.raises(InvalidRequestError) as caught:
        client.run_local(stream=True, **arguments)
    assert caught.value.argument == argument
    with pytest.raises(InvalidRequestError) as caught:
        asyncio.run(client.arun_local(**arguments))
    assert caught.value.argument == argument
    assert provider.requests() == []


def test_texts_to_embed_arrive_as_plain_ones(client: Client, provider: SimulatedProvider) -> None:
    result = client.run_embedding(model=mark_safe("text-embedding-3-small"), input=(mark_safe("Grüße"), "x"))

    assert len(result.embeddings) == 2
    assert provider.requests()[0].body["input"] == ["Grüße", "x"]
