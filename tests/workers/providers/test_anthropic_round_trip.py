"""Conversations of several turns: the simulated API accepts its own answers after they were mapped and sent back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from headrace.testing import Script, ScriptedToolCall
from headrace.testing.anthropic import answer as simulated
from headrace.types import Message, ReasoningPart, RunEvent, TextPart, Tool, ToolCallPart
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.anthropic.api import API
from headrace_workers.providers.shared.sse import SSEParser
from headrace_workers.providers.shared.wire_format import Completion, ProviderSettings

SETTINGS = ProviderSettings(name="anthropic", api="anthropic", base_url="http://127.0.0.1")
TOOLS = [Tool("weather", "", {"type": "object", "properties": {"city": {"type": "string"}}}), Tool("clock")]
ASK = Message("user", "What is the weather, and how late is it?")
CALLS = [ScriptedToolCall("weather", {"city": "Zürich"}), ScriptedToolCall("clock")]


def run(script: Script, *messages: Message, stream: bool = True, **fields: Any) -> Completion:
    """Build a request, let the simulated API answer it, and map the answer."""
    asked = {"model": "claude-sonnet-5", "tools": TOOLS, "reasoning_effort": "low"} | fields
    request = RunRequest(provider="anthropic", messages=list(messages), stream=stream, **asked)
    http = API.build_request(request, SETTINGS, "sk-1")
    assert refusal_of(http) is None
    reply = simulated.reply(json.loads(http.body), script, "id", 0)
    data = b"".join(frame[0] for frame in reply.frames)
    if not stream:
        return API.read_body(request, data)
    mapper, parser = API.open_stream(request), SSEParser()
    events: list[RunEvent] = []
    for name, event in [*parser.feed(data), *parser.finish()]:
        mapper.feed(name, event, events)
    return mapper.finish()


def refusal_of(http: HttpRequest) -> str | None:
    headers = dict(http.headers)
    assert simulated.refused_key(headers) is None
    refusal = simulated.refused_body(json.loads(http.body), headers)
    return None if refusal is None else b"".join(frame[0] for frame in refusal.frames).decode()


def answers(message: Message) -> list[Message]:
    return [Message("tool", f"{call.name}: x", tool_call_id=call.id) for call in message.tool_calls]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["claude-sonnet-5", "claude-opus-4-6", "claude-sonnet-4-5"])
def test_parallel_calls_with_thinking_are_answered_over_two_turns(model: str, *, stream: bool) -> None:
    script = Script(reasoning="Two tools, \u2028 then.", text="Let me see.", tool_calls=CALLS)
    first = run(script, ASK, stream=stream, model=model)
    assert first.finish_reason == "tool_calls"
    assert first.message is not None
    assert [(call.name, call.arguments) for call in first.message.tool_calls] == [
        ("weather", {"city": "Zürich"}),
        ("clock", {}),
    ]

    second = run(Script(reasoning="Ah.", text="Fine."), ASK, first.message, *answers(first.message), model=model)
    assert second.message is not None
    assert (second.message.text, second.finish_reason) == ("Fine.", "stop")

    history = [ASK, first.message, *answers(first.message), second.message, Message("user", "Thanks")]
    assert run(Script(text="Bye."), *history, model=model).message is None


def test_a_message_is_unchanged_after_its_way_to_the_client_and_back() -> None:
    message = run(Script(reasoning="why", tool_calls=CALLS), ASK).message
    assert message is not None
    returned = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message)
    assert run(Script(text="Fine."), ASK, returned, *answers(returned)).finish_reason == "stop"


def test_missing_or_altered_thinking_is_refused() -> None:
    message = run(Script(reasoning="why", tool_calls=CALLS), ASK).message
    assert message is not None
    assert isinstance(message.content, list)
    thinking, *calls = message.content
    assert isinstance(thinking, ReasoningPart)

    def refusal_with(*parts: Any) -> str | None:
        history = [ASK, Message("assistant", list(parts)), *answers(message)]
        request = RunRequest(provider="anthropic", model="claude-sonnet-5", messages=history, stream=True, tools=TOOLS)
        return refusal_of(API.build_request(request, SETTINGS, "sk-1"))

    assert refusal_with(thinking, *calls) is None
    assert "Expected `thinking`" in str(refusal_with(*calls))
    assert "Expected `thinking`" in str(refusal_with(ReasoningPart(thinking.text), *calls))
    assert "Invalid `signature`" in str(refusal_with(ReasoningPart("what", thinking.provider_data), *calls))


def test_the_history_of_another_provider_is_accepted() -> None:
    foreign = Message(
        "assistant",
        [
            ReasoningPart("hm", {"api": "google", "thought_signature": "x"}),
            TextPart("ok", {"api": "google"}),
            ToolCallPart("functions.clock:0", "clock", {}, {"api": "google", "thought_signature": "x"}),
        ],
    )
    assert run(Script(text="Fine."), ASK, foreign, *answers(foreign)).finish_reason == "stop"


def test_a_call_cut_by_max_tokens_stays_raw() -> None:
    script = Script(tool_calls=[ScriptedToolCall("weather", '{"city":"Zü')], finish_reason="max_tokens")
    whole = run(script, ASK)
    assert (whole.finish_reason, whole.tool_calls[0].arguments) == ("max_tokens", '{"city":"Zü')


def test_a_refusal_is_explained() -> None:
    whole = run(Script(refusal="I will not."), ASK)
    assert (whole.finish_reason, whole.provider_finish_reason, whole.refusal) == (
        "content_filter",
        "refusal",
        "I will not.",
    )
