"""The simulated Chat Completions API: the official client reads its answers, and it is as strict as the real API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from headrace.testing import Script, ScriptedLogprob, ScriptedToolCall, SimulatedProvider
from headrace.testing.openai_chat.rules import refusal_of
from tests.cases import each
from tests.testing.sdks import Sdk

openai = Sdk("openai")

ASK = [{"role": "user", "content": "hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
    },
}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        yield provider


@pytest.fixture
def provider(shared: SimulatedProvider) -> SimulatedProvider:
    shared.clear()
    return shared


@pytest.fixture
def client(provider: SimulatedProvider) -> Iterator[Any]:
    with openai.OpenAI(base_url=provider.base_url, api_key=provider.api_key, max_retries=0) as client:
        yield client


def stream(client: Any, **fields: Any) -> list[Any]:
    return list(client.chat.completions.create(**{"model": "gpt-4o", "messages": ASK, "stream": True} | fields))


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_scripted_text_is_streamed_in_words(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(text="Hello big  world.\nBye "))

    chunks = stream(client)

    assert text_of(chunks) == "Hello big  world.\nBye "
    assert len(chunks) > 5
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert provider.requests()[0].sent_text == "Hello big  world.\nBye "


def test_numbered_chunks_come_in_order(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(repeat=300))

    assert text_of(stream(client)) == "".join(f"{number} " for number in range(300))
    assert provider.requests()[0].chunks_sent == 300


def test_usage_comes_last_and_only_when_asked_for(client: Any) -> None:
    with_usage = stream(client, stream_options={"include_usage": True})

    assert with_usage[-1].choices == []
    assert with_usage[-1].usage.total_tokens > 2
    assert all(chunk.usage is None for chunk in stream(client))


def test_tool_arguments_are_streamed_in_fragments(provider: SimulatedProvider, client: Any) -> None:
    calls = [ScriptedToolCall("f", {"city": "Paris, France"}), ScriptedToolCall("g", "{broken", id="x")]
    provider.enqueue(Script(tool_calls=calls))

    chunks = stream(client)

    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    arguments = ["".join(d.function.arguments for d in deltas if d.index == index) for index in (0, 1)]
    assert arguments == ['{"city":"Paris, France"}', "{broken"]
    assert [d.function.name for d in deltas if d.id] == ["f", "g"]
    assert len(deltas) > 4
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_question_about_the_weather_takes_two_turns(client: Any) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the WEATHER?"}]
    first = client.chat.completions.create(model="gpt-4o", messages=messages, tools=[WEATHER]).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.tool_calls[0].function.arguments == '{"location":"Tokyo"}'

    messages.append(first.message)
    messages.append({"role": "tool", "tool_call_id": first.message.tool_calls[0].id, "content": "22 C"})

    assert "22 C" in text_of(stream(client, messages=messages, tools=[WEATHER]))


def test_a_scripted_tool_call_is_followed_by_the_scripted_text(client: Any) -> None:
    simulate = {"simulate": {"tool_calls": [{"name": "get_weather"}], "text": "All done."}}
    messages = [*ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    messages.append({"role": "tool", "tool_call_id": "c1", "content": "x"})

    assert stream(client, extra_body=simulate)[-1].choices[0].finish_reason == "tool_calls"
    assert text_of(stream(client, extra_body=simulate, messages=messages)) == "All done."


def test_reasoning_and_refusal_have_their_own_fields(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(reasoning="Let me think.", refusal="I will not."))

    deltas = [chunk.choices[0].delta for chunk in stream(client)]

    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "Let me think."
    assert "".join(delta.refusal or "" for delta in deltas) == "I will not."


def test_a_story_is_long_unless_the_tokens_are_limited(client: Any) -> None:
    story = [{"role": "user", "content": "Write a story"}]

    assert len(text_of(stream(client, messages=story))) > 900
    assert stream(client, messages=story, max_tokens=5)[-1].choices[0].finish_reason == "length"


def test_a_whole_answer_is_a_completion(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(text="One piece.", usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}))

    completion = client.chat.completions.create(model="gpt-4o", messages=ASK)

    assert completion.choices[0].message.content == "One piece."
    assert completion.usage.total_tokens == 3
    assert provider.requests()[0].sent_text == "One piece."


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, "AuthenticationError"),
        (404, "NotFoundError"),
        (429, "RateLimitError"),
        (500, "InternalServerError"),
        (503, "InternalServerError"),
    ],
)
def test_scripted_errors_raise_what_the_real_api_raises(
    provider: SimulatedProvider, client: Any, status: int, error: str
) -> None:
    provider.enqueue(Script(status=status, headers={"retry-after": "7"}, error_code="some_code"))

    with pytest.raises(getattr(openai, error)) as caught:
        stream(client)

    assert caught.value.code == "some_code"
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.request_id.startswith("req_")


def test_an_error_inside_the_stream_raises(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(repeat=9, error_after=3, error_message="overloaded"))

    with pytest.raises(openai.APIError, match="overloaded"):
        stream(client)

    assert provider.requests()[0].outcome == "failed"
    assert provider.requests()[0].sent_text == "0 1 2 "


def test_obfuscation_pads_chunks_unless_declined(client: Any) -> None:
    simulate = {"simulate": {"obfuscation": True}}
    declined = {"include_obfuscation": False}

    assert all(chunk.obfuscation for chunk in stream(client, extra_body=simulate))
    assert not any(chunk.obfuscation for chunk in stream(client, extra_body=simulate, stream_options=declined))


def with_tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f"} | function}]}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


ASSISTANT = {"role": "assistant", "content": None, "tool_calls": [CALL]}
NOT_TEXT = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {}}}

REFUSED: list[tuple[dict[str, Any], str, str | None]] = [
    ({"model": None}, "'model'", "missing_required_parameter"),
    ({"messages": []}, "'messages'", "missing_required_parameter"),
    ({"messages": "hi"}, "array of objects", "invalid_type"),
    ({"max_output_tokens": 5}, "Unrecognized request argument supplied: max_output_tokens", "unknown_parameter"),
    ({"stream": "yes"}, "'stream'", "invalid_type"),
    ({"max_tokens": 1.5}, "'max_tokens'", "invalid_type"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "'robot'", "invalid_value"),
    ({"messages": [{"role": "user", "content": None}]}, "null", "invalid_value"),
    ({"messages": [{"role": "assistant", "content": None}]}, "null", "invalid_value"),
    ({"messages": [{"role": "user", "content": 3}]}, "content", "invalid_type"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}, "url", "unknown_parameter"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "'image'", "invalid_value"),
    ({"messages": [{"role": "user", "content": "x", "tool_name": "f"}]}, "tool_name", "unknown_parameter"),
    ({"messages": [*ASK, {"role": "tool", "content": "x"}]}, "tool_call_id", "invalid_type"),
    ({"messages": [*ASK, {"role": "tool", "content": "x", "tool_call_id": "c1"}]}, "preceeding message", None),
    ({"messages": [*ASK, ASSISTANT]}, "must be followed by tool messages", None),
    ({"messages": [*ASK, ASSISTANT, *ASK]}, "must be followed by tool messages", None),
    ({"messages": [*ASK, ASSISTANT | {"tool_calls": [NOT_TEXT]}]}, "arguments", "invalid_type"),
    ({"messages": [*ASK, ASSISTANT | {"tool_calls": []}]}, "empty array", "empty_array"),
    ({"tools": []}, "empty array", "empty_array"),
    ({"tools": [{"type": "function", "name": "f", "parameters": {}}]}, "tools[0].name", "unknown_parameter"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
    (with_tool(name="get weather"), "pattern", "invalid_value"),
    (with_tool(name="f" * 65), "pattern", "invalid_value"),
    (with_tool(parameters={"type": "string"}), "JSON Schema", "invalid_function_parameters"),
    ({"tool_choice": "auto"}, "only allowed when 'tools'", None),
    ({"tools": [WEATHER], "tool_choice": named("other")}, "'other' not found", None),
    ({"tools": [WEATHER], "tool_choice": "get_weather"}, "Supported values", "invalid_value"),
    ({"stream_options": {"include_usage": True}}, "only allowed when 'stream'", None),
    ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "unknown_parameter"),
    ({"temperature": 2.5}, "<= 2", "decimal_above_max_value"),
    ({"top_p": -1}, ">= 0", "integer_below_min_value"),
    ({"model": "o3-mini", "max_tokens": 5}, "max_completion_tokens", "unsupported_parameter"),
    ({"model": "gpt-5-mini", "max_tokens": 5}, "max_completion_tokens", "unsupported_parameter"),
    ({"model": "o4-mini", "temperature": 0.5}, "Only the default (1)", "unsupported_value"),
    ({"stop": ["a"] * 5}, "maximum length 4", "array_above_max_length"),
    ({"model": "no-such-model"}, "does not exist", "model_not_found"),
    ({"top_logprobs": 2}, "'logprobs' is enabled", "invalid_value"),
    ({"logprobs": 2}, "'logprobs'", "invalid_type"),
    ({"logprobs": True, "top_logprobs": 21}, "<= 20", "integer_above_max_value"),
    ({"parallel_tool_calls": False}, "'tools' are specified", None),
    ({"frequency_penalty": -2.5}, ">= -2", "decimal_below_min_value"),
    ({"seed": "7"}, "'seed'", "invalid_type"),
    ({"service_tier": "cheap"}, "'cheap'", "invalid_value"),
    ({"verbosity": "none"}, "'none'", "invalid_value"),
    ({"metadata": {str(number): "" for number in range(17)}}, "at most 16", "object_above_max_properties"),
    ({"metadata": {"a": 1}}, "'metadata.a'", "invalid_type"),
    ({"metadata": {"a" * 65: ""}}, "maximum length 64", "string_above_max_length"),
    ({"metadata": {"a": "b" * 513}}, "maximum length 512", "string_above_max_length"),
]


@each(("fields", "words", "code"), REFUSED)
def test_a_request_that_the_real_api_refuses_is_refused(fields: dict[str, Any], words: str, code: str | None) -> None:
    refusal = refusal_of({"model": "gpt-4o", "messages": ASK} | fields)

    assert refusal is not None
    assert words in refusal.message
    assert refusal.code == code


ACCEPTED: list[dict[str, Any]] = [
    {"temperature": 2, "top_p": 0.1, "max_tokens": 5, "stop": "x", "user": "me", "metadata": {}},
    {"model": "o3", "max_completion_tokens": 5, "temperature": 1, "reasoning_effort": "low"},
    {"tools": [WEATHER], "tool_choice": named("get_weather"), "parallel_tool_calls": False},
    {"messages": [*ASK, ASSISTANT, {"role": "tool", "tool_call_id": "c1", "content": "x"}, *ASK]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]},
    {"messages": [{"role": "developer", "content": [{"type": "text", "text": "x"}]}]},
    {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}, "n": 1},
]


@pytest.mark.parametrize("fields", ACCEPTED)
def test_a_request_that_the_real_api_accepts_is_accepted(fields: dict[str, Any]) -> None:
    assert refusal_of({"model": "gpt-4o", "messages": ASK} | fields) is None


@pytest.mark.parametrize(
    ("request_line", "key", "content", "status", "code"),
    [
        ("POST /v1/chat/completions", None, b"{}", 401, None),
        ("POST /v1/chat/completions", "wrong", b"{}", 401, "invalid_api_key"),
        ("POST /v1/chat/completions", "sk-invalid-1", b"{}", 401, "invalid_api_key"),
        ("POST /v1/completions", "sk-1", b"{}", 404, None),
        ("GET /v1/chat/completions", "sk-1", b"", 405, "method_not_supported"),
        ("POST /v1/chat/completions", "sk-1", b"{", 400, None),
        ("POST /v1/chat/completions", "sk-1", b"[]", 400, None),
        ("POST /v1/chat/completions", "sk-1", b'{"simulate":{"pase":1}}', 400, "invalid_script"),
    ],
)
def test_a_wrong_request_gets_the_real_status(
    provider: SimulatedProvider, *, request_line: str, key: str | None, content: bytes, status: int, code: str | None
) -> None:
    method, path = request_line.split()
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    response = httpx.request(method, f"http://127.0.0.1:{provider.port}{path}", headers=headers, content=content)

    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert provider.requests()[0].status == status


def test_a_stream_has_the_exact_bytes_of_the_real_api(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(chunks=['a"\n', "é"]))
    body = {"model": "gpt-4o", "messages": ASK, "stream": True, "stream_options": {"include_usage": True}}
    headers = {"authorization": "Bearer sk-secret"}

    response = httpx.post(f"{provider.base_url}/chat/completions", json=body, headers=headers)

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    chunks = [msgspec.json.decode(event.removeprefix("data: ")) for event in events]
    assert len({(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks}) == 1
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:-1]] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": 'a"\n'},
        {"content": "é"},
        {},
    ]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 4
    assert chunks[-1]["choices"] == []
    assert "sk-secret" not in str(provider.requests())


def test_the_official_client_reads_log_probabilities(provider: SimulatedProvider, client: Any) -> None:
    scripted = [ScriptedLogprob("Hel", -0.5, {"Hel": -0.5, "Hey": -2.0})]
    provider.enqueue(Script(chunks=["Hel", "lo"], logprobs=scripted), Script(refusal="No."))

    pieces = [chunk.choices[0].logprobs for chunk in stream(client, logprobs=True, top_logprobs=1) if chunk.choices]
    tokens = [token for piece in pieces if piece is not None for token in piece.content]
    assert [(token.token, len(token.top_logprobs)) for token in tokens] == [("Hel", 1), ("lo", 1)]
    assert (tokens[0].logprob, tokens[0].bytes) == (-0.5, [72, 101, 108])
    assert tokens[1].logprob <= 0
    whole = client.chat.completions.create(model="gpt-4o", messages=ASK, logprobs=True).choices[0].logprobs
    assert whole.content is None
    assert [token.token for token in whole.refusal] == ["No."]
