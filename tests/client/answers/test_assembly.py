"""What is promised of assembling a run: the same result however the stream was cut, and never an invented argument."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.answers.assembly import (
    InvalidArgumentsError,
    ResultFacts,
    aborted_result,
    assemble,
    embedding_result,
    finished_result,
    joined_text,
    parse_tool_calls,
)
from headrace.types import (
    IncompleteToolCall,
    Message,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RunEvent,
    RunLocalResult,
    StreamResult,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallPart,
    Usage,
    UsageUpdate,
)
from headrace.wire.messages import Aborted, Finished, ToolCallText

FACTS = ResultFacts(span_id="sp_1", trace_id="tr_1", provider="p", model="asked", latency_ms=1.5, attempts=1)
USAGE = Usage(3, 4, 7, source="provider")


def finish(**changes: Any) -> Finished:
    facts: dict[str, Any] = {
        "span_id": "sp_1",
        "attempt": 1,
        "sequence": 0,
        "text_length": 0,
        "finish_reason": "stop",
        "provider_finish_reason": "stop",
        "usage": USAGE,
        "tool_calls": [],
        "model": "said",
    }
    return Finished(**facts | changes)


def pieces(data: st.DataObject, text: str) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def interleaved(data: st.DataObject, streams: list[list[RunEvent]]) -> list[RunEvent]:
    """Return the events of all streams in one order of many, each stream's own kept."""
    events: list[RunEvent] = []
    rest = [list(stream) for stream in streams]
    while any(rest):
        stream = data.draw(st.sampled_from([stream for stream in rest if stream]))
        events.append(stream.pop(0))
    return events


@settings(deadline=None)
@given(
    data=st.data(),
    text=st.text(max_size=30),
    reasoning=st.text(max_size=30),
    refusal=st.text(max_size=10),
    calls=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5), st.text(max_size=20)), max_size=3),
)
def test_any_cut_and_any_order_of_a_stream_assembles_to_the_same(
    data: st.DataObject, text: str, reasoning: str, refusal: str, calls: list[tuple[str, str, str]]
) -> None:
    streams: list[list[RunEvent]] = [
        list(pieces(data, text)),
        [ReasoningDelta(piece) for piece in pieces(data, reasoning)],
        [RefusalDelta(piece) for piece in pieces(data, refusal)],
        [UsageUpdate(Usage(1, 1, 2, source="partial")), UsageUpdate(USAGE)],
    ]
    for index, (call_id, name, arguments) in enumerate(calls):
        fragments = [ToolCallDelta(index, arguments=piece) for piece in pieces(data, arguments)]
        streams.append([ToolCallDelta(index, call_id, name), *fragments])

    events = interleaved(data, streams)
    assembled = assemble(events)

    assert assembled.text == text == joined_text(events)
    assert assembled.reasoning == reasoning
    assert assembled.refusal == refusal
    assert assembled.usage == USAGE
    assert assembled.tool_calls == [ToolCallText(*call) for call in calls]


def test_calls_come_in_the_order_of_their_index() -> None:
    events: list[RunEvent] = [ToolCallDelta(1, "b", "two", "{}"), ToolCallDelta(0, "a", "one", "{}")]

    assert [call.id for call in assemble(events).tool_calls] == ["a", "b"]


# Tool calls.

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(arguments=st.dictionaries(st.text(max_size=5), _JSON, max_size=3), is_cut=st.booleans())
def test_arguments_that_are_a_json_object_are_a_complete_call(arguments: dict[str, Any], is_cut: bool) -> None:
    call = ToolCallText("c1", "f", json.dumps(arguments))

    assert parse_tool_calls([call], may_be_cut=is_cut) == ([ToolCall("c1", "f", arguments)], [])


INVALID = ["", "{", '{"a":', "[]", "null", '"x"', "1", "{} {}", "{'a': 1}", '{"a": NaN}', "[" * 100_000, '{"a":' * 5000]


@pytest.mark.parametrize("arguments", INVALID, ids=lambda text: text[:8])
def test_arguments_that_are_none_are_an_error_with_the_raw_text(arguments: str) -> None:
    with pytest.raises(InvalidArgumentsError) as caught:
        finished_result(FACTS, [], finish(tool_calls=[ToolCallText("c1", "f", arguments)]), aborted=False)

    assert (caught.value.name, caught.value.raw) == ("f", arguments)
    assert "'f'" in str(caught.value)


def test_what_a_model_said_to_a_tool_is_not_in_the_words_of_the_error() -> None:
    """An error is logged: a key that a model, or a provider, put into the arguments does not belong there."""
    with pytest.raises(InvalidArgumentsError) as caught:
        parse_tool_calls([ToolCallText("c1", "f", "sk-4f9a0c7712bd")], may_be_cut=False)

    assert str(caught.value) == "the arguments of tool call 'f' are not a JSON object (15 characters)"


@pytest.mark.parametrize("arguments", INVALID, ids=lambda text: text[:8])
def test_arguments_cut_by_max_tokens_are_kept_as_an_incomplete_call(arguments: str) -> None:
    calls = [ToolCallText("c1", "f", '{"a": 1}'), ToolCallText("c2", "g", arguments)]

    result = finished_result(FACTS, [], finish(finish_reason="max_tokens", tool_calls=calls), aborted=False)

    assert result.tool_calls == [ToolCall("c1", "f", {"a": 1})]
    assert result.incomplete_tool_calls == [IncompleteToolCall("c2", "g", arguments)]


