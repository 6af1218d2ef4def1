"""Requests in the wire format openai-chat, and requests that it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.types import (
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.openai_chat.api import API
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderSettings

OPENAI = ProviderSettings(name="openai", api="openai-chat", base_url="https://api.openai.com/v1")
AZURE = ProviderSettings(name="azure", api="openai-chat", base_url="https://mine.openai.azure.com/openai/v1")
GROQ = ProviderSettings(name="groq", api="openai-chat", base_url="https://api.groq.com/openai/v1")


def request(*messages: Message, stream: bool = True, **fields: Any) -> RunRequest:
    return RunRequest(provider="openai", model="m", messages=list(messages), stream=stream, **fields)


COMPATIBLE = ProviderSettings(name="deepseek", api="openai-chat", base_url="https://api.deepseek.com/v1")


def body_of(run: RunRequest, settings: ProviderSettings = OPENAI) -> dict[str, Any]:
    sent = json.loads(API.build_request(run, settings, None).body)
    assert isinstance(sent, dict)
    return sent


def messages_of(*messages: Message) -> list[dict[str, Any]]:
    sent = body_of(request(*messages))["messages"]
    assert isinstance(sent, list)
    return sent


def test_a_streaming_request_asks_for_usage_and_has_the_key() -> None:
    http = API.build_request(request(Message("user", "hi")), OPENAI, "sk-1")
    assert http.url == "https://api.openai.com/v1/chat/completions"
    assert dict(http.headers) == {
        "authorization": "Bearer sk-1",
        "content-type": "application/json",
        "accept": "text/event-stream",
    }
    assert json.loads(http.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
    }


def test_a_request_without_streaming_has_no_stream_fields() -> None:
    http = API.build_request(request(Message("user", "hi"), stream=False), OPENAI, None)
    assert dict(http.headers) == {"content-type": "application/json", "accept": "application/json"}
    assert json.loads(http.body) == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_the_token_limit_has_the_name_that_the_server_knows() -> None:
    run = request(max_output_tokens=9)
    assert body_of(run, OPENAI)["max_completion_tokens"] == 9
    assert body_of(run, AZURE)["max_completion_tokens"] == 9
    groq = body_of(run, GROQ)
    assert groq["max_tokens"] == 9
    assert groq["stream_options"] == {"include_usage": True}


def test_sampling_tools_and_custom_options_are_sent() -> None:
    body = body_of(
        request(
            tools=[Tool("f", "does f", {"type": "object"}, strict=True), Tool("g")],
            tool_choice={"tool": "f"},
            temperature=0.0,
            top_p=0.5,
            stop_sequences=["a"],
            reasoning_effort="low",
            custom_options={"seed": 1, "top_p": 0.6, "stream_options": {"x": 1}},
        )
    )
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "f", "description": "does f", "parameters": {"type": "object"}, "strict": True},
        },
        {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert (body["temperature"], body["top_p"], body["stop"], body["seed"]) == (0.0, 0.6, ["a"], 1)
    assert body["reasoning_effort"] == "low"
    assert body["stream_options"] == {"include_usage": True, "include_obfuscation": False, "x": 1}


def test_a_bare_schema_is_wrapped_and_a_response_format_is_not() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    wrapped = {"type": "json_schema", "json_schema": {"name": "response", "strict": True, "schema": schema}}
    assert body_of(request(response_format=schema))["response_format"] == wrapped
    assert body_of(request(response_format=wrapped))["response_format"] == wrapped
    assert body_of(request(response_format={"type": "json_object"}))["response_format"] == {"type": "json_object"}


def test_each_role_is_mapped() -> None:
    arguments: dict[str, Any] = {"city": "Zürich", "days": [1]}
    assert messages_of(
        Message("system", "s"),
        Message("developer", [TextPart("d")]),
        Message(
            "user", [TextPart("see"), ImagePart(url="https://x/y.png"), ImagePart(data="QQ==", media_type="image/png")]
        ),
        Message("assistant", [ToolCallPart("c1", "f", arguments)]),
        Message("tool", "20°", tool_call_id="c1", tool_name="f"),
        Message("assistant", [TextPart("a"), TextPart("b")]),
    ) == [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "d"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"city":"Zürich","days":[1]}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "20°"},
        {"role": "assistant", "content": "ab"},
    ]


def test_reasoning_is_sent_back_only_under_the_key_that_it_came_under() -> None:
    ours = ReasoningPart("why", {"field": "reasoning_content"})
    details = ReasoningPart("", {"reasoning_details": [{"data": "e"}]})
    theirs = ReasoningPart("no", {"signature": "abc"})
    run = request(Message("assistant", [ours, theirs, details, TextPart("x")]))

    assert body_of(run, COMPATIBLE)["messages"] == [
        {"role": "assistant", "content": "x", "reasoning_content": "why", "reasoning_details": [{"data": "e"}]}
    ]
    assert body_of(run)["messages"] == [{"role": "assistant", "content": "x"}]


@pytest.mark.parametrize(
    "run",
    [
        request(stop_sequences=["1", "2", "3", "4", "5"]),
        request(tool_choice={"name": "f"}),
        request(Message("user", [ImagePart(data="QQ==")])),
        request(Message("user", [ToolCallPart("c", "f", {})])),
        request(Message("system", [ImagePart(url="https://x/y.png")])),
        request(Message("assistant", [ImagePart(url="https://x/y.png")])),
        request(Message("tool", "x")),
    ],
)
def test_a_request_that_the_api_cannot_take_is_refused(run: RunRequest) -> None:
    with pytest.raises(ProviderFailedError) as caught:
        API.build_request(run, OPENAI, None)
    assert caught.value.failure.kind == "invalid_request"
