"""Promises of the mapper of openai-chat that the recordings do not show: odd streams, calls in pieces, errors."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.types import (
    Message,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RunEvent,
    TextPart,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from headrace.wire.messages import ToolCallText
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.openai_chat.api import API
from headrace_workers.providers.openai_chat.chunks import is_silent
from headrace_workers.providers.shared.unread_content import refuse_content
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailedError, ProviderFailure
from tests.cases import each
from tests.repetition import repeated


def request(*messages: Message, stream: bool = True, **fields: Any) -> RunRequest:
    return RunRequest(provider="openai", model="m", messages=list(messages), stream=stream, **fields)


def chunk(delta: Any = None, finish: Any = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **fields}


def call(arguments: Any, **fields: Any) -> dict[str, Any]:
    function = {"name": fields.pop("name", None), "arguments": arguments}
    return chunk({"tool_calls": [fields | {"function": function}]})


def play(*data: dict[str, Any] | bytes, name: str = "") -> tuple[list[RunEvent], Completion]:
    mapper = API.open_stream(request())
    events: list[RunEvent] = []
    for item in data:
        mapper.feed(name, item if isinstance(item, bytes) else json.dumps(item).encode(), events)
    return events, mapper.finish()


def failure_of(*data: dict[str, Any] | bytes, name: str = "") -> ProviderFailure:
    with pytest.raises(ProviderFailedError) as caught:
        play(*data, name=name)
    return caught.value.failure


KEYS = ["content", "tool_calls", "reasoning", "refusal", "index", "id", "function", "name", "arguments"]
KEYS += ["usage", "error", "choices", "delta", "reasoning_details"]
DONE = b"[DONE]"
STOP = chunk({}, "stop")


def test_text_arrives_as_bare_strings() -> None:
    events, whole = play(chunk({"role": "assistant", "content": ""}, model="gpt"), chunk({"content": "a"}), STOP, DONE)
    assert events == ["a"]
    assert whole == Completion(
        finish_reason="stop", provider_finish_reason="stop", usage=Usage(), tool_calls=[], model="gpt"
    )


def test_only_done_completes_a_stream_since_usage_may_follow_the_finish_reason() -> None:
    mapper = API.open_stream(request())
    mapper.feed("", json.dumps(STOP).encode(), [])
    assert not mapper.is_complete
    mapper.feed("", DONE, [])
    assert mapper.is_complete


def test_running_usage_is_partial_and_becomes_final() -> None:
    said = {"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}
    events, whole = play(chunk({"content": "a"}, usage=said), chunk({"content": "b"}, usage=said), DONE)
    partial = Usage(input_tokens=3, output_tokens=1, total_tokens=4, cached_input_tokens=2, source="partial")
    assert events == ["a", UsageUpdate(partial), "b"]
    assert whole.usage.source == "provider"


def test_reasoning_tokens_are_added_to_the_output_if_the_total_shows_that_they_are_missing() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 7}}
    apart = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 11} | details
    within = {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11} | details
    assert play(STOP, {"choices": [], "usage": apart})[1].usage == play(STOP, {"choices": [], "usage": within})[1].usage


def test_reasoning_makes_a_message_that_can_be_sent_back() -> None:
    events, whole = play(
        chunk({"reasoning_content": "w", "content": None}),
        chunk({"reasoning_content": "hy"}),
        chunk({"content": "x"}),
        STOP,
    )
    assert events == [ReasoningDelta("w"), ReasoningDelta("hy"), "x"]
    assert whole.message == Message("assistant", [ReasoningPart("why", {"field": "reasoning_content"}), TextPart("x")])


def test_reasoning_details_are_kept_with_their_pieces_joined() -> None:
    pieces: list[dict[str, Any]] = [
        {"type": "reasoning.text", "index": 0, "text": "w"},
        {"type": "reasoning.text", "index": 0, "text": "hy"},
        {"type": "reasoning.text", "index": 0, "text": None, "signature": "s"},
        {"type": "reasoning.encrypted", "index": 1, "data": "e1"},
        {"type": "reasoning.encrypted", "index": 1, "data": "e2"},
    ]
    _, whole = play(*(chunk({"reasoning_details": [piece]}) for piece in pieces), STOP)
    joined = {"type": "reasoning.text", "index": 0, "text": "why", "signature": "s"}
    opaque = {"reasoning_details": [joined, *pieces[3:]]}
    assert whole.message == Message("assistant", [ReasoningPart("", opaque)])


def test_content_in_parts_is_text_and_thinking() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "why"}]}
    events, whole = play(chunk({"content": [thinking, {"type": "text", "text": "x"}, "y", None, {}]}), STOP)
    assert events == [ReasoningDelta("why"), "x", "y"]
    assert whole.message is None


def test_a_refusal_is_no_text_and_sets_the_finish_reason() -> None:
    events, whole = play(chunk({"refusal": "I can"}), chunk({"refusal": "not"}), STOP)
    assert events == [RefusalDelta("I can"), RefusalDelta("not")]
    assert (whole.finish_reason, whole.refusal) == ("content_filter", "I cannot")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("length", "max_tokens"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("error", "error"),
        ("eos_token", "stop"),
    ],
)
def test_a_finish_reason_keeps_the_providers_word(word: str, reason: str) -> None:
    _, whole = play(chunk({}, word))
    assert (whole.finish_reason, whole.provider_finish_reason) == (reason, word)


def test_only_the_first_choice_is_the_answer() -> None:
    other = {"index": 1, "delta": {"content": "no", "tool_calls": [{"index": 0, "id": "x"}]}, "finish_reason": "length"}
    events, whole = play({"choices": [other]}, chunk({"content": "yes"}), STOP, {"choices": [other]})
    assert events == ["yes"]
    assert whole.finish_reason == "stop"


def calls_of(*data: dict[str, Any]) -> list[ToolCallText]:
    events, whole = play(*data, STOP)
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    for index, done in enumerate(whole.tool_calls):
        own = [delta for delta in deltas if delta.index == index]
        assert "".join(delta.arguments for delta in own) == done.arguments
        assert [delta.id for delta in own if delta.id][-1:] == [done.id]
        assert [delta.name for delta in own if delta.name][-1:] == [done.name]
    assert whole.finish_reason == "tool_calls"
    return whole.tool_calls


TWO = [ToolCallText("a", "f", '{"x":1}'), ToolCallText("b", "g", "{}")]


@pytest.mark.parametrize(
    "fragments",
    [
        [
            call("", index=0, id="a", name="f"),
            call('{"x"', index=0),
            call("{}", index=1, id="b", name="g"),
            call(":1}", index=0),
        ],
        [call('{"x":1}', index=0, id="a", name="f"), call("{}", index=0, id="b", name="g")],
        [call('{"x":1}', id="a", name="f"), call("{}", id="b", name="g")],
        [
            call('{"x"', index=7, id="a", name="f"),
            call(":1}", index=7, id="a", name="f"),
            call("{}", index=9, id="b", name="g"),
        ],
        [call('{"x"', index=0, id="a", name="f"), call(":1}", index=0, id=""), call({}, index=1, id="b", name="g")],
        [call('{"x"', id="a", name="f"), call(":1}"), call("{}", id="b", name="g")],
    ],
    ids=["interleaved", "index-reused", "no-index", "head-repeated", "empty-id", "no-index-in-pieces"],
)
def test_fragments_of_calls_are_joined_as_the_vendor_means(fragments: list[dict[str, Any]]) -> None:
    assert calls_of(*fragments) == TWO


def test_calls_without_ids_get_an_id_from_their_index() -> None:
    fragments = [call('{"x":1}', index=0, id="", name="f"), call('{"x":2}', index=0, id="", name="f")]
    assert calls_of(*fragments) == [ToolCallText("call_0", "f", '{"x":1}'), ToolCallText("call_1", "f", '{"x":2}')]


def test_a_call_without_arguments_has_an_empty_object_unless_it_was_cut() -> None:
    assert play(call(None, index=0, id="a", name="f"), STOP)[1].tool_calls == [ToolCallText("a", "f", "{}")]
    assert play(call("", index=0, id="a", name="f"), chunk({}, "length"))[1].tool_calls == [ToolCallText("a", "f", "")]


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"choices": None},
        {"choices": [None]},
        {"choices": [], "moderation": {}},
        {"choices": [{}]},
        {"choices": [{"index": None, "delta": None, "finish_reason": ""}], "usage": [], "model": 3, "error": None},
        chunk({"content": {}, "reasoning": {}, "refusal": [], "tool_calls": {}}),
        chunk({"tool_calls": [None, {}, {"index": 0, "function": None}, {"function": {"arguments": ""}}]}),
        {"choices": [], "usage": {"prompt_tokens": None, "completion_tokens_details": []}, "x_groq": []},
        b"",
        b"null",
    ],
)
def test_an_event_without_content_does_no_harm(odd: dict[str, Any] | bytes) -> None:
    events, whole = play(odd, chunk({"content": "x"}), STOP, DONE)
    assert [event for event in events if not isinstance(event, UsageUpdate)] == ["x"]
    assert whole.tool_calls == []


def test_json_with_small_mistakes_is_read() -> None:
    events, _ = play(
        b'{"choices":[{"delta":{"content":"a"},"logprobs":NaN}]}',
        b'{"choices":[{"delta":{"content":"\\ud83d"}}]}',
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
        STOP,
    )
    assert events == ["a", "\ud83d", "\ufffd"]


def test_a_stream_without_done_or_finish_reason_was_cut() -> None:
    failure = failure_of(chunk({"content": "x"}))
    assert (failure.kind, failure.reason) == ("provider_protocol", "the stream ended without finish reason")
    assert play(chunk({"content": "x"}), DONE)[1].finish_reason == "stop"


def test_an_unreadable_event_ends_a_stream_unless_the_answer_is_complete() -> None:
    assert failure_of(b'{"choices":[{"del').kind == "provider_protocol"
    assert failure_of(b'{"choices":3}').kind == "provider_protocol"
    assert play(STOP, b'{"choices":[],"usa')[1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        ({"message": "m", "code": "rate_limit_exceeded"}, "rate_limit", "rate_limit_exceeded"),
        ({"message": "m", "type": "insufficient_quota"}, "rate_limit", "insufficient_quota"),
        (
            {"message": "m", "type": "invalid_request_error", "code": "invalid_api_key"},
            "authentication",
            "invalid_api_key",
        ),
        ({"message": "m", "type": "server_error"}, "provider_unavailable", "server_error"),
        ({"message": "m", "type": "overloaded_error", "code": None}, "provider_unavailable", "overloaded_error"),
        ({"message": "m", "code": "context_length_exceeded"}, "invalid_request", "context_length_exceeded"),
        ({"message": "m", "type": "invalid_request_error", "param": "p"}, "invalid_request", "invalid_request_error"),
        ({"message": "m", "code": 429}, "rate_limit", "429"),
        ({"message": "m", "code": 502}, "provider_unavailable", "502"),
        ("m", "provider_unavailable", None),
    ],
)
def test_an_error_in_a_stream_is_classified_by_its_words(error: Any, kind: str, code: str | None) -> None:
    failure = failure_of({"error": error})
    assert (failure.kind, failure.reason, failure.code) == (kind, "m", code)


@pytest.mark.parametrize(
    "data",
    [
        {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "error", "error": {"message": "m"}}]},
        chunk({"content": "x"}, error={"message": "m"}),
        {"object": "error", "message": "m", "type": "BadRequestError"},
        {"choices": [], "x_groq": {"error": "m"}},
        {"detail": [{"msg": "m"}]},
        b'[{"error": {"message": "m"}}]',
    ],
)
def test_an_error_is_found_at_each_place(data: dict[str, Any] | bytes) -> None:
    assert failure_of(data).reason == "m"


def test_arguments_alone_continue_the_last_call_whatever_their_index() -> None:
    fragments = [call('{"x"', id="a", name="f"), call(":1", index=0), call("}", index=5), call("{}", id="b", name="g")]
    assert calls_of(*fragments) == TWO


def test_an_event_named_error_is_an_error_and_its_text_is_kept() -> None:
    assert failure_of({"message": "m"}, name="error").reason == "m"
    events: list[RunEvent] = []
    with pytest.raises(ProviderFailedError):
        API.open_stream(request()).feed("", json.dumps(chunk({"content": "x"}, error={"code": 502})).encode(), events)
    assert events == ["x"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["a", "{}", "error"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=repeated(50, 500), deadline=None)
@given(st.lists(json_values, max_size=3), json_values, json_values)
def test_no_json_breaks_the_mapper(fields: list[Any], delta: Any, whole: Any) -> None:
    pieces = [{"choices": [{"delta": dict(zip(KEYS, fields, strict=False))}]}, chunk(delta), whole, STOP]
    with suppress(ProviderFailedError):
        play(*(json.dumps(piece).encode() for piece in pieces))
    for body in (whole, {"choices": [{"message": delta}]}):
        with suppress(ProviderFailedError):
            API.read_body(request(stream=False), json.dumps(body).encode())
        API.read_error(500, {}, json.dumps(body).encode())


@each(
    "choice",
    [
        {"index": 0, "delta": {"role": "assistant", "content": "", "refusal": None}, "logprobs": None},
        {"index": 0, "delta": {}, "finish_reason": None},
        {"delta": {"content": None}},
        {"delta": None},
        {},
    ],
)
def test_a_choice_that_is_silent_has_nothing_that_would_be_refused(choice: dict[str, Any]) -> None:
    assert is_silent(json.dumps({"choices": [choice]}).encode())
    refuse_content([choice], "an event")


@each(
    "choice",
    [
        {"delta": {"content": "x"}},
        {"delta": {"voice": "x"}},
        {"delta": {"content": []}},
        {"text": "x"},
        {"delta": {"refusal": "x"}},
        None,
    ],
)
def test_a_choice_with_anything_else_is_searched(choice: dict[str, Any] | None) -> None:
    assert not is_silent(json.dumps({"choices": [{}, choice]}).encode())
