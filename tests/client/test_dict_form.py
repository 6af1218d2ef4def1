"""Messages, parts, tools and results as plain dicts: they survive JSON, files, pickles, msgspec and pydantic unchanged."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import enum
import json
import pickle
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace
from headrace import (
    AudioPart,
    FilePart,
    FlushCounts,
    ImagePart,
    IncompleteToolCall,
    InvalidRequestError,
    Message,
    MessageDict,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RunEmbeddingResult,
    RunLocalResult,
    StreamResult,
    TextDelta,
    TextPart,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallPart,
    TopLogprob,
    Usage,
    UsageUpdate,
)
from headrace.dict_form import DictForm
from tests.cases import each

SPAN, TRACE = "sp_0123456789abcdef", "tr_0123456789abcdef"
SIGNATURE = "EqQBCgIYAhIkMDAx/+=="
ANSWER = Message(
    "assistant",
    [
        ReasoningPart("Hm.", {"signature": SIGNATURE, "type": "thinking"}),
        TextPart("Ça va 😀", extra={"cache_control": {"type": "ephemeral"}}),
        ToolCallPart("call_1", "get_weather", {"place": "東京", "to": 0.1, "id": 2**63, "deep": [{"a": None}]}),
    ],
)
FACTS: dict[str, Any] = {
    "text": "Ça va 😀",
    "span_id": SPAN,
    "trace_id": TRACE,
    "latency_ms": 12.25,
    "usage": Usage(3, 4, 7, source="provider", server_tool_requests={"web_search_requests": 1}),
    "cost": None,
    "provider": "anthropic",
    "model": "claude-sonnet-5",
    "tool_calls": [ToolCall("call_1", "get_weather", {"place": "東京"})],
    "incomplete_tool_calls": [IncompleteToolCall("call_2", "get_weather", '{"pla')],
    "finish_reason": "tool_calls",
    "provider_finish_reason": "tool_use",
    "message": ANSWER,
    "reasoning": "Hm.",
    "refusal": None,
    "attempts": 1,
}
VECTORS = RunEmbeddingResult(
    embeddings=[[0.1, -2.0], [1e-300, 3.0]],
    **{name: FACTS[name] for name in ("span_id", "trace_id", "latency_ms", "usage", "provider", "model")},
    cost=0.5,
    attempts=2,
)
STATUS = headrace.EngineStatus(
    address="embedded",
    is_running=True,
    reason="",
    workers=[headrace.WorkerState(name="w-1", pid=7, state="ready", runs=2, last_seen=0.5)],
    processes=[headrace.ProcessState(name="broker", pid=None, state="ended", restarts=1, last_end="exit code 1")],
    waiting_for={"limit": 3},
    pools=[
        headrace.PoolState(
            provider="openai",
            model="gpt-4o",
            key="",
            limits=[headrace.LimitState(kind="requests", limit=600, left=12, source="both")],
            running=3,
            waiting=3,
            blocked_for=1.5,
            concurrency=None,
            breaker="closed",
            rate_limited=1,
            retries=2,
            admitted=500,
            out_of_rotation="",
        )
    ],
    spending=[headrace.SpendingState(name="team", spent=0.5, max_cost=10.0)],
    budget="ok",
    spans=headrace.SpanState(
        directory="/tmp/spans",
        state="ok",
        stored=3,
        waiting=0,
        recovered=0,
        untraced=0,
        dropped={"full": 1},
        error="",
        age=0.25,
        sinks=[headrace.SinkState(name="audit", state="ok", delivered=3, pending=0, failed=0, set_aside=0, error="")],
    ),
)
VALUES: list[DictForm] = [
    *ANSWER.content,
    ImagePart("https://x.test/a.png"),
    ImagePart(file_id="file_1", provider_data={"api": "google", "thoughtSignature": SIGNATURE}),
    AudioPart("aGk=", "audio/wav", transcript="Hi", provider_data={"api": "openai-chat", "audio": {"id": "a"}}),
    FilePart("a.pdf", "application/pdf", "aGk=", extra={"citations": {"enabled": True}}),
    FilePart("a.csv", "text/csv", text="a,b"),
    FilePart(url="https://x.test/a.pdf"),
    ANSWER,
    Message("user", ""),
    Message("tool", "sunny", "call_1", "get_weather"),
    Message("user", [ImagePart(data="aGk=", media_type="image/png", extra={"detail": "low"})], extra={"name": "Ann"}),
    Tool("get_weather", "Says it.", {"type": "object", "properties": {}}, strict=True),
    Tool("", type="web_search_20250305", extra={"max_uses": 2}),
    *FACTS["tool_calls"],
    *FACTS["incomplete_tool_calls"],
    FACTS["usage"],
    RunLocalResult(**FACTS),
    StreamResult(**FACTS, aborted=True),
    VECTORS,
    headrace.FailedAttempt(number=2, provider="openai", model="gpt-4o", error="RateLimitError", reason="slow down"),
    FlushCounts(1, 2, 3),
    headrace.RunToolsResult(
        **FACTS, messages=[Message("user", "Hi"), ANSWER], turns=[RunLocalResult(**FACTS)], stopped=None
    ),
    STATUS,
    *STATUS.workers,
    *STATUS.processes,
    *STATUS.pools,
    *STATUS.pools[0].limits,
    *STATUS.spending,
    *([STATUS.spans, *STATUS.spans.sinks] if STATUS.spans else []),
    TopLogprob("é", -0.5, [195, 169]),
    TokenLogprob("é", -0.5, [195, 169], [TopLogprob("é", -0.5, [195, 169]), TopLogprob("e", -1.5)]),
    RunLocalResult(**FACTS, logprobs=[TokenLogprob("a", -1.0, None, [TopLogprob("a", -1.0)]), TokenLogprob("b", 0.0)]),
]
EVENTS = [TextDelta("a"), ReasoningDelta("b"), RefusalDelta("c"), ToolCallDelta(0, "d"), UsageUpdate(Usage(1))]


@each("value", VALUES)
def test_a_value_survives_json_in_ascii_and_in_utf_8(value: DictForm) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value.to_dict(), ensure_ascii=ascii_only, allow_nan=False)

        assert type(value).from_dict(json.loads(text)) == value


def test_every_type_with_a_dict_form_is_tried_here() -> None:
    kinds = {kind for name in headrace.__all__ if isinstance(kind := getattr(headrace, name), type)}

    assert {kind for kind in kinds if issubclass(kind, DictForm)} == {type(value) for value in VALUES}


@each("value", [*VALUES, *EVENTS])
def test_a_value_survives_pickles_and_copies(value: object) -> None:
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.copy(value) == value
    assert copy.deepcopy(value) == value


def test_a_dict_is_a_copy() -> None:
    given = ANSWER.to_dict()
    given["content"][2]["arguments"]["deep"].append(1)

    assert ANSWER.tool_calls[0].arguments["deep"] == [{"a": None}]


def test_a_messages_dict_has_what_is_set_and_always_its_content() -> None:
    assert Message("user", "Hi").to_dict() == {"role": "user", "content": "Hi"}
    assert Message("assistant").to_dict() == {"role": "assistant", "content": ""}
    assert ImagePart("https://x.test/a.png").to_dict() == {"type": "image", "url": "https://x.test/a.png"}


def test_a_results_dict_has_all_fields() -> None:
    given = RunLocalResult(**FACTS).to_dict()

    assert list(given) == list(RunLocalResult.__struct_fields__)
    assert given["usage"]["cached_input_tokens"] == 0
    assert given["cost"] is None


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=4), st.text())
def test_provider_data_and_arguments_survive_unchanged(data: dict[str, Any], text: str) -> None:
    message = Message("assistant", [ReasoningPart(text, data), ToolCallPart("c", "f", data)])
    read = Message.from_dict(json.loads(json.dumps(message.to_dict())))

    assert read == message
    assert repr(read) == repr(message)  # 1 and 1.0 and True are equal, but not the same


def test_a_lone_surrogate_is_written_as_json_can_and_refused_by_name_when_read() -> None:
    text = json.dumps(Message("user", "\ud800").to_dict())

    assert "\\ud800" in text
    with pytest.raises(InvalidRequestError, match=r"message\.content: holds a lone surrogate"):
        Message.from_dict(json.loads(text))


@each(
    ("given", "content"),
    [
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://u", "detail": "low"}}]},
            None,
        ),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "a", "name": "f", "arguments": {}}]}, None),
        ({"role": "assistant", "tool_calls": [ToolCall("a", "f", {})]}, None),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
            [{"type": "tool_call", "id": "a", "name": "f", "arguments": {}}],
        ),
    ],
)
def test_from_dict_takes_what_messages_takes(given: dict[str, Any], content: list[Any] | None) -> None:
    message = Message.from_dict(given)

    assert Message.from_dict(message.to_dict()) == message
    assert content is None or message.to_dict()["content"] == content


@each(
    ("kind", "given", "place"),
    [
        (Message, "Hello", "message"),
        (Message, {"role": "robot", "content": ""}, "message.role"),
        (Message, {"role": "user"}, "message.content"),
        (Message, {"role": "user", "content": [{"type": "text", "text": 1}]}, "message.content[0].text"),
        (
            Message,
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]},
            "message.tool_calls[0].function.arguments",
        ),
        (TextPart, {"type": "image", "url": "https://u"}, "text_part.type"),
        (Tool, {"description": "no name"}, "tool"),
        (Usage, {"input_tokens": "3"}, "usage.input_tokens"),
        (
            RunLocalResult,
            {**RunLocalResult(**FACTS).to_dict(), "usage": {"source": 1}},
            "run_local_result.usage.source",
        ),
        (ToolCall, {"id": "a", "name": "f"}, "tool_call"),
    ],
)
def test_a_dict_that_does_not_fit_is_refused_with_its_place(kind: type[DictForm], given: Any, place: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        kind.from_dict(given)

    assert caught.value.argument == place


def test_values_that_json_has_another_word_for_are_written_with_it() -> None:
    class Colour(enum.Enum):
        RED = "red"

    day = datetime.date(2026, 11, 29)
    arguments = {"day": day, "colour": Colour.RED, "tags": ("a",), "sizes": {1}}

    assert ToolCall("c", "f", arguments).to_dict()["arguments"] == {
        "day": "2026-11-29",
        "colour": "red",
        "tags": ["a"],
        "sizes": [1],
    }


def test_a_value_without_a_form_in_json_is_an_error_that_names_its_place() -> None:
    with pytest.raises(TypeError, match=r"arguments\.on\[0\]: a object has no form in JSON"):
        ToolCall("c", "f", {"on": [object()]}).to_dict()


class Invoice(pydantic.BaseModel):
    total: float
    day: datetime.date


@dataclasses.dataclass
class Line:
    day: datetime.date
    invoice: Invoice


def test_the_object_of_a_response_type_is_written_as_json_and_survives_pickles() -> None:
    day = datetime.date(2026, 11, 29)
    for parsed, written in [
        (Invoice(total=1.5, day=day), {"total": 1.5, "day": "2026-11-29"}),
        (Line(day, Invoice(total=2, day=day)), {"day": "2026-11-29", "invoice": {"total": 2.0, "day": "2026-11-29"}}),
        ([Line(day, Invoice(total=2, day=day))] * 0, []),
        ({"day": day}, {"day": "2026-11-29"}),
    ]:
        result = StreamResult[Any](**FACTS, parsed=parsed, aborted=False)

        assert json.loads(json.dumps(result.to_dict()))["parsed"] == written
        assert pickle.loads(pickle.dumps(result)) == result
        assert copy.deepcopy(result) == result


def test_from_dict_returns_an_instance_as_it_is() -> None:
    history: list[Any] = [{"role": "user", "content": "Hi"}, ANSWER]

    assert [Message.from_dict(item) for item in history] == [Message("user", "Hi"), ANSWER]


# In other libraries


def test_msgspec_reads_a_history() -> None:
    history = [Message("user", "Hi"), ANSWER]
    text = json.dumps([message.to_dict() for message in history])

    assert msgspec.json.decode(text, type=list[Message]) == history
    assert msgspec.json.decode(msgspec.json.encode(history)) == [msgspec.to_builtins(message) for message in history]


class Chat(pydantic.BaseModel):
    messages: list[Message]
    message: headrace.Message | None = None
    result: RunLocalResult | None = None
    usage: Usage = Usage()


def test_a_pydantic_model_holds_messages_and_results() -> None:
    chat = Chat(
        messages=[ANSWER, {"role": "user", "content": "Hi"}],  # type: ignore[list-item]
        message=ANSWER,
        result=RunLocalResult(**FACTS),
    )

    assert chat.messages == [ANSWER, Message("user", "Hi")]
    assert chat.message is ANSWER
    assert Chat.model_validate_json(chat.model_dump_json()) == chat
    assert Chat.model_validate(chat.model_dump()) == chat
    assert chat.model_dump()["messages"][1] == {"role": "user", "content": "Hi"}


class GenericChat(pydantic.BaseModel):
    result: RunLocalResult[Invoice]
    dicts: list[MessageDict] = []


def test_a_pydantic_model_holds_generic_results_and_dicts_of_messages() -> None:
    parsed = Invoice(total=1, day=datetime.date(2026, 11, 29))
    dicts: list[MessageDict] = [{"role": "user", "content": [TextPart("a"), {"type": "text", "text": "b"}]}]
    chat = GenericChat(result=RunLocalResult[Invoice](**FACTS, parsed=parsed), dicts=dicts)

    assert chat.result.parsed.total == 1.0
    assert chat.model_dump()["result"]["parsed"] == {"total": 1.0, "day": "2026-11-29"}
    assert chat.model_dump()["dicts"][0]["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_pydantic_says_where_a_message_is_wrong() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"messages\.0\n.*message\.content: is missing"):
        Chat(messages=[{"role": "user"}])  # type: ignore[list-item]


@each("mode", ["validation", "serialization"])
def test_the_json_schema_of_a_pydantic_model_describes_messages(mode: Any) -> None:
    import jsonschema

    schema = Chat.model_json_schema(mode=mode)
    chat = Chat(messages=[ANSWER], message=ANSWER, result=RunLocalResult(**FACTS))

    jsonschema.validate(chat.model_dump(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"messages": [{"role": "robot"}]}, schema)


def test_a_value_is_shown_without_what_it_does_not_say() -> None:
    assert repr(Message("user", "Hello")) == "Message(role='user', content='Hello')"
    assert repr(Usage(input_tokens=3)) == "Usage(input_tokens=3)"
