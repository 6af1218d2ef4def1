"""Which of OpenAI's two APIs a run of the provider ``openai`` takes."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from headrace.settings.settings import ProviderConfig, Settings
from headrace.testing.openai_chat.rules import refusal_of as refused_by_chat
from headrace.testing.openai_responses.rules import refusal_of as refused_by_responses
from headrace.types import AudioPart, FilePart, ImagePart, Message, ReasoningPart, TextPart, Tool, ToolCallPart
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderFailure
from headrace_workers.worker_settings import Prepared, Providers
from tests.cases import each
from tests.workers.providers.test_openai_models import LEVELS, SIMULATED

CHAT, RESPONSES = "openai-chat", "openai-responses"
URL = "https://api.openai.com/v1"
PROVIDERS = Providers(
    Settings(
        providers={
            "openai": ProviderConfig(api="openai", base_url=URL),
            "openai-chat": ProviderConfig(api=CHAT, base_url=URL),
            "openai-responses": ProviderConfig(api=RESPONSES, base_url=URL),
            "gateway": ProviderConfig(api="openai", base_url="https://gateway.test/v1"),
        }
    ),
    {},
)
WEATHER = Tool("weather", "", {"type": "object", "properties": {}})
SEARCH = Tool("", type="web_search")
GRAMMAR = Tool("sql", type="custom")
HI = Message("user", "hi")
PICTURE = ImagePart(data="aGVsbG8=", media_type="image/png")


def prepared(model: str, *messages: Message, provider: str = "openai", **fields: Any) -> Prepared:
    request = RunRequest(provider=provider, model=model, messages=list(messages or [HI]), stream=True, **fields)
    return PROVIDERS.prepare(request, "sk-1")


def taken(model: str, *messages: Message, **fields: Any) -> str:
    ready = prepared(model, *messages, **fields)
    assert ready.request.url.endswith("/responses" if ready.wire_format.name == RESPONSES else "/chat/completions")
    return ready.wire_format.name


def refused(model: str, *messages: Message, **fields: Any) -> ProviderFailure:
    with pytest.raises(ProviderFailedError) as caught:
        prepared(model, *messages, **fields)
    assert caught.value.failure.kind == "invalid_request"
    return caught.value.failure


@each(
    ("model", "fields", "api"),
    [
        # Nothing decides.
        ("gpt-4o", {}, CHAT),
        ("gpt-5.6", {}, CHAT),
        ("gpt-6-astra", {"reasoning_effort": "high"}, CHAT),
        ("gpt-9", {}, CHAT),
        ("llama-3", {"tools": [WEATHER], "reasoning_effort": "high"}, CHAT),
        ("gemini-2.5-pro", {"tools": [WEATHER]}, CHAT),
        ("openai/gpt-5.6", {"tools": [WEATHER]}, CHAT),
        ("gpt-oss-120b", {"tools": [WEATHER], "reasoning_effort": "max"}, CHAT),
        # The model decides.
        ("gpt-5-pro", {}, RESPONSES),
        ("gpt-5.5-pro-2026-04-23", {}, RESPONSES),
        ("gpt-5.3-codex", {}, RESPONSES),
        ("o3-deep-research", {}, RESPONSES),
        ("computer-use-preview", {}, RESPONSES),
        ("gpt-9-pro", {}, RESPONSES),
        # The model decides about tools.
        ("gpt-4o", {"tools": [WEATHER]}, CHAT),
        ("o3", {"tools": [WEATHER]}, CHAT),
        ("gpt-5", {"tools": [WEATHER], "reasoning_effort": "high"}, CHAT),
        ("gpt-5.4", {"tools": [WEATHER]}, CHAT),
        ("gpt-5.4", {"tools": [WEATHER], "reasoning_effort": "none"}, CHAT),
        ("gpt-5.4-mini", {"tools": [WEATHER], "reasoning_effort": "low"}, RESPONSES),
        ("gpt-5.5", {"tools": [WEATHER]}, RESPONSES),
        ("gpt-5.6-luna", {"tools": [WEATHER]}, RESPONSES),
        ("gpt-5.6", {"tools": [WEATHER], "reasoning_effort": "none"}, CHAT),
        ("gpt-5.6", {"tools": [WEATHER], "custom_options": {"reasoning_effort": "none"}}, CHAT),
        ("gpt-5.6", {"tools": [GRAMMAR]}, CHAT),
        ("gpt-6-sol", {"tools": [WEATHER], "reasoning_effort": "max"}, RESPONSES),
        ("gpt-6-astra", {"tools": [WEATHER]}, RESPONSES),
        ("gpt-6.1-terra", {"tools": [WEATHER], "reasoning_effort": "none"}, RESPONSES),
        ("gpt-6.2-sol", {"tools": [WEATHER], "reasoning_effort": "none"}, RESPONSES),
        ("gpt-5.6", {"reasoning_effort": "max"}, RESPONSES),
        # What is asked decides.
        ("gpt-4o", {"tools": [SEARCH]}, RESPONSES),
        ("gpt-4o", {"tools": [Tool("", type="mcp", extra={"server_label": "x"})]}, RESPONSES),
        ("gpt-4o", {"tools": [WEATHER, Tool("", type="file_search")]}, RESPONSES),
        ("gpt-4o", {"stop_sequences": ["x"]}, CHAT),
        ("gpt-9", {"stop_sequences": ["x"], "tools": [WEATHER]}, CHAT),
        ("gpt-5.5", {"seed": 7, "tools": [WEATHER]}, CHAT),
        ("gpt-5.6", {"seed": 7}, CHAT),
        ("gpt-9-pro", {"seed": 7}, CHAT),
        ("gpt-4o", {"tools": [Tool("f", extra={"defer_loading": True})]}, RESPONSES),
        # Options decide, if only one API has them.
        ("gpt-4o", {"custom_options": {"logit_bias": {}, "store": True}}, CHAT),
        ("gpt-4o", {"custom_options": {"previous_response_id": "resp_1"}}, RESPONSES),
        ("gpt-4o", {"custom_options": {"include": [], "whatever": 1}}, RESPONSES),
        ("gpt-9-pro", {"custom_options": {"n": 2}}, CHAT),
    ],
)
def test_the_wire_format_follows_from_the_model_and_from_what_is_asked(
    model: str, fields: dict[str, Any], api: str
) -> None:
    assert taken(model, **fields) == api
    assert taken(model, **fields, provider="gateway") == api


def test_what_a_message_holds_decides_too() -> None:
    call = Message("assistant", [ToolCallPart("c1", "look", {})])
    seen = Message("tool", [PICTURE], tool_call_id="c1")

    assert taken("gpt-4o", HI, call, seen, tools=[WEATHER]) == RESPONSES
    assert taken("gpt-4o", Message("user", "hi", extra={"name": "Ann"})) == CHAT
    assert taken("gpt-4o", HI, Message("assistant", "a", extra={"phase": "commentary"}), HI) == RESPONSES
    sound = Message("user", [AudioPart(data="UklGRg==", media_type="audio/wav")])
    assert taken("gpt-audio-1.5", sound) == CHAT
    assert taken("gpt-9-pro", sound) == CHAT
    assert taken("gpt-4o", Message("user", [FilePart(url="https://example.com/a.pdf")])) == RESPONSES
    assert "Chat Completions refuses tools" in refused("gpt-6-astra", sound, tools=[WEATHER]).reason


@each(
    ("model", "fields", "said"),
    [
        (
            "gpt-5.6",
            {"tools": [WEATHER], "stop_sequences": ["x"]},
            ["Chat Completions refuses tools", "the Responses API refuses stop_sequences", 'reasoning_effort="none"'],
        ),
        (
            "gpt-6-astra",
            {"tools": [WEATHER], "seed": 7},
            ["Chat Completions refuses tools", "the Responses API refuses seed", "gpt-6-astra"],
        ),
        (
            "gpt-4o",
            {"tools": [SEARCH], "frequency_penalty": 0.5},
            ["Chat Completions refuses tools[0].type", "the Responses API refuses frequency_penalty"],
        ),
        (
            "gpt-5-pro",
            {"stop_sequences": ["x"]},
            ["Chat Completions refuses model", "the Responses API refuses stop_sequences"],
        ),
        (
            "gpt-4o",
            {"custom_options": {"logit_bias": {}, "previous_response_id": "resp_1"}},
            ["custom_options.logit_bias", "custom_options.previous_response_id"],
        ),
        (
            "gpt-4o",
            {"tools": [SEARCH], "custom_options": {"logit_bias": {}}},
            ["tools[0].type", "custom_options.logit_bias"],
        ),
    ],
)
def test_a_request_that_needs_both_apis_is_refused_and_the_error_names_both_demands(
    model: str, fields: dict[str, Any], said: list[str]
) -> None:
    failure = refused(model, **fields)

    assert failure.argument is None
    assert failure.reason.startswith("neither of OpenAI's APIs takes this request: ")
    assert all(words.lower() in failure.reason.lower() for words in said), failure.reason


@each(
    ("model", "messages", "fields", "argument"),
    [
        ("gpt-4o", [HI], {"stop_sequences": list("abcde")}, "stop_sequences"),
        ("gpt-5", [HI], {"stop_sequences": ["x"]}, "stop_sequences"),
        ("gpt-5.6", [HI], {"temperature": 0.3, "tools": [WEATHER]}, "temperature"),
        ("gpt-5.6", [HI], {"reasoning_effort": "minimal", "tools": [WEATHER]}, "reasoning_effort"),
        ("gpt-4o", [HI], {"top_k": 4}, "top_k"),
        ("gpt-4o", [HI], {"tools": [Tool("", type="web_search_20250305")]}, "tools[0].type"),
        ("gpt-5.6", [Message("assistant", [PICTURE])], {"tools": [WEATHER]}, "messages[0].content[0]"),
        ("gpt-5.6", [HI, Message("tool", "x")], {"tools": [WEATHER]}, "messages[1].tool_call_id"),
        ("gpt-4o", [Message("user", "hi", extra={"cache_control": {}})], {}, "messages[0].cache_control"),
    ],
)
def test_what_both_apis_refuse_alike_is_told_as_one_error_with_its_place(
    model: str, messages: list[Message], fields: dict[str, Any], argument: str
) -> None:
    failure = refused(model, *messages, **fields)

    assert failure.argument == argument
    assert "neither" not in failure.reason


def test_the_providers_openai_chat_and_openai_responses_decide_by_hand() -> None:
    assert taken("gpt-4o", provider=RESPONSES) == RESPONSES
    assert taken("gpt-6-astra", provider=CHAT) == CHAT
    assert refused("gpt-6-astra", provider=CHAT, tools=[WEATHER]).argument == "tools"
    assert refused("gpt-5-pro", provider=CHAT).argument == "model"
    assert refused("gpt-4o", provider=CHAT, tools=[SEARCH]).argument == "tools[0].type"
    assert refused("gpt-4o", provider=RESPONSES, seed=7).argument == "seed"
    # By hand, options are not looked at.
    assert taken("gpt-4o", provider=CHAT, custom_options={"previous_response_id": "resp_1"}) == CHAT


@pytest.mark.parametrize("provider", ["openai", "openai-chat", "gateway"])
def test_the_token_limit_and_the_padding_are_those_of_openai(provider: str) -> None:
    body = json.loads(prepared("gpt-4o", provider=provider, max_output_tokens=9).request.body)

    assert body["max_completion_tokens"] == 9
    assert body["stream_options"]["include_obfuscation"] is False


def test_texts_are_embedded_by_the_only_api_that_has_embeddings() -> None:
    request = RunRequest(provider="openai", model="text-embedding-3-small", messages=[], stream=False, inputs=["a"])
    ready = PROVIDERS.prepare(request, "sk-1")

    assert ready.request.url == f"{URL}/embeddings"
    assert ready.wire_format.name == CHAT
    assert ready.api is ready.wire_format.embeddings


def test_the_simulated_provider_takes_each_request_that_is_sent() -> None:
    """For each model: what is chosen is taken, and what is refused before sending is refused by both simulated APIs."""
    refusing = {CHAT: refused_by_chat, RESPONSES: refused_by_responses}
    counts = {CHAT: 0, RESPONSES: 0}
    refusals: set[str | None] = set()
    for model, effort, tools in product(SIMULATED, (None, *LEVELS), ([], [WEATHER], [SEARCH])):
        try:
            ready = prepared(model, reasoning_effort=effort, tools=tools)
        except ProviderFailedError as error:
            refusals.add(error.failure.argument)
            continue
        name = ready.wire_format.name
        assert refusing[name](json.loads(ready.request.body)) is None, (model, effort, tools, name)
        counts[name] += 1
    assert min(counts.values()) > 100
    assert refusals == {"reasoning_effort"}  # test_openai_models compares these with the simulation


# A conversation that changes its API.


def test_a_turn_of_responses_goes_on_in_chat_completions_without_its_reasoning() -> None:
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{}"},
        {"type": "custom_tool_call", "id": "ct_1", "call_id": "call_2", "name": "sql", "input": "SELECT 1"},
    ]
    said = [{"api": RESPONSES, "item": item} for item in items]
    message = answered_with(said)
    results = [Message("tool", "sunny", tool_call_id="call_1"), Message("tool", "1", tool_call_id="call_2")]

    body = json.loads(prepared("gpt-4o", HI, message, *results).request.body)

    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                {"id": "call_2", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "call_2", "content": "1"},
    ]
    back = json.loads(prepared("gpt-5.6", HI, message, *results, tools=[WEATHER]).request.body)
    assert [item for item in back["input"] if item.get("type") in {"reasoning", "web_search_call"}] == items[:2]


def answered_with(said: list[dict[str, Any]]) -> Message:
    return Message(
        "assistant",
        [
            ReasoningPart("I think.", said[0]),
            ReasoningPart("", said[1]),
            TextPart("Let me see."),
            ToolCallPart("call_1", "weather", {}, said[2]),
            ToolCallPart("call_2", "sql", {"input": "SELECT 1"}, said[3]),
        ],
    )


def test_a_turn_of_chat_completions_goes_on_in_responses() -> None:
    custom = {"api": CHAT, "type": "custom"}
    message = Message(
        "assistant",
        [
            TextPart("Let me see."),
            ToolCallPart("call_1", "weather", {"city": "Rome"}),
            ToolCallPart("call_2", "sql", {"input": "SELECT 1"}, custom),
        ],
    )
    results = [Message("tool", "sunny", tool_call_id="call_1"), Message("tool", "1", tool_call_id="call_2")]

    body = json.loads(prepared("gpt-5.6", HI, message, *results, tools=[WEATHER]).request.body)

    assert body["input"][1:] == [
        {"type": "message", "role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Rome"}'},
        {"type": "custom_tool_call", "call_id": "call_2", "name": "sql", "input": "SELECT 1"},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "1"},
    ]


def test_the_grammar_of_a_custom_tool_has_the_form_of_the_api_that_is_taken() -> None:
    rule = {"syntax": "regex", "definition": "a+"}
    flat = Tool("sql", type="custom", extra={"format": {"type": "grammar", **rule}})
    nested = Tool("", type="custom", extra={"custom": {"name": "sql", "format": {"type": "grammar", "grammar": rule}}})
    for tool in (flat, nested):
        chat = json.loads(prepared("gpt-4o", tools=[tool]).request.body)["tools"]
        responses = json.loads(prepared("gpt-4o", tools=[tool, SEARCH]).request.body)["tools"]
        assert chat == [{"type": "custom", "custom": {"name": "sql", "format": {"type": "grammar", "grammar": rule}}}]
        assert responses[0] == {"type": "custom", "name": "sql", "format": {"type": "grammar", **rule}}
