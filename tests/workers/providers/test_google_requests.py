"""Requests in the wire format google, and requests that it refuses."""

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
from headrace_workers.providers.google.api import API
from headrace_workers.providers.shared.sse import SSEParser
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderSettings
from tests.workers import corpus

GOOGLE = ProviderSettings(name="google", api="google", base_url="https://generativelanguage.googleapis.com")
HI = Message("user", "hi")
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}


def request(*messages: Message, stream: bool = True, model: str = "gemini-3-pro", **fields: Any) -> RunRequest:
    return RunRequest(provider="google", model=model, messages=list(messages or (HI,)), stream=stream, **fields)


def body_of(run: RunRequest) -> dict[str, Any]:
    sent = json.loads(API.build_request(run, GOOGLE, None).body)
    assert isinstance(sent, dict)
    return sent


def contents_of(*messages: Message) -> list[dict[str, Any]]:
    sent = body_of(request(*messages))["contents"]
    assert isinstance(sent, list)
    return sent


def config_of(**fields: Any) -> dict[str, Any]:
    sent = body_of(request(**fields)).get("generationConfig", {})
    assert isinstance(sent, dict)
    return sent


@pytest.mark.parametrize("stream", [True, False])
def test_google_is_always_asked_for_a_stream(*, stream: bool) -> None:
    http = API.build_request(request(stream=stream), GOOGLE, "k")
    host = "https://generativelanguage.googleapis.com"
    assert http.url == f"{host}/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse"
    assert dict(http.headers) == {"x-goog-api-key": "k", "content-type": "application/json"}
    assert json.loads(http.body) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def test_a_model_may_be_named_with_its_folder_and_cannot_leave_the_path() -> None:
    for model, path in (("tunedModels/x-1", "tunedModels/x-1"), ("a?b#c", "models/a%3Fb%23c")):
        assert f"/v1beta/{path}:stream" in API.build_request(request(model=model), GOOGLE, None).url


def test_a_continuation_is_the_same_request_with_the_token() -> None:
    sent = API.build_request(request(temperature=1.5), GOOGLE, "k")
    first = API.continue_request(sent, "t1")
    assert json.loads(first.body) == json.loads(sent.body) | {"continuationToken": "t1"}
    assert (first.url, first.headers) == (sent.url, sent.headers)
    assert json.loads(API.continue_request(first, "t2").body)["continuationToken"] == "t2"


def test_sampling_and_custom_options_are_sent() -> None:
    body = body_of(
        request(
            temperature=0.0,
            top_p=0.5,
            max_output_tokens=9,
            stop_sequences=["a"],
            tools=[Tool("f")],
            custom_options={
                "generationConfig": {"topK": 4, "topP": 0.6},
                "tools": [{"googleSearch": {}}],
                "safetySettings": [],
            },
        )
    )
    config = {"temperature": 0.0, "topP": 0.6, "topK": 4, "maxOutputTokens": 9, "stopSequences": ["a"]}
    assert body["generationConfig"] == config
    assert body["tools"] == [{"functionDeclarations": [{"name": "f"}]}, {"googleSearch": {}}]
    assert body["safetySettings"] == []


@pytest.mark.parametrize(
    ("choice", "strict", "calling"),
    [
        (None, None, None),
        ("auto", False, {"mode": "AUTO"}),
        ("none", True, {"mode": "NONE"}),
        ("required", True, {"mode": "ANY"}),
        ({"tool": "f"}, None, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (None, True, {"mode": "VALIDATED"}),
        ("auto", True, {"mode": "VALIDATED"}),
    ],
)
def test_tools_take_json_schema_and_every_choice(choice: Any, strict: Any, calling: Any) -> None:
    body = body_of(request(tools=[Tool("f", "does f", SCHEMA, strict=strict), Tool("g")], tool_choice=choice))
    f = {"name": "f", "description": "does f", "parametersJsonSchema": SCHEMA}
    assert body["tools"] == [{"functionDeclarations": [f, {"name": "g"}]}]
    assert body.get("toolConfig") == (calling and {"functionCallingConfig": calling})


def test_a_response_format_is_a_schema_bare_or_wrapped() -> None:
    wanted = {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
    wrapped = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    assert config_of(response_format=SCHEMA) == config_of(response_format=wrapped) == wanted
    assert config_of(response_format={"type": "json_object"}) == {"responseMimeType": "application/json"}
    assert config_of(response_format={"type": "text"}) == {}


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        ("gemini-2.5-flash", "none", {"includeThoughts": False, "thinkingBudget": 0}),
        ("gemini-2.5-pro", "low", {"includeThoughts": True, "thinkingBudget": 1024}),
        ("models/gemini-2.5-flash-lite", "high", {"includeThoughts": True, "thinkingBudget": 24576}),
        ("gemini-3-pro-preview", "high", {"includeThoughts": True, "thinkingLevel": "HIGH"}),
        ("gemini-flash-latest", "minimal", {"includeThoughts": True, "thinkingLevel": "MINIMAL"}),
    ],
)
def test_effort_is_a_budget_or_a_level_by_the_models_family(model: str, effort: str, thinking: dict[str, Any]) -> None:
    assert config_of(model=model, reasoning_effort=effort) == {"thinkingConfig": thinking}


