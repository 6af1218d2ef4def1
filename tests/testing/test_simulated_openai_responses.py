"""The simulated Responses API: the official client reads its answers, and it is as strict as the real API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from headrace.testing import Script, ScriptedToolCall, SimulatedProvider
from headrace.testing.openai_responses.items import call_id, encrypted, item_id, reasoning_id
from headrace.testing.openai_responses.rules import refusal_of
from tests.cases import each
from tests.testing.sdks import Sdk

openai = Sdk("openai")

ASK = {"role": "user", "content": "hi"}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
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
    with openai.OpenAI(base_url=provider.base_url, api_key=provider.api_key, max_retries=0) as client:
        yield client


def stream(client: Any, **fields: Any) -> list[Any]:
    return list(client.responses.create(**{"model": "gpt-5", "input": "hi", "stream": True} | fields))


def joined(events: list[Any], kind: str) -> str:
    return "".join(event.delta for event in events if event.type == f"response.{kind}.delta")


def test_a_scripted_text_is_streamed_in_words(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(text="Hello big  world.\nBye "))

    events = stream(client)

    assert joined(events, "output_text") == "Hello big  world.\nBye "
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == "Hello big  world.\nBye "
    assert events[-1].response.usage.total_tokens > 2
    assert provider.requests()[0].sent_text == "Hello big  world.\nBye "


def test_numbered_chunks_come_in_order(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(repeat=300))

    assert joined(stream(client), "output_text") == "".join(f"{number} " for number in range(300))
    assert provider.requests()[0].chunks_sent == 300


def test_the_official_client_joins_all_items(provider: SimulatedProvider, client: Any) -> None:
    calls = [ScriptedToolCall("f", {"city": "Paris, France"}), ScriptedToolCall("g", "{broken", id="x")]
    provider.enqueue(Script(reasoning="Let me think.", text="Wait.", refusal="No.", tool_calls=calls))

    with client.responses.stream(model="gpt-5", input="hi") as running:
        events = list(running)
        output = running.get_final_response().output

    assert [item.type for item in output] == ["reasoning", "message", "function_call", "function_call"]
    assert joined(events, "reasoning_summary_text") == output[0].summary[0].text == "Let me think."
    assert joined(events, "refusal") == output[1].content[1].refusal == "No."
    assert output[1].content[0].text == "Wait."
    assert joined(events, "function_call_arguments") == '{"city":"Paris, France"}{broken'
    assert [(item.name, item.arguments) for item in output[2:]] == [("f", '{"city":"Paris, France"}'), ("g", "{broken")]
    assert output[3].call_id == "x"


def test_a_question_about_the_weather_takes_two_turns(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(reasoning="They want weather.", tool_calls=[ScriptedToolCall("get_weather")]))
    conversation: list[Any] = [{"role": "user", "content": "What is the WEATHER?"}]
    first = client.responses.create(model="gpt-5", input=conversation, tools=[WEATHER], store=False)
    conversation += [item.model_dump(exclude_none=True) for item in first.output]
    conversation.append({"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "22 C"})

    assert "22 C" in joined(stream(client, input=conversation, tools=[WEATHER]), "output_text")
    with pytest.raises(openai.BadRequestError, match="without its required 'reasoning' item"):
        stream(client, input=[conversation[0], *conversation[2:]], tools=[WEATHER])


def test_a_story_is_long_unless_the_tokens_are_limited(client: Any) -> None:
    assert len(joined(stream(client, input="Write a story"), "output_text")) > 900
    cut = stream(client, input="Write a story", max_output_tokens=16)[-1]
    assert (cut.type, cut.response.incomplete_details.reason) == ("response.incomplete", "max_output_tokens")


def test_a_whole_answer_is_a_response(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(text="One piece.", usage={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}))

    response = client.responses.create(model="gpt-5", input="hi")

    assert (response.output_text, response.status, response.usage.total_tokens) == ("One piece.", "completed", 3)
    assert provider.requests()[0].sent_text == "One piece."


def test_a_scripted_finish_reason_leaves_the_response_incomplete(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(text="So", finish_reason="content_filter"))
    assert stream(client)[-1].response.incomplete_details.reason == "content_filter"


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, "AuthenticationError"), (404, "NotFoundError"), (429, "RateLimitError"), (503, "InternalServerError")],
)
def test_scripted_errors_raise_what_the_real_api_raises(
    provider: SimulatedProvider, client: Any, status: int, error: str
) -> None:
    provider.enqueue(Script(status=status, headers={"retry-after": "7"}, error_code="some_code"))

    with pytest.raises(getattr(openai, error)) as caught:
        stream(client)

    assert caught.value.code == "some_code"
    assert caught.value.response.headers["retry-after"] == "7"


def test_an_error_inside_the_stream_raises(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(repeat=9, error_after=3, error_message="overloaded"))

    with pytest.raises(openai.APIError, match="overloaded"):
        stream(client)

    assert provider.requests()[0].outcome == "failed"
    assert provider.requests()[0].sent_text == "0 1 2 "


def test_a_stream_ends_early_after_so_many_chunks(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(repeat=9, end_after=2), Script(tool_calls=[ScriptedToolCall("f", {"a": 1})], end_after=1))
    body = {"model": "gpt-5", "input": "hi", "stream": True}
    ended, called = (
        httpx.post(f"{provider.base_url}/responses", json=body, headers={"authorization": "Bearer sk-1"}).text
        for _ in range(2)
    )
    assert ended.count("response.output_text.delta\n") == 2
    assert "response.output_item.added" in called
    assert "arguments.delta" not in called


def test_obfuscation_pads_chunks_unless_declined(client: Any) -> None:
    simulate = {"simulate": {"obfuscation": True}}
    padded, plain = (
        [event for event in stream(client, extra_body=simulate, **options) if event.type.endswith("text.delta")]
        for options in ({}, {"stream_options": {"include_obfuscation": False}})
    )
    assert all(event.obfuscation for event in padded)
    assert not any(getattr(event, "obfuscation", None) for event in plain)


THOUGHT = {
    "type": "reasoning",
    "id": reasoning_id("why"),
    "summary": [{"type": "summary_text", "text": "why"}],
    "encrypted_content": encrypted("why"),
}
CALL_ID = call_id("why", "1")
CALL = {
    "type": "function_call",
    "id": item_id("fc", "why", "1"),
    "call_id": CALL_ID,
    "name": "f",
    "arguments": "{}",
    "status": "completed",
}
PLAIN_CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": CALL_ID, "output": "x"}
SAID = {"type": "message", "role": "assistant", "id": item_id("msg", "why", "1"), "content": "x"}


def without(item: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != name}


REFUSED: list[tuple[dict[str, Any], str, str | None]] = [
    ({"model": None}, "'model'", "missing_required_parameter"),
    ({"input": []}, "'input'", "missing_required_parameter"),
    ({"messages": [ASK]}, "moved to 'input'", "unsupported_parameter"),
    ({"stop": ["a"]}, "Unknown parameter: 'stop'", "unknown_parameter"),
    ({"stream": "yes"}, "'stream'", "invalid_type"),
    ({"include": ["reasoning"]}, "'reasoning'", "invalid_value"),
    ({"reasoning": {"effort": "huge"}}, "'huge'", "invalid_value"),
    ({"max_output_tokens": 5}, ">= 16", "integer_below_min_value"),
    ({"stream_options": {"include_obfuscation": False}}, "only allowed when 'stream'", None),
    ({"stream": True, "stream_options": {"include_usage": True}}, "include_usage", "unknown_parameter"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "missing_required_parameter"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name", "missing_required_parameter"),
    ({"tools": [WEATHER | {"parameters": {"type": "string"}}]}, "JSON Schema", "invalid_function_parameters"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "g"}}, "'g' not found", None),
    ({"model": "no-such-model"}, "does not exist", "model_not_found"),
    ({"input": [{"role": "robot", "content": "x"}]}, "'robot'", "invalid_value"),
    ({"input": [{"role": "tool", "content": "x"}]}, "'tool'", "invalid_value"),
    ({"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "'text'", "invalid_value"),
    ({"input": [ASK, {"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]}, "input_text", None),
    ({"input": [ASK | {"tool_name": "f"}]}, "tool_name", "unknown_parameter"),
    ({"input": [ASK, PLAIN_CALL | {"id": "call_1"}]}, "begins with 'fc'", "invalid_value"),
    ({"input": [ASK, PLAIN_CALL | {"arguments": {}}]}, "arguments", "invalid_type"),
    ({"input": [ASK, OUTPUT]}, "No tool call found", None),
    ({"input": [ASK, PLAIN_CALL]}, "No tool output found", None),
    ({"input": [ASK, CALL, OUTPUT]}, "without its required 'reasoning' item", None),
    ({"input": [ASK, without(CALL, "id"), OUTPUT]}, "without its required 'reasoning' item", None),
    ({"input": [ASK, SAID]}, "without its required 'reasoning' item", None),
    ({"input": [ASK, THOUGHT]}, "without its required following item", None),
    ({"input": [ASK, THOUGHT, ASK]}, "without its required following item", None),
    ({"input": [ASK, without(THOUGHT, "encrypted_content"), CALL, OUTPUT]}, "not persisted", None),
    ({"input": [ASK, THOUGHT | {"summary": []}, CALL, OUTPUT]}, "verified", "invalid_encrypted_content"),
    ({"input": [ASK, THOUGHT | {"id": "rs_1"}, CALL, OUTPUT]}, "verified", "invalid_encrypted_content"),
    ({"input": [ASK, THOUGHT | {"encrypted_content": "gAA"}, CALL, OUTPUT]}, "verified", "invalid_encrypted_content"),
    ({"top_logprobs": 21}, "<= 20", "integer_above_max_value"),
    ({"seed": 7}, "Unknown parameter: 'seed'", "unknown_parameter"),
    ({"service_tier": "cheap"}, "'cheap'", "invalid_value"),
    ({"text": {"verbosity": "none"}}, "'none'", "invalid_value"),
    ({"metadata": {"a": 1}}, "'metadata.a'", "invalid_type"),
]


@each(("fields", "words", "code"), REFUSED)
def test_a_request_that_the_real_api_refuses_is_refused(fields: dict[str, Any], words: str, code: str | None) -> None:
    refusal = refusal_of({"model": "gpt-5", "input": [ASK]} | fields)

    assert refusal is not None
    assert words in refusal.message
    assert code is None or refusal.code == code


ACCEPTED: list[dict[str, Any]] = [
    {"store": False, "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low", "summary": "auto"}},
    {"tools": [WEATHER, {"type": "web_search"}], "tool_choice": "required", "max_output_tokens": 16},
    {"input": [ASK, THOUGHT, CALL, OUTPUT, THOUGHT, SAID]},
    {"input": [ASK, PLAIN_CALL, OUTPUT | {"call_id": "c"}, {"role": "assistant", "content": "x"}]},
    {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x/y.png"}]}]},
    {"stream": True, "stream_options": {"include_obfuscation": False}, "text": {"format": {"type": "text"}}},
]


@pytest.mark.parametrize("fields", ACCEPTED)
def test_a_request_that_the_real_api_accepts_is_accepted(fields: dict[str, Any]) -> None:
    assert refusal_of({"model": "gpt-5", "input": [ASK]} | fields) is None


def test_a_stream_has_the_exact_bytes_of_the_real_api(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(chunks=['a"\n', "é"]))
    body = {"model": "gpt-5", "input": "hi", "stream": True}

    response = httpx.post(f"{provider.base_url}/responses", json=body, headers={"authorization": "Bearer sk-1"})

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, end = response.text.split("\n\n")
    assert end == ""
    names, data = zip(*(event.split("\ndata: ") for event in events), strict=True)
    decoded = [msgspec.json.decode(item) for item in data]
    assert [name.removeprefix("event: ") for name in names] == [item["type"] for item in decoded]
    assert [item["type"].removeprefix("response.") for item in decoded] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [item["delta"] for item in decoded if "delta" in item] == ['a"\n', "é"]


def test_embeddings_depend_only_on_their_text(client: Any) -> None:
    def embed(**fields: Any) -> list[list[float]]:
        said = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], **fields)
        return [row.embedding for row in said.data]

    packed, plain = embed(), embed(encoding_format="float")
    assert len(plain[0]) == 64
    assert plain[0] != plain[1]
    assert packed[0] == pytest.approx(plain[0], abs=1e-6)
    assert len(embed(dimensions=8)[0]) == 8
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.embeddings.create(model="m", input=["a", ""])


def test_the_official_client_reads_log_probabilities(provider: SimulatedProvider, client: Any) -> None:
    provider.enqueue(Script(chunks=["Hel", "lo"]))

    events = stream(client, model="gpt-4o", include=["message.output_text.logprobs"], top_logprobs=2)
    deltas = [token for event in events if event.type == "response.output_text.delta" for token in event.logprobs]
    (whole,) = events[-1].response.output[0].content
    assert [token.token for token in deltas] == [token.token for token in whole.logprobs] == ["Hel", "lo"]
    assert [len(token.top_logprobs) for token in whole.logprobs] == [2, 2]
    assert whole.logprobs[0].bytes == [72, 101, 108]
