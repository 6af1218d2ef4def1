"""Requests in the wire format openai-responses, in the types of the official SDK; and requests that it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.testing import Script, ScriptedToolCall
from headrace.testing.openai_responses import answer as simulated
from headrace.testing.openai_responses.rules import refusal_of
from headrace.types import ImagePart, Message, Part, ReasoningPart, RunEvent, TextPart, Tool, ToolCallPart
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.openai_responses.api import API
from headrace_workers.providers.shared.sse import SSEParser
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderSettings

OPENAI = ProviderSettings(name="openai-responses", api="openai-responses", base_url="https://api.openai.com/v1")
XAI = ProviderSettings(name="xai", api="openai-responses", base_url="https://api.x.ai/v1")
HI = Message("user", "hi")


def request(*messages: Message, stream: bool = True, **fields: Any) -> RunRequest:
    fields = {"model": "gpt-4o"} | fields
    return RunRequest(provider="openai-responses", messages=list(messages or [HI]), stream=stream, **fields)


def body_of(run: RunRequest, settings: ProviderSettings = OPENAI) -> dict[str, Any]:
    sent = json.loads(API.build_request(run, settings, None).body)
    assert isinstance(sent, dict)
    return sent


def input_of(*messages: Message, **fields: Any) -> list[dict[str, Any]]:
    sent = body_of(request(*messages, **fields))["input"]
    assert isinstance(sent, list)
    return sent


def own(item: dict[str, Any]) -> dict[str, Any]:
    return {"api": "openai-responses", "item": item}


def test_a_streaming_request_has_the_key_and_stores_nothing() -> None:
    http = API.build_request(request(), OPENAI, "sk-1")
    assert http.url == "https://api.openai.com/v1/responses"
    assert dict(http.headers) == {
        "authorization": "Bearer sk-1",
        "content-type": "application/json",
        "accept": "text/event-stream",
    }
    assert json.loads(http.body) == {
        "model": "gpt-4o",
        "input": [{"type": "message", "role": "user", "content": "hi"}],
        "store": False,
        "stream": True,
        "stream_options": {"include_obfuscation": False},
    }
    assert "stream_options" not in body_of(request(), XAI)


def test_a_request_without_streaming_has_no_stream_fields() -> None:
    http = API.build_request(request(stream=False), OPENAI, None)
    assert dict(http.headers) == {"content-type": "application/json", "accept": "application/json"}
    assert json.loads(http.body).keys() == {"model", "input", "store"}


@pytest.mark.parametrize(
    ("model", "effort", "is_asked"),
    [
        ("gpt-4.1", None, False),
        ("gpt-5-chat-latest", None, False),
        ("gpt-5.4-mini", None, True),
        ("o4-mini", None, True),
        ("openai/gpt-5-nano", None, True),
        ("openai.gpt-5.6-luna", None, True),
        ("grok-4.3", None, True),
        ("grok-4-fast-non-reasoning", None, False),
        ("deployment-7", None, False),
        ("deployment-7", "low", True),
        ("deployment-7", "none", False),
    ],
)
def test_only_models_that_reason_are_asked_for_encrypted_reasoning(
    model: str, effort: str | None, is_asked: bool
) -> None:
    body = body_of(request(model=model, reasoning_effort=effort))
    assert body.get("include") == (["reasoning.encrypted_content"] if is_asked else None)
    assert body.get("reasoning") == ({"effort": effort, "summary": "auto"} if effort else None)


def test_the_callers_include_is_added_to_encrypted_reasoning() -> None:
    def include(model: str, *asked: str) -> Any:
        return body_of(request(model=model, custom_options={"include": list(asked)}))["include"]

    sources = "web_search_call.action.sources"
    assert include("gpt-5", sources) == [sources, "reasoning.encrypted_content"]
    assert include("gpt-5", "reasoning.encrypted_content") == ["reasoning.encrypted_content"]
    assert include("gpt-4o", sources) == [sources]
    assert include("gpt-5") == []


def test_sampling_tools_and_custom_options_are_sent() -> None:
    body = body_of(
        request(
            model="m",
            tools=[Tool("f", "does f", {"type": "object"}, strict=True), Tool("g")],
            tool_choice={"tool": "f"},
            temperature=0.0,
            top_p=0.5,
            max_output_tokens=9,
            reasoning_effort="low",
            custom_options={"store": True, "top_p": 0.6, "reasoning": {"summary": "detailed"}},
        )
    )
    assert body["tools"] == [
        {"type": "function", "name": "f", "description": "does f", "parameters": {"type": "object"}, "strict": True},
        {"type": "function", "name": "g", "parameters": {"type": "object", "properties": {}}, "strict": False},
    ]
    assert body["tool_choice"] == {"type": "function", "name": "f"}
    assert (body["temperature"], body["top_p"], body["max_output_tokens"], body["store"]) == (0.0, 0.6, 9, True)
    assert body["reasoning"] == {"effort": "low", "summary": "detailed"}


def test_each_form_of_a_response_format_becomes_a_text_format() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    flat = {"type": "json_schema", "name": "n", "schema": schema, "strict": False}
    nested = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": False}}
    bare = {"type": "json_schema", "name": "response", "strict": True, "schema": schema}
    for wanted, sent in ((flat, flat), (nested, flat), (schema, bare), ({"type": "json_object"},) * 2):
        run = request(response_format=wanted, custom_options={"text": {"verbosity": "low"}})
        assert body_of(run)["text"] == {"format": sent, "verbosity": "low"}


CONVERSATION = [
    Message("system", "s"),
    Message("developer", [TextPart("d"), TextPart("e")]),
    Message(
        "user", [TextPart("see"), ImagePart(url="https://x/y.png"), ImagePart(data="QQ==", media_type="image/png")]
    ),
    Message("assistant", [TextPart("so"), ToolCallPart("c1", "f", {"city": "Zürich"})]),
    Message("tool", "20°", tool_call_id="c1", tool_name="f"),
    Message("tool", [TextPart("seen"), ImagePart(url="https://x/z.png")], tool_call_id="c2"),
    Message("assistant", "a"),
]


def test_each_role_is_mapped() -> None:
    assert input_of(*CONVERSATION) == [
        {"type": "message", "role": "system", "content": "s"},
        {
            "type": "message",
            "role": "developer",
            "content": [{"type": "input_text", "text": "d"}, {"type": "input_text", "text": "e"}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "detail": "auto", "image_url": "https://x/y.png"},
                {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,QQ=="},
            ],
        },
        {"type": "message", "role": "assistant", "content": "so"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"city":"Zürich"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "20°"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [
                {"type": "input_text", "text": "seen"},
                {"type": "input_image", "detail": "auto", "image_url": "https://x/z.png"},
            ],
        },
        {"type": "message", "role": "assistant", "content": "a"},
    ]


REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAA="}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'}
TEXT = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "x", "annotations": [], "logprobs": []}],
}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}


def answer(*, text: str = "x", arguments: dict[str, Any] | None = None) -> list[Any]:
    return [
        ReasoningPart("why", own(REASONING)),
        ReasoningPart("", own(SEARCH)),
        TextPart(text, own(TEXT)),
        ToolCallPart("c1", "f", arguments or {"x": 1}, own(CALL)),
    ]


def test_items_are_sent_back_unchanged() -> None:
    assert input_of(Message("assistant", answer())) == [REASONING, SEARCH, TEXT, CALL]


def test_a_part_that_the_caller_changed_is_sent_in_its_new_form() -> None:
    changed = input_of(Message("assistant", answer(text="y", arguments={"x": 2})))
    assert changed[2:] == [
        {"type": "message", "role": "assistant", "content": "y"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x":2}'},
    ]


def test_reasoning_that_the_api_would_refuse_is_left_out() -> None:
    other = ReasoningPart("no", {"api": "anthropic", "signature": "abc"})
    assert input_of(Message("assistant", [other, TextPart("x")])) == [
        {"type": "message", "role": "assistant", "content": "x"}
    ]
    # Reasoning at the end, because the call after it was cut.
    assert input_of(HI, Message("assistant", [ReasoningPart("why", own(REASONING))])) == input_of(HI)
    # Reasoning with only an id, which the provider has not stored. Then the ids of the other items are not sent either.
    unreadable = ReasoningPart("why", own(REASONING | {"encrypted_content": None}))
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x":1}'}
    assert input_of(Message("assistant", [unreadable, *answer()[3:]])) == [call]


def test_a_call_of_a_custom_tool_is_answered_by_its_own_kind_of_item() -> None:
    item = {"type": "custom_tool_call", "call_id": "c1", "name": "sql", "input": "SELECT 1"}
    call = ToolCallPart("c1", "sql", {"input": "SELECT 1"}, own(item))
    assert input_of(Message("assistant", [call]), Message("tool", "1", tool_call_id="c1")) == [
        item,
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "1"},
    ]


def test_requests_fit_the_types_of_the_official_sdk() -> None:
    pydantic = pytest.importorskip("pydantic")
    params = pytest.importorskip("openai.types.responses.response_create_params")
    adapter = pydantic.TypeAdapter(params.ResponseCreateParamsStreaming)
    run = request(
        *CONVERSATION,
        Message("assistant", answer()),
        tools=[Tool("f", "does f", {"type": "object"}, strict=True)],
        tool_choice={"tool": "f"},
        response_format={"type": "object"},
        model="gpt-5",
        reasoning_effort="low",
        temperature=1.0,
        parallel_tool_calls=False,
        metadata={"team": "a"},
        service_tier="flex",
        verbosity="low",
    )
    for body in (body_of(run), body_of(request(model="gpt-4o", logprobs=True, top_logprobs=3))):
        assert json.loads(adapter.dump_json(adapter.validate_python(body))) == body


def test_the_simulated_provider_accepts_a_turn_with_reasoning_and_calls() -> None:
    script = Script(
        reasoning="They ask for weather.", text="Let me see.", tool_calls=[ScriptedToolCall("f", {"x": 1})] * 2
    )
    run = request(reasoning_effort="low")
    parser, mapper = SSEParser(), API.open_stream(run)
    events: list[RunEvent] = []
    for frame, _, _ in simulated.reply(body_of(run, XAI), script, "chatcmpl-1", 0).frames:
        for name, data in parser.feed(frame):
            mapper.feed(name, data, events)
    whole = mapper.finish()
    assert whole.message is not None
    assert [call.arguments for call in whole.message.tool_calls] == [{"x": 1}, {"x": 1}]
    results = [Message("tool", "20°", tool_call_id=call.id) for call in whole.tool_calls]
    assert refusal_of(body_of(request(HI, whole.message, *results), XAI)) is None
    parts: list[Part] = [part for part in whole.message.content if not isinstance(part, ReasoningPart | str)]
    refusal = refusal_of(body_of(request(HI, Message("assistant", parts), *results), XAI))
    assert refusal is not None
    assert "without its required 'reasoning' item" in refusal.message


@pytest.mark.parametrize(
    "run",
    [
        request(stop_sequences=["1"]),
        request(tool_choice={"name": "f"}),
        request(Message("user", [ImagePart(data="QQ==")])),
        request(Message("user", [ToolCallPart("c", "f", {})])),
        request(Message("user", [ReasoningPart("x")])),
        request(Message("system", [ImagePart(url="https://x/y.png")])),
        request(Message("assistant", [ImagePart(url="https://x/y.png")])),
        request(Message("tool", "x")),
    ],
)
def test_a_request_that_the_api_cannot_take_is_refused(run: RunRequest) -> None:
    with pytest.raises(ProviderFailedError) as caught:
        API.build_request(run, OPENAI, None)
    assert caught.value.failure.kind == "invalid_request"


LOCAL = ProviderSettings(name="llamacpp", api="openai-responses", base_url="http://127.0.0.1:8080/v1")


@pytest.mark.parametrize("settings", [OPENAI, XAI, LOCAL])
def test_each_item_has_its_type(settings: ProviderSettings) -> None:
    run = request(*CONVERSATION, Message("assistant", answer()), Message("user", "go on"))
    assert all(item.get("type") for item in body_of(run, settings)["input"])


def test_compatible_servers_get_the_assistants_text_in_the_form_of_llama_cpp() -> None:
    said = [{"type": "output_text", "text": "so"}]
    contents: list[str | list[Part]] = ["so", [TextPart("so")]]
    for content in contents:
        run = request(HI, Message("assistant", content), HI)
        assert body_of(run, LOCAL)["input"][1] == {"type": "message", "role": "assistant", "content": said}
        assert body_of(run)["input"][1] == {"type": "message", "role": "assistant", "content": "so"}


SIGNED = {
    "type": "reasoning",
    "id": "rs_tmp_1",
    "summary": [],
    "encrypted_content": "sig",
    "format": "google-gemini-v1",
}


@pytest.mark.parametrize("settings", [OPENAI, LOCAL])
@pytest.mark.parametrize("signed", [SIGNED, {**SIGNED, "encrypted_content": None, "signature": "sig"}])
def test_a_signature_after_the_answer_is_sent_back_at_its_place(
    settings: ProviderSettings, signed: dict[str, Any]
) -> None:
    for order in ([TEXT, signed], [CALL, signed], [signed, TEXT, signed, CALL, signed]):
        body = {"status": "completed", "model": "m", "output": order}
        message = API.read_body(request(), json.dumps(body).encode()).message
        assert message is not None
        assert body_of(request(HI, message), settings)["input"][1:] == order


def test_the_last_reasoning_of_a_cut_response_is_not_sent_back_but_its_words_are_kept() -> None:
    reasoning = REASONING | {"summary": [{"type": "summary_text", "text": "why"}]}
    details = {"reason": "max_output_tokens"}
    body = {"status": "incomplete", "incomplete_details": details, "model": "m", "output": [TEXT, reasoning]}
    message = API.read_body(request(), json.dumps(body).encode()).message
    assert message is not None
    assert message.content[1] == ReasoningPart("why")
    for settings in (OPENAI, LOCAL):
        assert body_of(request(HI, message), settings)["input"][1:] == [TEXT]


def test_citations_of_a_plain_answer_are_kept_and_sent_back() -> None:
    cited = {"type": "url_citation", "url": "https://x", "title": "X", "start_index": 0, "end_index": 1}
    text = TEXT | {"content": [{"type": "output_text", "text": "x", "annotations": [cited], "logprobs": []}]}
    body = {"status": "completed", "model": "m", "output": [text]}
    message = API.read_body(request(), json.dumps(body).encode()).message
    assert message is not None
    assert input_of(HI, message)[1:] == [text]