def test_system_messages_are_the_system_instruction_and_turns_are_joined() -> None:
    body = body_of(
        request(
            Message("system", "s"),
            Message("user", "a"),
            Message("user", [TextPart("b"), TextPart("")]),
            Message("developer", [TextPart("d")]),
            Message("assistant", ""),
            Message("assistant", "c"),
            Message("assistant", [TextPart("e")]),
        )
    )
    assert body["systemInstruction"] == {"parts": [{"text": "s"}, {"text": "d"}]}
    assert body["contents"] == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"role": "model", "parts": [{"text": "c"}, {"text": "e"}]},
    ]
    assert contents_of(Message("user", "")) == [{"role": "user", "parts": [{"text": ""}]}]


def test_images_are_sent_inline_or_by_url() -> None:
    images = [
        ImagePart(data="QQ==", media_type="image/png"),
        ImagePart(url="data:image/webp;base64,Qg=="),
        ImagePart(url="https://x/y.JPG?z=1.gif"),
        ImagePart(url="https://x/y"),
        ImagePart(url="gs://b/y", media_type="image/heic"),
    ]
    assert contents_of(Message("user", [*images]))[0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "QQ=="}},
        {"inlineData": {"mimeType": "image/webp", "data": "Qg=="}},
        {"fileData": {"fileUri": "https://x/y.JPG?z=1.gif", "mimeType": "image/jpeg"}},
        {"fileData": {"fileUri": "https://x/y"}},
        {"fileData": {"fileUri": "gs://b/y", "mimeType": "image/heic"}},
    ]


def ours(**kept: str) -> dict[str, Any]:
    return {"api": "google", **kept}


def test_data_from_google_is_sent_back_unchanged_and_data_of_other_formats_is_left_out() -> None:
    theirs = {"api": "anthropic", "thoughtSignature": "no", "id": "no"}
    message = Message(
        "assistant",
        [
            ReasoningPart("why", ours(thoughtSignature="s0+/=")),
            ReasoningPart("unsigned"),
            ReasoningPart("not ours", theirs),
            TextPart("a", ours(thoughtSignature="s1")),
            TextPart("b", theirs),
            ToolCallPart("own", "f", {"x": 1}, ours(thoughtSignature="s2", id="own")),
            ToolCallPart("call_1", "g", {}, theirs),
            TextPart("", ours(thoughtSignature="s3")),
        ],
    )
    model = contents_of(HI, message)[1]
    assert model == {
        "role": "model",
        "parts": [
            {"text": "why", "thought": True, "thoughtSignature": "s0+/="},
            {"text": "a", "thoughtSignature": "s1"},
            {"text": "b"},
            {"functionCall": {"name": "f", "args": {"x": 1}, "id": "own"}, "thoughtSignature": "s2"},
            {"functionCall": {"name": "g", "args": {}}},
            {"text": "", "thoughtSignature": "s3"},
        ],
    }


def result(call_id: str | None, content: Any = "{}", name: str | None = None) -> Message:
    return Message("tool", content, tool_call_id=call_id, tool_name=name)


def test_results_answer_their_calls_by_name_and_in_the_calls_order() -> None:
    calls: list[Any] = [ToolCallPart("call_0", "f", {"n": 0}), ToolCallPart("call_1", "f", {"n": 1})]
    calls.append(ToolCallPart("own", "g", {}, ours(id="own")))
    answers = [result("own", '{"t": 20}'), result("call_1", "one"), result("call_0", [TextPart("[0]")])]
    turns = contents_of(HI, Message("assistant", calls), *answers, Message("user", "go on"))
    assert turns[2:] == [
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"result": "[0]"}}},
                {"functionResponse": {"name": "f", "response": {"result": "one"}}},
                {"functionResponse": {"name": "g", "response": {"t": 20}, "id": "own"}},
                {"text": "go on"},
            ],
        }
    ]


def test_a_result_has_the_tool_name_of_its_message_or_of_the_latest_call_with_its_id() -> None:
    first, second = ([ToolCallPart("call_0", name, {})] for name in "fg")
    turns = contents_of(
        HI, Message("assistant", [*first]), result("call_0"), Message("assistant", [*second]), result("call_0")
    )
    assert turns[2]["parts"][0]["functionResponse"]["name"] == "f"
    assert turns[4]["parts"][0]["functionResponse"]["name"] == "g"
    assert contents_of(HI, result(None, name="h"))[0]["parts"][1]["functionResponse"]["name"] == "h"


