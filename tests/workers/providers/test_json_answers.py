"""What cannot go together with a JSON answer is refused before it is sent; Claude before 4.5 answers by a forced tool."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.answers.assembly import joined_text
from headrace.types import Message, RunEvent, TextPart, Tool
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.anthropic.api import API
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderFailure, ProviderSettings
from tests.cases import each

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 2}},
    "required": ["city"],
    "additionalProperties": False,
}
WANTED = {"type": "json_schema", "json_schema": {"name": "City", "schema": SCHEMA, "strict": True}}
OLD = "claude-sonnet-4-0"
HI = Message("user", "hi")
WEATHER = Tool("weather", "w", {"type": "object", "properties": {}})


def request_of(model: str, **fields: Any) -> RunRequest:
    given: dict[str, Any] = {"messages": [HI], "response_format": WANTED, "fits_schemas": True, "stream": True} | fields
    return RunRequest(provider="p", model=model, **given)


def body_of(api: str, request: RunRequest) -> dict[str, Any]:
    settings = ProviderSettings(name="p", api=api, base_url="https://x.example")
    sent = json.loads(WIRE_FORMATS[api].api.build_request(request, settings, "k").body)
    assert isinstance(sent, dict)
    return sent


def failure_of(api: str, request: RunRequest) -> ProviderFailure:
    with pytest.raises(ProviderFailedError) as caught:
        body_of(api, request)
    assert caught.value.failure.kind == "invalid_request"
    return caught.value.failure


@each("model", ["claude-opus-4-5", OLD])
@each(
    ("fields", "argument", "words"),
    [
        ({"messages": [HI, Message("assistant", "{")]}, "messages[1]", "begins the answer"),
        ({"messages": [HI, Message("assistant", [TextPart("{")])]}, "messages[1]", "begins the answer"),
        (
            {"response_format": {"type": "json_object"}},
            "response_format",
            "Anthropic does not take json_object: give a JSON schema",
        ),
    ],
)
def test_anthropic_refuses_what_does_not_go_with_a_schema(
    model: str, fields: dict[str, Any], argument: str, words: str
) -> None:
    failure = failure_of("anthropic", request_of(model, **fields))
    assert (failure.argument, words in failure.reason) == (argument, True)


def test_a_document_with_citations_is_refused_together_with_a_schema() -> None:
    document = {"type": "document", "citations": {"enabled": True}, "source": {"type": "text", "data": "d"}}
    from headrace_workers.providers.anthropic.json_answers import with_answer_form

    for content in ([document], [{"type": "tool_result", "content": [document]}]):
        body = {"messages": [{"role": "user", "content": content}]}
        with pytest.raises(ProviderFailedError, match="asks for citations"):
            with_answer_form(body, request_of("claude-opus-4-5"))


@each(
    ("fields", "argument", "words"),
    [
        ({"tools": [WEATHER], "tool_choice": "required"}, "tool_choice", "by a call of its own"),
        ({"tools": [WEATHER], "tool_choice": {"tool": "weather"}}, "tool_choice", "by a call of its own"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "does not think while it answers with a schema"),
        ({"response_format": {"type": "array", "items": {"type": "string"}}}, "response_type", "only with an object"),
    ],
)
def test_an_old_claude_says_what_it_cannot_do_with_a_schema(fields: dict[str, Any], argument: str, words: str) -> None:
    failure = failure_of("anthropic", request_of(OLD, **fields))
    assert (failure.argument, words in failure.reason) == (argument, True)


@each(
    ("fields", "tools", "choice"),
    [
        ({}, ["City"], {"type": "tool", "name": "City"}),
        ({"tools": [WEATHER]}, ["weather", "City"], {"type": "any"}),
        ({"tools": [WEATHER], "tool_choice": "auto"}, ["weather", "City"], {"type": "any"}),
        ({"tools": [WEATHER], "tool_choice": "none"}, ["weather", "City"], {"type": "tool", "name": "City"}),
        ({"tools": [Tool("City")]}, ["City", "City_2"], {"type": "any"}),
        ({"fits_schemas": False}, ["City"], {"type": "tool", "name": "City"}),
    ],
)
def test_an_old_claude_must_call_a_tool_with_the_schema(
    fields: dict[str, Any], tools: list[str], choice: dict[str, Any]
) -> None:
    body = body_of("anthropic", request_of(OLD, **fields))
    assert [tool["name"] for tool in body["tools"]] == tools
    assert body["tools"][-1]["input_schema"] == SCHEMA
    assert body["tool_choice"] == choice | {"disable_parallel_tool_use": True}
    assert "output_config" not in body


def test_a_strict_tool_of_an_old_claude_is_fitted_and_its_answer_is_not() -> None:
    body = body_of("anthropic", request_of(OLD, tools=[Tool("f", parameters=SCHEMA, strict=True)]))
    assert body["tools"][0]["input_schema"]["properties"]["city"]["description"] == "At least 2 characters."
    assert body["tools"][1]["input_schema"] == SCHEMA


def events_of(blocks: list[tuple[dict[str, Any], list[str]]], stop: str) -> list[dict[str, Any]]:
    message = {"id": "m", "model": OLD, "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    for index, (block, pieces) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        for piece in pieces:
            delta = {"type": "input_json_delta", "partial_json": piece}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    return [*events, {"type": "message_delta", "delta": {"stop_reason": stop}}, {"type": "message_stop"}]


def call(name: str, given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu_1", "name": name, "input": given}


@each(
    ("blocks", "stop", "text", "reason", "calls"),
    [
        ([(call("City", {}), ["", '{"city":', '"Oslo"}'])], "tool_use", '{"city":"Oslo"}', "stop", 0),
        ([(call("City", {}), ['{"city":'])], "max_tokens", '{"city":', "max_tokens", 0),
        ([(call("City", {}), [])], "tool_use", "{}", "stop", 0),
        ([(call("City", {"city": "Oslo"}), [])], "tool_use", '{"city":"Oslo"}', "stop", 0),
        ([(call("weather", {}), ["{}"])], "tool_use", "", "tool_calls", 1),
    ],
)
def test_the_call_of_an_old_claude_becomes_the_text_of_the_answer(
    blocks: list[tuple[dict[str, Any], list[str]]], stop: str, text: str, reason: str, calls: int
) -> None:
    request = request_of(OLD, tools=[WEATHER])
    mapper = API.open_stream(request)
    events: list[RunEvent] = []
    for event in events_of(blocks, stop):
        mapper.feed("", json.dumps(event).encode(), events)
    completion = mapper.finish()
    assert joined_text(events) == text
    assert (completion.finish_reason, len(completion.tool_calls)) == (reason, calls)


def test_the_whole_answer_of_an_old_claude_is_a_text_too() -> None:
    body = {"id": "m", "model": OLD, "content": [call("City", {"city": "Oslo"})], "stop_reason": "tool_use"}
    completion = API.read_body(request_of(OLD, stream=False), json.dumps(body).encode())
    assert completion.message == Message("assistant", '{"city":"Oslo"}')
    assert (completion.finish_reason, completion.provider_finish_reason) == ("stop", "tool_use")
    assert completion.tool_calls == []


@each(
    ("model", "is_refused"),
    [
        ("gemini-2.5-flash", True),
        ("models/gemini-2.0-flash", True),
        ("gemini-3-pro", False),
        ("gemini-3.5-flash", False),
    ],
)
def test_gemini_takes_tools_together_with_a_schema_from_version_3(model: str, *, is_refused: bool) -> None:
    both = request_of(model, tools=[WEATHER])
    if is_refused:
        failure = failure_of("google", both)
        assert failure.argument == "response_type"
        assert "use Gemini 3 or later" in failure.reason
    else:
        assert body_of("google", both)["generationConfig"]["responseJsonSchema"]["required"] == ["city"]
    assert body_of("google", request_of(model))["generationConfig"]["responseMimeType"] == "application/json"