@pytest.mark.parametrize("arguments", ["", "{", '{"city": "Par'])
def test_arguments_cut_by_an_abort_are_kept_as_an_incomplete_call(arguments: str) -> None:
    events: list[RunEvent] = ["Let me see", ToolCallDelta(0, "c1", "f", arguments)]

    result = aborted_result(FACTS, events, Aborted("sp_1", 1, 2, USAGE))

    assert result.tool_calls == []
    assert result.incomplete_tool_calls == [IncompleteToolCall("c1", "f", arguments)]
    assert result.message == Message("assistant", "Let me see")


# Results.


def test_a_finished_stream_gives_a_stream_result_that_is_not_aborted() -> None:
    result = finished_result(FACTS, ["Hel", "lo"], finish(), aborted=False)

    assert isinstance(result, StreamResult)
    assert not result.aborted
    assert (result.text, result.finish_reason, result.provider_finish_reason) == ("Hello", "stop", "stop")
    assert (result.usage, result.model, result.provider) == (USAGE, "said", "p")
    assert (result.span_id, result.trace_id, result.latency_ms, result.attempts) == ("sp_1", "tr_1", 1.5, 1)
    assert (result.reasoning, result.refusal, result.cost) == ("", None, None)


def test_a_run_without_streaming_gives_a_plain_result_of_its_message() -> None:
    message = Message("assistant", [ReasoningPart("hm", {"field": "reasoning"}), TextPart("Hello")])

    result = finished_result(FACTS, [], finish(message=message), aborted=None)

    assert type(result) is RunLocalResult
    assert (result.text, result.reasoning) == ("Hello", "hm")
    assert result.message is message


def test_a_model_that_the_provider_does_not_name_is_the_one_that_was_asked() -> None:
    assert finished_result(FACTS, [], finish(model=""), aborted=False).model == "asked"


def test_the_message_is_plain_text_when_there_is_nothing_else() -> None:
    assert finished_result(FACTS, ["Hello"], finish(), aborted=False).message == Message("assistant", "Hello")


def test_the_message_holds_reasoning_text_and_calls_ready_to_be_sent_back() -> None:
    events: list[RunEvent] = [ReasoningDelta("hm"), "Hello"]
    call = ToolCallText("c1", "f", '{"a": 1}')

    result = finished_result(FACTS, events, finish(finish_reason="tool_calls", tool_calls=[call]), aborted=False)

    assert result.message.content == [ReasoningPart("hm"), TextPart("Hello"), ToolCallPart("c1", "f", {"a": 1})]
    assert result.message.text == "Hello"
    assert [part.id for part in result.message.tool_calls] == ["c1"]


def test_a_refusal_is_not_text() -> None:
    result = finished_result(FACTS, [RefusalDelta("I "), RefusalDelta("won't")], finish(), aborted=False)

    assert (result.text, result.refusal) == ("", "I won't")


def test_an_aborted_stream_gives_what_had_arrived() -> None:
    result = aborted_result(FACTS, ["half", ReasoningDelta("hm")], Aborted("sp_1", 1, 2, USAGE))

    assert isinstance(result, StreamResult)
    assert result.aborted
    assert (result.text, result.reasoning, result.finish_reason) == ("half", "hm", None)
    assert result.usage == USAGE


def test_usage_of_an_aborted_stream_is_the_best_that_is_known() -> None:
    seen: list[RunEvent] = [UsageUpdate(Usage(1, 2, 3, source="provider"))]

    assert aborted_result(FACTS, [], None).usage == Usage()
    assert aborted_result(FACTS, seen, None).usage == Usage(1, 2, 3, source="partial")
    assert aborted_result(FACTS, seen, Aborted("sp_1", 1, 1, USAGE)).usage == USAGE
    assert aborted_result(FACTS, seen, Aborted("sp_1", 1, 1, Usage())).usage.total_tokens == 3


def test_an_aborted_stream_keeps_the_refusal_that_had_come() -> None:
    events: list[RunEvent] = [RefusalDelta("I can"), RefusalDelta("not")]

    assert aborted_result(FACTS, events, None).refusal == "I cannot"
    assert aborted_result(FACTS, ["Hello"], None).refusal is None


def test_vectors_name_the_model_that_the_provider_says_else_the_one_that_was_asked_for() -> None:
    assert embedding_result(FACTS, finish(vectors=[[1.0]])).model == "said"
    assert embedding_result(FACTS, finish(vectors=[[1.0]], model="")).model == "asked"


@pytest.mark.parametrize("reason", ["max_tokens", "content_filter", "error"])
def test_a_call_in_an_answer_that_was_cut_is_incomplete_whatever_cut_it(reason: str) -> None:
    result = finished_result(
        FACTS, [], finish(finish_reason=reason, tool_calls=[ToolCallText("c", "f", '{"x')]), aborted=False
    )

    assert result.tool_calls == []
    assert result.incomplete_tool_calls == [IncompleteToolCall("c", "f", '{"x')]
