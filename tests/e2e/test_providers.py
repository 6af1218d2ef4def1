"""Conversations with tools on every provider, through real processes, against a provider that refuses what the real ones refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import (
    Client,
    InvalidRequestError,
    Message,
    ProviderProtocolError,
    ReasoningPart,
    RunLocalResult,
    ToolCallPart,
)
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO
from tests.e2e.provider_runs import PROVIDERS, WAYS, last_body, run

FOREIGN_CALL_SIGNATURE = "skip_thought_signature_validator"
"""What Google is told of another provider's calls: no secret."""
THOUGHTFUL = "I do not know the weather, so I ask."
TOKYO: dict[str, Any] = {"name": "get_weather", "arguments": {"location": "Tokyo"}}
PARIS: dict[str, Any] = {"name": "get_weather", "arguments": {"location": "Paris"}}
TOOL = {
    "name": "get_weather",
    "description": "Get current weather for a location",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}
OPAQUE = ("signature", "encrypted_content", "thoughtSignature")
SIGNING = ("openai-responses", "anthropic", "google")
"""The providers that sign what they thought; Chat Completions does not give it back at all."""


def answers(result: RunLocalResult) -> list[dict[str, str]]:
    return [
        {"role": "tool", "tool_call_id": call.id, "tool_name": call.name, "content": f"sunny in {call.arguments}"}
        for call in result.tool_calls
    ]


def thought_and_called(client: Client, name: str, way: str = "sync streamed") -> RunLocalResult:
    script = {"reasoning": THOUGHTFUL, "text": "Let me look.", "tool_calls": [TOKYO]}
    return run(client, name, HELLO, way, script, tools=[TOOL])


def secrets(value: Any) -> list[str]:
    """Return what in ``value`` the provider wants back byte for byte."""
    if isinstance(value, list):
        return [secret for item in value for secret in secrets(item)]
    if not isinstance(value, dict):
        return []
    own = [item for key, item in value.items() if key in OPAQUE and item]
    return own + [secret for item in value.values() for secret in secrets(item)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_tool_conversation_goes_on_after_reasoning(
    client: Client, provider: SimulatedProvider, name: str, way: str
) -> None:
    first = thought_and_called(client, name, way)

    assert (first.text, first.reasoning) == ("Let me look.", THOUGHTFUL)
    assert first.finish_reason == "tool_calls"
    assert [(call.name, call.arguments) for call in first.tool_calls] == [("get_weather", {"location": "Tokyo"})]
    assert [call.id for call in first.message.tool_calls] == [call.id for call in first.tool_calls]

    conversation = [*HELLO, first.message, *answers(first)]
    second = run(client, name, conversation, way, {"reasoning": "Sunny, then.", "text": "It is sunny."}, tools=[TOOL])

    assert (second.text, second.finish_reason) == ("It is sunny.", "stop")
    kept = secrets(msgspec.to_builtins(first.message))
    assert (len(kept) > 0) == (name in SIGNING)
    assert secrets(last_body(provider)) == kept

    conversation += [second.message, {"role": "user", "content": "Thanks. And tomorrow?"}]
    third = run(client, name, conversation, way, {"text": "Nobody knows."}, tools=[TOOL])

    assert third.text == "Nobody knows."
    assert secrets(last_body(provider)) == kept + secrets(msgspec.to_builtins(second.message))


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_history_in_a_file_goes_on_with_its_signatures_unchanged(
    client: Client, provider: SimulatedProvider, name: str, tmp_path: Path
) -> None:
    first = thought_and_called(client, name)
    path = tmp_path / "history.json"
    path.write_text(json.dumps([*HELLO, first.to_dict()["message"], *answers(first)]))

    for conversation in (json.loads(path.read_text()), [Message.from_dict(it) for it in json.loads(path.read_text())]):
        second = run(client, name, conversation, "sync", {"text": "It is sunny."}, tools=[TOOL])

        assert second.text == "It is sunny."
        assert secrets(last_body(provider)) == secrets(first.message.to_dict())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROVIDERS)
def test_parallel_tool_calls_are_told_apart_and_answered_in_any_order(client: Client, name: str, way: str) -> None:
    script = {"reasoning": THOUGHTFUL, "tool_calls": [TOKYO, PARIS]}
    first = run(client, name, HELLO, way, script, tools=[TOOL])

    assert [call.arguments for call in first.tool_calls] == [{"location": "Tokyo"}, {"location": "Paris"}]
    assert len({call.id for call in first.tool_calls}) == 2

    conversation = [*HELLO, first.message, *reversed(answers(first))]
    second = run(client, name, conversation, way, {"text": "Sunny in both."}, tools=[TOOL])

    assert second.text == "Sunny in both."


@pytest.mark.parametrize("name", ["openai", "openai-responses", "anthropic"])
def test_a_tool_call_cut_by_max_tokens_is_kept_apart(client: Client, name: str) -> None:
    word = {"openai": "length", "openai-responses": "max_output_tokens", "anthropic": "max_tokens"}[name]
    cut = {"name": "get_weather", "arguments": '{"location": "To'}
    script = {"text": "Let me look.", "tool_calls": [TOKYO, cut], "finish_reason": word}
    result = run(client, name, HELLO, "sync streamed", script, tools=[TOOL])

    assert (result.finish_reason, result.provider_finish_reason) == ("max_tokens", word)
    assert [call.arguments for call in result.tool_calls] == [{"location": "Tokyo"}]
    assert [(call.name, call.arguments) for call in result.incomplete_tool_calls] == [
        ("get_weather", '{"location": "To')
    ]
    assert [call.arguments for call in result.message.tool_calls] == [{"location": "Tokyo"}]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["openai", "openai-responses", "anthropic"])
