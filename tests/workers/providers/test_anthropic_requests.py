"""Requests in the wire format anthropic, checked with the types of the official SDK; and requests that it refuses."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from headrace.testing.anthropic.rules import refusal_of
from headrace.testing.anthropic.turns import signature_of
from headrace.types import ImagePart, Message, Part, ReasoningPart, TextPart, Tool, ToolCallPart
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.anthropic.api import API
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderSettings

ANTHROPIC = ProviderSettings(name="anthropic", api="anthropic", base_url="https://api.anthropic.com")
HI = Message("user", "hi")
MODEL = "claude-opus-4-6"
CLOSED = {"type": "object", "properties": {}, "additionalProperties": False}
"""A schema that Anthropic takes as it is."""

JSON = dict[str, Any]


def send(*messages: Message, stream: bool = True, model: str = MODEL, **fields: Any) -> HttpRequest:
    run = RunRequest(provider="anthropic", model=model, messages=list(messages or [HI]), stream=stream, **fields)
    return API.build_request(run, ANTHROPIC, "sk-1")


def body_of(*messages: Message, **fields: Any) -> JSON:
    http = send(*messages, **fields)
    sent = json.loads(http.body)
    assert isinstance(sent, dict)
    check_with_sdk(sent)
    refusal = refusal_of(sent, dict(http.headers)["anthropic-version"])
    assert refusal is None, refusal.message
    return sent


def check_with_sdk(body: JSON) -> None:
    """Check a body with the SDK's types: no unknown field, no wrong value.

    The types are of the API without sampling.
    """
    params = pytest.importorskip("anthropic.types.message_create_params")
    kind = params.MessageCreateParamsStreaming if body.get("stream") else params.MessageCreateParamsNonStreaming
    assert body.keys() - {"temperature", "top_p", "top_k"} <= kind.__required_keys__ | kind.__optional_keys__
    adapter(kind).validate_python(body)
    # The SDK has Iterable as the type of lists. pydantic checks the elements of an Iterable only when they are read.
    for message in body["messages"]:
        check_blocks(message["content"])
    check_blocks(body.get("system", []))
    for tool in body.get("tools", []):
        adapter(types().ToolUnionParam).validate_python(tool)


def check_blocks(content: str | list[JSON]) -> None:
    for block in content if isinstance(content, list) else []:
        adapter(types().ContentBlockParam).validate_python(block)
        if block["type"] == "tool_result":
            check_blocks(block["content"])


def types() -> Any:
    return pytest.importorskip("anthropic.types")


@cache
def adapter(kind: Any) -> Any:
    """Return what checks values of a type. To make it takes a fifth of a second."""
    return pytest.importorskip("pydantic").TypeAdapter(kind)


def version_of(**fields: Any) -> str:
    return dict(send(**fields).headers)["anthropic-version"]


def reason_of(*messages: Message, **fields: Any) -> str:
    with pytest.raises(ProviderFailedError) as caught:
        send(*messages, **fields)
    assert caught.value.failure.kind == "invalid_request"
    return caught.value.failure.reason


def opaque(**block: Any) -> JSON:
    return {"api": "anthropic", "block": block}


def test_a_streaming_request_has_the_key_and_the_version() -> None:
    http = send()
    assert http.url == "https://api.anthropic.com/v1/messages"
    assert dict(http.headers) == {
        "x-api-key": "sk-1",
        "anthropic-version": "2026-10-21",
        "content-type": "application/json",
        "accept": "text/event-stream",
    }
    assert body_of() == {
        "model": MODEL,
        "max_tokens": 64_000,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }


def test_a_request_without_streaming_has_no_stream_field() -> None:
    assert dict(send(stream=False).headers)["accept"] == "application/json"
    assert "stream" not in body_of(stream=False)


def test_tier_metadata_and_single_calls_fit_the_types_of_the_official_sdk() -> None:
    tool = Tool("f", parameters={"type": "object", "properties": {}})
    body = body_of(tools=[tool], parallel_tool_calls=False, service_tier="standard_only", metadata={"user_id": "u"})
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert (body["service_tier"], body["metadata"]) == ("standard_only", {"user_id": "u"})


def test_top_k_is_refused_with_thinking_and_on_models_without_sampling() -> None:
    assert "reasoning_effort" in reason_of(model="claude-sonnet-4-5", top_k=5, reasoning_effort="low")
    assert reason_of(model="claude-opus-4-7", top_k=5) == (
        "claude-opus-4-7 does not take top_k (as of 2026-11; custom_options={'top_k': 5} is sent unchecked)"
    )


@pytest.mark.parametrize(
    ("model", "max_tokens"),
    [
        ("claude-3-opus-20240229", 4_096),
        ("claude-3-5-sonnet-20241022", 8_192),
        ("claude-3-7-sonnet-latest", 32_000),
        ("claude-opus-4-20250514", 32_000),
        ("claude-4-opus-20250514", 32_000),
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", 32_000),
        ("claude-haiku-4-5@20251001", 64_000),
        ("claude-fable-5-2", 64_000),
        ("claude-mythos-preview", 64_000),
        ("kimi-k2", 8_192),
    ],
)
def test_each_model_has_a_default_limit(model: str, max_tokens: int) -> None:
    assert body_of(model=model)["max_tokens"] == max_tokens
    assert body_of(model=model, max_output_tokens=7)["max_tokens"] == 7


def test_sampling_is_sent_with_the_version_that_takes_it() -> None:
    body = body_of(temperature=0.0, top_p=0.5)
    assert (body["temperature"], body["top_p"]) == (0.0, 0.5)
    assert body_of(top_k=5)["top_k"] == 5
    assert version_of(top_k=5) == version_of(temperature=1.0) == version_of(top_p=0.5) == "2023-06-01"
    assert version_of(custom_options={"top_k": 5}) == "2023-06-01"


@pytest.mark.parametrize("model", ["claude-opus-4-7", "claude-sonnet-5", "claude-fable-5-1", "claude-mythos-preview"])
def test_a_model_without_sampling_refuses_it_by_name(model: str) -> None:
    assert reason_of(model=model, temperature=1.0).startswith(f"{model} does not take temperature (as of ")
    assert f"{model} does not take temperature or top_p (" in reason_of(model=model, temperature=1.0, top_p=1.0)


def test_tools_choice_stop_and_custom_options_are_sent() -> None:
    body = body_of(
        tools=[Tool("f", "does f", CLOSED, strict=True), Tool("g")],
        tool_choice={"tool": "f"},
        stop_sequences=["a", "b", "c", "d", "e"],
        response_format=CLOSED,
        custom_options={"output_config": {"effort": "low"}, "metadata": {"user_id": "u"}, "max_tokens": 9},
    )
    assert body["tools"] == [
        {"name": "f", "description": "does f", "input_schema": CLOSED, "strict": True},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert body["tool_choice"] == {"type": "tool", "name": "f"}
    assert body["stop_sequences"] == ["a", "b", "c", "d", "e"]
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": CLOSED}, "effort": "low"}
    assert (body["metadata"], body["max_tokens"]) == ({"user_id": "u"}, 9)


@pytest.mark.parametrize(("choice", "sent"), [("auto", "auto"), ("none", "none"), ("required", "any")])
def test_each_tool_choice_is_mapped(choice: str, sent: str) -> None:
    assert body_of(tools=[Tool("f")], tool_choice=choice)["tool_choice"] == {"type": sent}


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": CLOSED}},
        {"type": "json_schema", "schema": CLOSED},
        CLOSED,
    ],
)
def test_each_form_of_a_schema_is_accepted(wanted: JSON) -> None:
    sent = body_of(response_format=wanted)
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": CLOSED}}
    assert "output_config" not in body_of(response_format={"type": "text"})


def test_effort_asks_for_adaptive_thinking_if_the_model_has_it() -> None:
    body = body_of(reasoning_effort="high", response_format=CLOSED)
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"]["effort"] == "high"
    assert "format" in body["output_config"]
    assert body_of(reasoning_effort="minimal")["output_config"] == {"effort": "low"}
    assert body_of(reasoning_effort="none")["thinking"] == {"type": "disabled"}
    forced = body_of(reasoning_effort="low", tools=[Tool("f")], tool_choice="required")
    assert ("thinking" in forced, forced["output_config"]) == (False, {"effort": "low"})


def test_effort_is_a_budget_on_older_models() -> None:
    def budget(effort: str, **fields: Any) -> Any:
        return body_of(model="claude-sonnet-4-5", reasoning_effort=effort, **fields)["thinking"]

    assert budget("medium") == {"type": "enabled", "budget_tokens": 8_192}
    assert budget("max", max_output_tokens=4_000)["budget_tokens"] == 2_000
    assert budget("low", max_output_tokens=1_100)["budget_tokens"] == 1_024
    assert "thinking" not in body_of(model="claude-3-haiku-20240307", reasoning_effort="none")


def test_system_texts_are_sent_apart_and_tool_results_in_the_users_turn() -> None:
    body = body_of(
        Message("system", "s"),
        HI,
        Message("assistant", [TextPart("a"), ToolCallPart("c1", "f", {"city": "Zürich"}), ToolCallPart("c2", "g", {})]),
        Message("tool", "20°", tool_call_id="c1", tool_name="f"),
        Message("tool", [TextPart("see"), ImagePart(url="https://x/y.png")], tool_call_id="c2"),
        Message("developer", [TextPart("d")]),
        Message("user", "and?"),
    )
    assert body["system"] == [{"type": "text", "text": "s"}, {"type": "text", "text": "d"}]
    image = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    assert body["messages"] == [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"city": "Zürich"}},
                {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "20°"},
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "see"}, image]},
                {"type": "text", "text": "and?"},
            ],
        },
    ]


def test_messages_of_one_side_in_a_row_become_one_turn_with_results_first() -> None:
    call = Message("assistant", [ToolCallPart("functions.f:0", "f", {})])
    body = body_of(HI, Message("assistant", "a"), call, HI, Message("tool", "", tool_call_id="functions.f:0"))
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"][1]["id"] == "functions_f_0"
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "functions_f_0", "content": ""},
        {"type": "text", "text": "hi"},
    ]


@pytest.mark.parametrize(
    ("image", "source"),
    [
        (
            ImagePart(data="QQ==", media_type="image/png"),
            {"type": "base64", "media_type": "image/png", "data": "QQ=="},
        ),
        (
            ImagePart(url="data:image/png;base64,QQ=="),
            {"type": "base64", "media_type": "image/png", "data": "QQ=="},
        ),
        (ImagePart(url="https://x/y.png"), {"type": "url", "url": "https://x/y.png"}),
    ],
)
def test_images_are_sent_by_url_and_as_data(image: ImagePart, source: JSON) -> None:
    body = body_of(Message("user", [TextPart("see"), image]))
    assert body["messages"][0]["content"] == [{"type": "text", "text": "see"}, {"type": "image", "source": source}]


def test_opaque_data_is_sent_back_unchanged_and_that_of_other_formats_is_not() -> None:
    signature = signature_of("wh\u2028y ")
    server: list[JSON] = [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "é\u2028"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
    ]
    parts: list[Part] = [
        ReasoningPart("wh\u2028y ", opaque(type="thinking", signature=signature)),
        ReasoningPart("", opaque(type="redacted_thinking", data="ENC")),
        ReasoningPart("no", {"api": "google", "thought_signature": "x"}),
        ReasoningPart("no"),
        *(ReasoningPart("", opaque(**block)) for block in server),
        TextPart("\n\n"),
        TextPart("x", {"api": "openai-chat", "block": {"no": 1}}),
    ]
    assert body_of(HI, Message("assistant", parts), HI)["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "wh\u2028y ", "signature": signature},
        {"type": "redacted_thinking", "data": "ENC"},
        *server,
        {"type": "text", "text": "x"},
    ]


def test_an_answer_cut_in_its_thinking_is_left_out() -> None:
    cut = Message("assistant", [ReasoningPart("why", opaque(type="thinking", signature=""))])
    assert body_of(HI, cut, HI)["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "hi"}]}
    ]
    assert body_of(HI, Message("assistant", ""), HI)["messages"][0]["role"] == "user"


@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        ([Message("user", " ")], {}),
        ([Message("system", [ImagePart(url="https://x/y.png")])], {}),
        ([Message("assistant", [ImagePart(url="https://x/y.png")])], {}),
        ([Message("user", [ImagePart(data="QQ==")])], {}),
        ([Message("user", [ToolCallPart("c", "f", {})])], {}),
        ([Message("user", [ReasoningPart("why")])], {}),
        ([Message("tool", "x")], {}),
        ([Message("tool", [ToolCallPart("c", "f", {})], tool_call_id="c")], {}),
        ([], {"temperature": 1.5}),
        ([], {"stop_sequences": ["\n"]}),
        ([], {"tool_choice": {"name": "f"}}),
        ([], {"tool_choice": "any"}),
        ([], {"response_format": {"type": "json_object"}}),
        ([], {"response_format": {"type": "json_schema"}}),
        ([], {"reasoning_effort": "much"}),
        ([], {"reasoning_effort": "low", "temperature": 0.5}),
        ([], {"reasoning_effort": "low", "model": "claude-3-haiku-20240307"}),
        ([], {"reasoning_effort": "low", "model": "claude-haiku-4-5", "max_output_tokens": 1024}),
        ([], {"reasoning_effort": "low", "model": "claude-haiku-4-5", "tool_choice": "required"}),
    ],
)
def test_a_request_that_the_api_cannot_take_is_refused(messages: list[Message], fields: JSON) -> None:
    assert reason_of(*messages, **fields)