@pytest.mark.parametrize(
    "run",
    [
        request(Message("system", "s")),
        request(stop_sequences=["1", "2", "3", "4", "5", "6"]),
        request(tool_choice={"name": "f"}),
        request(tool_choice="f"),
        request(reasoning_effort="none"),
        request(reasoning_effort="huge"),
        request(model="gemini-2.5-pro", reasoning_effort="none"),
        request(model="gemini-2.5-flash", reasoning_effort="xhigh"),
        request(model="gemini-2.0-flash", reasoning_effort="low"),
        request(response_format={"type": "json_schema"}),
        request(Message("user", [ImagePart(data="QQ==")])),
        request(Message("user", [ImagePart(url="data:text/plain,hello")])),
        request(Message("user", [ToolCallPart("c", "f", {})])),
        request(HI, Message("system", [ImagePart(url="https://x/y.png")])),
        request(HI, result("nowhere")),
        request(HI, result("c", [ImagePart(url="https://x/y.png")], "f")),
    ],
)
def test_a_request_that_the_api_cannot_take_is_refused(run: RunRequest) -> None:
    with pytest.raises(ProviderFailedError) as caught:
        API.build_request(run, GOOGLE, None)
    assert caught.value.failure.kind == "invalid_request"
    assert len(caught.value.failure.reason) > 20


def test_a_request_has_the_form_of_the_official_sdk() -> None:
    types = pytest.importorskip("google.genai").types
    call = ToolCallPart("own", "f", {"x": 1}, ours(thoughtSignature="c2ln", id="own"))
    body = body_of(
        request(
            Message("system", "s"),
            Message(
                "user",
                [TextPart("a"), ImagePart(url="https://x/y.png"), ImagePart(data="QQ==", media_type="image/png")],
            ),
            Message("assistant", [ReasoningPart("w", ours(thoughtSignature="c2ln")), call]),
            result("own", "20"),
            tools=[Tool("f", "does f", SCHEMA, strict=True)],
            response_format=SCHEMA,
            temperature=1.0,
            top_p=0.5,
            max_output_tokens=9,
            stop_sequences=["a"],
            reasoning_effort="low",
            seed=7,
            top_k=40,
            frequency_penalty=0.5,
            presence_penalty=-0.5,
            logprobs=True,
            top_logprobs=3,
            service_tier="flex",
            metadata={"team": "a"},
        )
    )
    for content in [*body["contents"], body["systemInstruction"]]:
        types.Content.model_validate(content)
    for tool in body["tools"]:
        types.Tool.model_validate(tool)
    types.ToolConfig.model_validate(body["toolConfig"])
    types.GenerateContentConfig.model_validate(body["generationConfig"])
    types.GenerateContentConfig.model_validate({name: body[name] for name in ("serviceTier", "labels")})
    known = {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "serviceTier", "labels"}
    assert set(body) == known


@corpus.needs_recordings
def test_recorded_signatures_and_ids_are_sent_back_unchanged() -> None:
    found = 0
    for name in corpus.case_names("google.generate"):
        case = corpus.load(name)
        if not case.body.startswith(b"data:"):
            continue
        mapper, parser = API.open_stream(request()), SSEParser()
        said: list[Any] = []
        for event_name, data in parser.feed(case.body) + parser.finish():
            mapper.feed(event_name, data, [])
            candidates = json.loads(data).get("candidates") or [{}]
            said += (candidates[0].get("content") or {}).get("parts") or []
        message = mapper.finish().message
        signatures = [part["thoughtSignature"] for part in said if "thoughtSignature" in part]
        ids = [part["functionCall"]["id"] for part in said if part.get("functionCall", {}).get("id")]
        found += len(signatures) + len(ids)
        sent = contents_of(HI, message)[1]["parts"] if message else []
        assert [part["thoughtSignature"] for part in sent if "thoughtSignature" in part] == signatures, name
        assert [part["functionCall"]["id"] for part in sent if part.get("functionCall", {}).get("id")] == ids, name
    assert found > 20


def test_calls_of_another_provider_get_the_word_in_place_of_a_signature() -> None:
    foreign = Message("assistant", [ToolCallPart("c1", "f", {}), ToolCallPart("c2", "g", {}, {"api": "anthropic"})])
    answers = [Message("tool", "1", "c1"), Message("tool", "2", "c2")]

    parts = contents_of(HI, foreign, *answers)[1]["parts"]

    assert [part.get("thoughtSignature") for part in parts] == ["skip_thought_signature_validator", None]