def test_a_tool_call_with_invalid_json_is_an_error_that_does_not_quote_it(client: Client, name: str, way: str) -> None:
    garbled = {"name": "get_weather", "arguments": '{"location": Tokyo}'}
    script = {"text": "Let me look.", "tool_calls": [garbled]}

    with pytest.raises(ProviderProtocolError) as caught:
        run(client, name, HELLO, way, script, tools=[TOOL])

    assert caught.value.reason == "the arguments of tool call 'get_weather' are not a JSON object (19 characters)"
    assert "Tokyo}" not in str(caught.value)
    if way.endswith("streamed"):
        assert caught.value.partial_text == "Let me look."


@pytest.mark.parametrize("way", WAYS)
def test_google_says_itself_that_a_call_was_malformed(client: Client, way: str) -> None:
    """Its arguments are objects: invalid JSON never leaves it."""
    script = {"text": "Let me look.", "tool_calls": [{"name": "get_weather", "arguments": '{"location": "To'}]}
    result = run(client, "google", HELLO, way, script, tools=[TOOL])

    assert (result.finish_reason, result.provider_finish_reason) == ("error", "MALFORMED_FUNCTION_CALL")
    assert (result.text, result.tool_calls, result.incomplete_tool_calls) == ("Let me look.", [], [])


@pytest.mark.parametrize("name", SIGNING)
def test_an_altered_signature_is_refused(client: Client, name: str) -> None:
    first = thought_and_called(client, name)
    altered = msgspec.convert(_altered(msgspec.to_builtins(first.message)), Message)

    with pytest.raises(InvalidRequestError) as caught:
        run(client, name, [*HELLO, altered, *answers(first)], "sync streamed", {"text": "Sunny."}, tools=[TOOL])

    assert (caught.value.provider, caught.value.status_code) == (name, 400)


def _altered(value: Any) -> Any:
    """Return ``value`` with one letter of each secret changed."""
    if isinstance(value, list):
        return [_altered(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: ("B" if item[0] == "A" else "A") + item[1:] if key in OPAQUE and item else _altered(item)
        for key, item in value.items()
    }


def _without_reasoning(message: Message) -> Message:
    parts = [part for part in message.content if not isinstance(part, str | ReasoningPart)]
    return msgspec.structs.replace(message, content=parts)


def _without_signatures(message: Message) -> Message:
    parts = [
        msgspec.structs.replace(part, provider_data={"api": "google"}) if isinstance(part, ToolCallPart) else part
        for part in message.content
    ]
    return msgspec.structs.replace(message, content=parts)


@pytest.mark.parametrize(
    ("name", "shortened", "words"),
    [
        ("openai-responses", _without_reasoning, "without its required 'reasoning' item"),
        ("anthropic", _without_reasoning, "thinking blocks must be passed back"),
        ("google", _without_signatures, "missing a thought_signature"),
    ],
)
def test_a_turn_without_its_reasoning_is_refused(
    client: Client, name: str, shortened: Callable[[Message], Message], words: str
) -> None:
    first = thought_and_called(client, name)
    conversation = [*HELLO, shortened(first.message), *answers(first)]

    with pytest.raises(InvalidRequestError, match=words) as caught:
        run(client, name, conversation, "sync streamed", {"text": "Sunny."}, tools=[TOOL])

    assert caught.value.status_code == 400


@pytest.mark.parametrize(("first_name", "second_name"), list(permutations(PROVIDERS, 2)))
def test_what_one_provider_signed_stays_behind_when_another_goes_on(
    client: Client, provider: SimulatedProvider, first_name: str, second_name: str
) -> None:
    first = thought_and_called(client, first_name)
    conversation = [*HELLO, first.message, *answers(first)]
    second = run(client, second_name, conversation, "sync streamed", {"text": "It is sunny."}, tools=[TOOL])

    assert second.text == "It is sunny."
    assert set(secrets(last_body(provider))) <= {FOREIGN_CALL_SIGNATURE}


@pytest.mark.parametrize("way", WAYS)
def test_google_continues_where_it_stopped(client: Client, provider: SimulatedProvider, way: str) -> None:
    script = {"chunks": [f"{number} " for number in range(10)], "continue_after": 4}
    result = run(client, "google", HELLO, way, script)

    assert result.text == "".join(f"{number} " for number in range(10))
    assert result.finish_reason == "stop"
    records = provider.requests()
    prompt = len(records) * (result.usage.input_tokens // len(records))
    assert len(records) == 3
    assert (result.usage.input_tokens, result.usage.output_tokens) == (prompt, 10)
    assert result.usage.total_tokens == prompt + 10
    assert [json.dumps(record.body["contents"]) for record in records] == [json.dumps(records[0].body["contents"])] * 3


def test_openai_chat_is_not_sent_the_reasoning_that_it_refuses(client: Client, provider: SimulatedProvider) -> None:
    first = thought_and_called(client, "openai")
    run(client, "openai", [*HELLO, first.message, *answers(first)], "sync", {"text": "Sunny."}, tools=[TOOL])

    assert THOUGHTFUL not in json.dumps(last_body(provider))
