"""The simulated Messages API: the official client reads its answers, and it is as strict as the real API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from headrace.testing import Script, ScriptedToolCall, SimulatedProvider
from headrace.testing.anthropic.rules import refusal_of
from headrace.testing.anthropic.turns import signature_of, thought_mark
from tests.cases import each
from tests.testing.sdks import Sdk

anthropic = Sdk("anthropic")

JSON = dict[str, Any]

NEW, OLD = "2026-10-21", "2023-06-01"
ASK = [{"role": "user", "content": "hi"}]
WEATHER = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"location": {"type": "string"}}},
}


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
    host, key = provider.environment["ANTHROPIC_BASE_URL"], provider.environment["ANTHROPIC_API_KEY"]
    with anthropic.Anthropic(base_url=host, api_key=key, max_retries=0) as client:
        yield client


def fields(**more: Any) -> JSON:
    return {"model": "claude-sonnet-5", "max_tokens": 4000, "messages": ASK} | more


def stream(client: Any, **more: Any) -> Any:
    with client.messages.stream(**fields(**more)) as events:
        return events.get_final_message()


def test_a_scripted_text_is_streamed_in_words(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(text="Hello big  world.\nBye "))

    with client.messages.stream(**fields()) as events:
        texts = list(events.text_stream)
        message = events.get_final_message()

    assert "".join(texts) == message.content[0].text == "Hello big  world.\nBye "
    assert len(texts) > 3
    assert (message.stop_reason, message.model) == ("end_turn", "claude-sonnet-5")
    assert message.usage.output_tokens == len(texts)
    record = provider.requests()[0]
    assert (record.sent_text, record.model, record.outcome) == (message.content[0].text, "claude-sonnet-5", "complete")
    assert record.chunks_sent == len(texts)


def test_reasoning_is_a_signed_thinking_block(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(reasoning="Let me think.", text="Yes."))
    thinking, text = stream(client).content
    assert (thinking.thinking, thinking.signature) == ("Let me think.", signature_of("Let me think."))
    assert text.text == "Yes."

    provider.enqueue(Script(reasoning="Let me think.", text="Yes."))
    omitted = stream(client, thinking={"type": "adaptive", "display": "omitted"}).content[0]
    assert (omitted.thinking, omitted.signature) == ("", signature_of(""))


def test_tool_inputs_are_streamed_in_fragments(provider: SimulatedProvider, client: Any) -> None:
    calls = [ScriptedToolCall("f", {"city": "Paris, France"}), ScriptedToolCall("g", id="x"), ScriptedToolCall("h", "")]
    provider.enqueue(Script(text="So:", tool_calls=calls))

    message = stream(client)

    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use", "tool_use"]
    assert [block.input for block in message.content[1:]] == [{"city": "Paris, France"}, {}, {}]
    assert message.content[2].id == "x"
    assert message.stop_reason == "tool_use"


def test_a_question_about_the_weather_takes_two_turns(client: Any) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the WEATHER?"}]
    first = client.messages.create(**fields(messages=messages, tools=[WEATHER]))
    assert (first.stop_reason, first.content[0].input) == ("tool_use", {"location": "Tokyo"})

    messages.append({"role": "assistant", "content": first.content})
    result = {"type": "tool_result", "tool_use_id": first.content[0].id, "content": "22 C"}
    messages.append({"role": "user", "content": [result]})

    assert "22 C" in stream(client, messages=messages, tools=[WEATHER]).content[0].text


def test_thinking_must_be_sent_back_unchanged(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(reasoning="Hm. Oh.", tool_calls=[ScriptedToolCall("f")]))
    thinking, call = [block.model_dump(exclude_none=True) for block in stream(client).content]
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "x"}]}

    def send_back(*blocks: JSON, **more: Any) -> Any:
        return stream(client, messages=[*ASK, {"role": "assistant", "content": list(blocks)}, result], **more)

    assert send_back(thinking, call).stop_reason == "end_turn"
    assert send_back(call, thinking={"type": "disabled"}).stop_reason == "end_turn"
    for blocks in ([thinking | {"thinking": "Hm. Oh!"}, call], [thinking | {"signature": "x"}, call]):
        with pytest.raises(anthropic.BadRequestError, match="Invalid `signature` in `thinking` block"):
            send_back(*blocks)
    with pytest.raises(anthropic.BadRequestError, match="Expected `thinking`"):
        send_back(call)


def test_a_refusal_has_an_explanation(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(refusal="I will not."))

    message = stream(client)

    assert (message.content, message.stop_reason) == ([], "refusal")
    assert message.stop_details.explanation == "I will not."


def test_a_story_is_long_unless_the_tokens_are_limited(client: Any) -> None:
    story = [{"role": "user", "content": [{"type": "text", "text": "Write a story"}]}]

    assert len(stream(client, messages=story).content[0].text) > 900
    assert stream(client, messages=story, max_tokens=5).stop_reason == "max_tokens"


def test_a_whole_answer_is_a_message(provider: SimulatedProvider, client: Any) -> None:
    script = Script(reasoning="why", text="One piece.", usage={"input_tokens": 1, "output_tokens": 2})
    provider.enqueue(script, script)

    message = client.messages.create(**fields())

    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0] == stream(client).content[0]
    assert message.usage.output_tokens == 2
    assert provider.requests()[0].sent_text == "One piece."


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (401, "AuthenticationError", "authentication_error"),
        (404, "NotFoundError", "not_found_error"),
        (429, "RateLimitError", "rate_limit_error"),
        (500, "InternalServerError", "api_error"),
        (529, "OverloadedError", "overloaded_error"),
    ],
)
def test_scripted_errors_raise_what_the_real_api_raises(
    provider: SimulatedProvider, client: Any, status: int, error: str, kind: str
) -> None:
    provider.enqueue(Script(status=status, headers={"retry-after": "7"}, error_code="some_code"))

    with pytest.raises(getattr(anthropic, error, anthropic.APIStatusError)) as caught:
        stream(client)

    assert caught.value.type == kind
    assert caught.value.body["error"]["details"] == {"error_code": "some_code"}
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.request_id.startswith("req_")


def test_an_error_inside_the_stream_raises(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(repeat=9, error_after=3), Script(repeat=9, error_after=0, error_code="rate_limit_error"))

    for kind in ("overloaded_error", "rate_limit_error"):
        with pytest.raises(anthropic.APIStatusError) as caught:
            stream(client)
        assert caught.value.type == kind

    assert provider.requests()[0].outcome == "failed"
    assert provider.requests()[0].sent_text == "0 1 2 "


def raw(provider: SimulatedProvider, script: Script, **more: Any) -> str:
    provider.enqueue(script)
    headers = {"x-api-key": "sk-secret", "anthropic-version": NEW}
    url = provider.environment["ANTHROPIC_BASE_URL"] + "/v1/messages"
    return httpx.post(url, json=fields(stream=True, **more), headers=headers).text


def test_a_stream_has_the_exact_bytes_of_the_real_api(provider: SimulatedProvider) -> None:
    usage = {"input_tokens": 3, "output_tokens": 9}
    text = raw(provider, Script(reasoning="w", chunks=['a"\n', "é"], usage=usage))

    *events, end = text.split("\n\n")
    assert end == ""
    assert [event.partition("\n")[0] for event in events] == [
        "event: message_start",
        "event: ping",
        "event: content_block_start",
        "event: content_block_delta",
        "event: content_block_delta",
        "event: content_block_stop",
        "event: content_block_start",
        "event: content_block_delta",
        "event: content_block_delta",
        "event: content_block_stop",
        "event: message_delta",
        "event: message_stop",
    ]
    assert events[3].endswith('"index":0,"delta":{"type":"thinking_delta","thinking":"w"}}')
    assert events[4].endswith('"delta":{"type":"signature_delta","signature":"' + signature_of("w") + '"}}')
    assert events[8].endswith('"index":1,"delta":{"type":"text_delta","text":"é"}}')
    assert events[10].endswith('"usage":{"input_tokens":3,"output_tokens":9}}')
    assert "sk-secret" not in str(provider.requests())


def test_a_script_can_leave_things_out_and_add_padding(provider: SimulatedProvider) -> None:
    assert '"usage"' not in raw(provider, Script(text="a", omit_usage=True))
    assert "message_stop" not in raw(provider, Script(text="a", omit_done=True))
    assert '"text":"a"}               }' in raw(provider, Script(text="a", obfuscation=True))
    ended = raw(provider, Script(repeat=9, end_after=2))
    assert ('"text":"1 "' in ended, '"text":"2 "' in ended, "message_delta" in ended) == (True, False, False)
    assert provider.requests()[-1].chunks_sent == 2


def says(*content: JSON) -> JSON:
    return {"role": "assistant", "content": list(content)}


def result(call_id: str, **more: Any) -> JSON:
    return {"type": "tool_result", "tool_use_id": call_id, "content": "x"} | more


def user(*content: JSON) -> JSON:
    return {"role": "user", "content": list(content)}


def tool(**more: Any) -> JSON:
    return {"tools": [{"name": "f", "input_schema": {"type": "object"}} | more]}


TEXT = {"type": "text", "text": "x"}
CALL = {"type": "tool_use", "id": "c1", "name": "f", "input": {}}
THOUGHT_ID = f"toolu_{thought_mark(signature_of('why'))}{'0' * 12}"
THOUGHT = {"type": "thinking", "thinking": "why", "signature": signature_of("why")}
BUDGET = {"type": "enabled", "budget_tokens": 2000}

REFUSED: list[tuple[JSON, str]] = [
    ({"model": None}, "model: Field required"),
    ({"max_tokens": None}, "max_tokens: Field required"),
    ({"max_tokens": 0}, "greater than or equal to 1"),
    ({"max_tokens": 1.5}, "valid integer"),
    ({"max_tokens": 128_001}, "128001 > 128000"),
    ({"model": "claude-3-opus-20240229", "max_tokens": 5000}, "5000 > 4096"),
    ({"messages": []}, "at least one message"),
    ({"max_completion_tokens": 5}, "max_completion_tokens: Extra inputs are not permitted"),
    ({"temperature": 1}, "temperature: Extra inputs are not permitted"),
    ({"top_k": 1}, "top_k: Extra inputs are not permitted"),
    ({"stream": "yes"}, "stream: Input should be a valid boolean"),
    ({"stop_sequences": [" "]}, "non-whitespace"),
    ({"system": [{"type": "text", "text": ""}]}, "non-whitespace"),
    ({"messages": [says(TEXT)]}, "first message must use"),
    ({"messages": [{"role": "system", "content": "x"}]}, 'Unexpected role "system"'),
    ({"messages": [{"role": "user", "content": ""}]}, "non-empty"),
    ({"messages": [user(TEXT | {"text": "\n"})]}, "non-whitespace"),
    ({"messages": [user(CALL)]}, "Input tag 'tool_use'"),
    ({"messages": [user(TEXT | {"name": "n"})]}, "messages.0.content.0.text.name: Extra inputs"),
    ({"messages": [user({"type": "image", "source": {"type": "png"}})]}, "Input tag 'png'"),
    ({"messages": [user(result("c1"))]}, "unexpected `tool_use_id`"),
    ({"messages": [*ASK, says(CALL)]}, "without `tool_result` blocks"),
    ({"messages": [*ASK, says(CALL), *ASK]}, "without `tool_result` blocks"),
    ({"messages": [*ASK, says(CALL), user(TEXT, result("c1"))]}, "without `tool_result` blocks"),
    ({"messages": [*ASK, says(CALL), user(result("c2"))]}, "unexpected `tool_use_id`"),
    ({"messages": [*ASK, says(CALL), user(result("c1"), result("c1"))]}, "each tool_use must have a single result"),
    ({"messages": [*ASK, says(CALL, CALL), user(result("c1"))]}, "unique"),
    ({"messages": [*ASK, says(CALL | {"id": "a.b"})]}, "should match pattern"),
    ({"messages": [*ASK, says(CALL | {"input": "{}"})]}, "valid dictionary"),
    ({"messages": [*ASK, says(THOUGHT | {"signature": ""}), *ASK]}, "Invalid `signature`"),
    ({"messages": [*ASK, says({"type": "thinking", "thinking": "why"}), *ASK]}, "signature: Field required"),
    ({"messages": [*ASK, says(THOUGHT), *ASK]}, "final block"),
    ({"messages": [*ASK, says(CALL | {"id": THOUGHT_ID}), user(result(THOUGHT_ID))]}, "Expected `thinking`"),
    ({"messages": [*ASK, says(TEXT)]}, "does not support assistant message prefill"),
    ({"tools": [{"name": "f"}]}, "input_schema: Field required"),
    ({"tools": [{"type": "function", "function": {}}]}, "name: Field required"),
    (tool(parameters={}), "parameters: Extra inputs"),
    (tool(name="get weather"), "should match pattern"),
    (tool(input_schema={}), "input_schema.type"),
    ({"tool_choice": {"type": "auto"}}, "only be specified while providing tools"),
    (tool() | {"tool_choice": {"type": "required"}}, "Input tag 'required'"),
    (tool() | {"tool_choice": {"type": "tool", "name": "g"}}, "'g' not found"),
    (tool() | {"tool_choice": {"type": "any"}, "thinking": {"type": "adaptive"}}, "forces tool use"),
    ({"thinking": BUDGET}, "not supported for this model"),
    ({"model": "claude-haiku-4-5", "thinking": {"type": "adaptive"}}, "not supported for this model"),
    ({"model": "claude-haiku-4-5", "thinking": BUDGET, "max_tokens": 2000}, "must be greater than"),
    ({"model": "claude-haiku-4-5", "thinking": BUDGET | {"budget_tokens": 9}}, "greater than or equal to 1024"),
    ({"output_config": {"effort": "minimal"}}, "output_config.effort"),
    ({"output_config": {"format": {"type": "json_schema", "json_schema": {}}}}, "schema: Field required"),
    ({"model": "no-such-model"}, "model: no-such-model"),
    ({"seed": 7}, "seed: Extra inputs are not permitted"),
    ({"service_tier": "flex"}, "'auto' or 'standard_only'"),
    ({"metadata": {"team": "a"}}, "metadata.team: Extra inputs are not permitted"),
    ({"metadata": {"user_id": 5}}, "metadata.user_id: Input should be a valid string"),
    ({"metadata": {"user_id": "a" * 257}}, "at most 256 characters"),
    (
        {"tools": [WEATHER], "tool_choice": {"type": "none", "disable_parallel_tool_use": True}},
        "disable_parallel_tool_use: Extra inputs",
    ),
    (
        {"tools": [WEATHER], "tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}},
        "disable_parallel_tool_use: Input should be a valid boolean",
    ),
]


@each(("more", "words"), REFUSED)
def test_a_request_that_the_real_api_refuses_is_refused(more: JSON, words: str) -> None:
    refusal = refusal_of(fields(**more), NEW)

    assert refusal is not None
    assert words in refusal.message


@pytest.mark.parametrize(
    ("model", "more", "words"),
    [
        ("claude-opus-4-7", {"temperature": 1.0}, "`temperature` is deprecated for this model."),
        ("claude-haiku-4-5", {"temperature": 1.5}, "temperature: range"),
        ("claude-haiku-4-5", {"temperature": 0.5, "thinking": BUDGET}, "only be set to 1"),
        ("claude-haiku-4-5", {"top_k": 5, "thinking": BUDGET}, "`top_k` must be unset"),
    ],
)
def test_sampling_is_refused_as_in_the_old_version(model: str, more: JSON, words: str) -> None:
    refusal = refusal_of(fields(model=model, **more), OLD)
    assert refusal is not None
    assert words in refusal.message


@pytest.mark.parametrize("version", [None, "2024-01-01"])
def test_the_version_is_required_and_known(version: str | None) -> None:
    refusal = refusal_of(fields(), version)
    assert refusal is not None
    assert "anthropic-version" in refusal.message


CLOSED: JSON = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
ACCEPTED: list[tuple[str, JSON]] = [
    (NEW, {"system": "s", "stop_sequences": ["x"], "metadata": {"user_id": "u"}, "stream": True}),
    (NEW, tool(strict=True, input_schema=CLOSED) | {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}}),
    (NEW, {"messages": [*ASK, says(CALL), user(result("c1", is_error=True), TEXT), *ASK, says(TEXT), *ASK]}),
    (NEW, {"messages": [*ASK, says(THOUGHT, CALL | {"id": THOUGHT_ID}), user(result(THOUGHT_ID, content=[TEXT]))]}),
    (NEW, {"messages": [user({"type": "image", "source": {"type": "url", "url": "https://x/y.png"}})]}),
    (NEW, {"messages": [*ASK, says({"type": "redacted_thinking", "data": "E"}, TEXT), *ASK]}),
    (NEW, {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "xhigh"}}),
    (NEW, {"output_config": {"format": {"type": "json_schema", "schema": CLOSED}}}),
    (NEW, {"tools": [{"type": "web_search_20260209", "name": "web_search", "max_uses": 1}]}),
    (OLD, {"model": "claude-haiku-4-5", "temperature": 0.5, "top_p": 1, "top_k": 5}),
    (OLD, {"model": "claude-opus-4-20250514", "thinking": BUDGET, "temperature": 1, "max_tokens": 32_000}),
    (OLD, {"model": "claude-sonnet-4-5", "messages": [*ASK, says(TEXT)]}),
]


@pytest.mark.parametrize(("version", "more"), ACCEPTED)
def test_a_request_that_the_real_api_accepts_is_accepted(version: str, more: JSON) -> None:
    assert refusal_of(fields(**more), version) is None


@pytest.mark.parametrize(
    ("request_line", "headers", "content", "status", "kind"),
    [
        ("POST /v1/messages", {}, b"{}", 401, "authentication_error"),
        ("POST /v1/messages", {"x-api-key": "sk-invalid-1"}, b"{}", 401, "authentication_error"),
        ("POST /v1/messages", {"authorization": "Basic sk-1"}, b"{}", 401, "authentication_error"),
        ("GET /v1/messages", {"x-api-key": "sk-1"}, b"", 405, "invalid_request_error"),
        ("POST /v1/messages", {"x-api-key": "sk-1"}, b"{", 400, "invalid_request_error"),
        ("POST /v1/messages", {"x-api-key": "sk-1"}, b"[]", 400, "invalid_request_error"),
        ("POST /v1/messages", {"x-api-key": "sk-1"}, b'{"simulate":{"pase":1}}', 400, "invalid_request_error"),
    ],
)
def test_a_wrong_request_gets_the_real_status(
    provider: SimulatedProvider, *, request_line: str, headers: dict[str, str], content: bytes, status: int, kind: str
) -> None:
    method, path = request_line.split()
    response = httpx.request(method, f"http://127.0.0.1:{provider.port}{path}", headers=headers, content=content)

    assert response.status_code == status
    assert (response.json()["type"], response.json()["error"]["type"]) == ("error", kind)
    assert response.headers["request-id"].startswith("req_")
    assert provider.requests()[0].status == status
