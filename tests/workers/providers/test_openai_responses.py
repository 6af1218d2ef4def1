"""Promises of the mapper of openai-responses that the recordings do not show: odd streams, calls in pieces, errors."""

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
    ToolCallPart,
    Usage,
    UsageUpdate,
)
from headrace.wire.messages import ToolCallText
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.openai_responses.api import API
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailedError, ProviderFailure
from tests.repetition import repeated

Data = dict[str, Any] | bytes


def request(*, stream: bool = True) -> RunRequest:
    return RunRequest(provider="openai-responses", model="m", messages=[Message("user", "hi")], stream=stream)


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **fields}


def text(delta: Any, **fields: Any) -> dict[str, Any]:
    return event("output_text.delta", delta=delta, **fields)


def end(*output: dict[str, Any], status: str = "completed", reason: str | None = None, **fields: Any) -> dict[str, Any]:
    details = {"reason": reason} if reason else None
    return event(status, response={"status": status, "output": output, "incomplete_details": details, **fields})


def said(words: str, **fields: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": words}], **fields}


def function(call_id: str, name: str, arguments: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments, **fields}


def thought(words: str, **fields: Any) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": words}] if words else []
    return {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "gAA=", **fields}


def play(*data: Data, name: str = "") -> tuple[list[RunEvent], Completion]:
    mapper = API.open_stream(request())
    events: list[RunEvent] = []
    for item in data:
        mapper.feed(name, item if isinstance(item, bytes) else json.dumps(item).encode(), events)
    return events, mapper.finish()


def failure_of(*data: Data, name: str = "") -> ProviderFailure:
    with pytest.raises(ProviderFailedError) as caught:
        play(*data, name=name)
    return caught.value.failure


def read(body: Any) -> Completion:
    return API.read_body(request(stream=False), body if isinstance(body, bytes) else json.dumps(body).encode())


def test_text_arrives_as_bare_strings() -> None:
    events, whole = play(event("created", response={"model": "gpt"}), text("a"), text(""), text("b"), end(said("ab")))
    assert events == ["a", "b"]
    assert whole == Completion(
        finish_reason="stop", provider_finish_reason="completed", usage=Usage(), tool_calls=[], model="gpt"
    )


def test_usage_comes_with_the_terminal_event() -> None:
    figures = {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 8,
    }
    events, whole = play(end(usage=figures))
    assert whole.usage == Usage(5, 3, 8, 2, 1, 1, source="provider")
    assert events == [UsageUpdate(whole.usage)]


@pytest.mark.parametrize(
    "data",
    [
        [end(said("ab"))],
        [text("a"), end(said("ab"))],
        [event("output_item.done", item=said("ab")), end(said("ab"))],
        [event("output_item.done", item=said("a")), text("b"), event("output_item.done", item=said("b")), end()],
        [event("output_item.done", item=said("a")), event("output_item.done", item=said("b")), b"[DONE]"],
        [text("a"), event("output_text.done", text="a"), event("output_item.done", item=said("ab")), end()],
        [event("output_item.added", item=said("a")), text("ab"), end(said("ab"))],
    ],
)
def test_no_text_is_lost_or_repeated_whichever_event_has_it(data: list[Data]) -> None:
    events, _ = play(*data)
    assert "".join(event for event in events if isinstance(event, str)) == "ab"


def test_words_that_only_the_last_event_has_are_sent_with_their_kind() -> None:
    refused = {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}
    events, whole = play(end(thought("why"), refused, said("x")))
    assert events == [ReasoningDelta("why"), "x", RefusalDelta("no")]
    assert (whole.finish_reason, whole.refusal) == ("content_filter", "no")


@pytest.mark.parametrize("kind", ["reasoning_summary_text.delta", "reasoning_text.delta"])
def test_reasoning_deltas_are_reasoning(kind: str) -> None:
    events, _ = play(event(kind, delta="w"), event(kind, delta="hy"), text("x"), end(thought("why"), said("x")))
    assert events == [ReasoningDelta("w"), ReasoningDelta("hy"), "x"]


def test_a_refusal_is_no_text_and_sets_the_finish_reason() -> None:
    events, whole = play(event("refusal.delta", delta="I cannot"), end())
    assert events == [RefusalDelta("I cannot")]
    assert (whole.finish_reason, whole.refusal) == ("content_filter", "I cannot")


@pytest.mark.parametrize(
    ("status", "reason", "finish", "word"),
    [
        ("completed", None, "stop", "completed"),
        ("incomplete", "max_output_tokens", "max_tokens", "max_output_tokens"),
        ("incomplete", "max_messages", "max_tokens", "max_messages"),
        ("incomplete", "content_filter", "content_filter", "content_filter"),
        ("incomplete", "steered", "stop", "steered"),
        ("incomplete", None, "max_tokens", "incomplete"),
    ],
)
def test_the_finish_reason_comes_from_the_status_and_its_word_from_the_reason(
    status: str, reason: str | None, finish: str, word: str
) -> None:
    _, whole = play(end(status=status, reason=reason))
    assert (whole.finish_reason, whole.provider_finish_reason) == (finish, word)


ADDED = event("output_item.added", output_index=1, item=function("a", "f", "", id="fc_1"))
OTHER = event("output_item.added", output_index=2, item=function("b", "g", "", id="fc_2"))
TWO = [ToolCallText("a", "f", '{"x":1}'), ToolCallText("b", "g", "{}")]
BOTH = [function("a", "f", '{"x":1}', id="fc_1"), function("b", "g", "{}", id="fc_2")]


def fragment(delta: Any, **fields: Any) -> dict[str, Any]:
    return event("function_call_arguments.delta", delta=delta, **fields)


@pytest.mark.parametrize(
    "data",
    [
        [
            ADDED,
            OTHER,
            fragment('{"x"', output_index=1),
            fragment("{}", output_index=2),
            fragment(":1}", output_index=1),
        ],
        [
            ADDED,
            OTHER,
            fragment('{"x"', item_id="fc_1"),
            fragment("{}", item_id="fc_2"),
            fragment(":1}", item_id="fc_1"),
        ],
        [ADDED, fragment('{"x"', output_index=1, item_id="?1"), fragment(":1}", output_index=1, item_id="?2"), OTHER],
        [{**ADDED, "output_index": 0}, fragment('{"x":1}'), {**OTHER, "output_index": 0}, fragment("{}")],
        [ADDED, event("function_call_arguments.done", output_index=1, arguments='{"x":1}'), OTHER],
        [ADDED, fragment('{"x"', output_index=1), event("output_item.done", item=BOTH[0], output_index=1), OTHER],
        [event("output_item.done", item=BOTH[0]), event("output_item.done", item=function("b", "g", {}))],
        [fragment("{}", output_index=0, item_id="ws_1"), ADDED],
        [event("output_item.added", item={"type": "function_call", "call_id": "a"})],
        [],
    ],
)
def test_calls_are_joined_if_fields_or_events_are_missing(data: list[Data]) -> None:
    events, whole = play(*data, end(*BOTH))
    assert whole.tool_calls == TWO
    assert whole.finish_reason == "tool_calls"
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    for index, call in enumerate(TWO):
        own = [delta for delta in deltas if delta.index == index]
        assert "".join(delta.arguments for delta in own) == call.arguments
        assert ([d.id for d in own if d.id][-1], [d.name for d in own if d.name][-1]) == (call.id, call.name)


def test_a_call_without_arguments_has_an_empty_object_unless_it_was_cut() -> None:
    assert play(ADDED, end())[1].tool_calls == [ToolCallText("a", "f", "{}")]
    _, cut = play(ADDED, fragment('{"x', output_index=1), end(status="incomplete", reason="max_output_tokens"))
    assert (cut.finish_reason, cut.tool_calls) == ("max_tokens", [ToolCallText("a", "f", '{"x')])


def test_the_caller_answers_a_custom_call_only_if_nothing_follows_it() -> None:
    custom = {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": 'SELECT "é"'}
    _, ours = play(end(custom))
    assert ours.tool_calls == [ToolCallText("c", "sql", '{"input":"SELECT \\"é\\""}')]
    assert ours.finish_reason == "tool_calls"
    _, theirs = play(end(custom, said("found")))
    assert (theirs.tool_calls, theirs.finish_reason) == ([], "stop")


def test_items_of_server_tools_make_no_events_and_no_calls() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "name": "search", "arguments": "{}", "call_id": "x"}
    events, whole = play(
        event("output_item.added", output_index=0, item=search),
        event("web_search_call.searching", output_index=0),
        event("mcp_call_arguments.delta", output_index=0, delta="{}"),
        event("code_interpreter_call_code.delta", delta="print()"),
        text("x"),
        end(search, said("x")),
    )
    assert events == ["x"]
    assert (whole.tool_calls, whole.finish_reason) == ([], "stop")


def test_a_message_is_made_only_if_text_and_calls_are_not_all() -> None:
    assert play(end(said("x", id="msg_1"), *BOTH))[1].message is None
    items = [thought("why"), said("x", id="msg_1", phase="commentary"), function("a", "f", '{"x": 1}', id="fc_1")]
    opaque = [{"api": "openai-responses", "item": item} for item in items]
    assert play(end(*items))[1].message == Message(
        "assistant",
        [
            ReasoningPart("why", opaque[0]),
            TextPart("x", opaque[1]),
            ToolCallPart("a", "f", {"x": 1}, opaque[2]),
        ],
    )
    for item in ({"type": "web_search_call"}, said("y"), function("b", "g", "{}", namespace="n")):
        assert play(end(said("x"), item))[1].message is not None


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"type": None},
        {"type": ["response.completed"]},
        {"type": "keepalive", "sequence_number": 4},
        {"type": "response.steer.created", "item": None},
        text(None),
        text({"text": "no"}),
        event("output_item.done"),
        event("output_item.done", item=[]),
        event("output_item.done", item={"type": "message", "content": [None, {"type": "output_text", "text": 3}]}),
        event("function_call_arguments.delta", delta="{}", output_index=0),
        event("function_call_arguments.done", arguments=None),
        event("reasoning_summary_text.delta", delta=3),
        event("created", response=None),
        b"",
        b"null",
    ],
)
def test_an_event_without_content_does_no_harm(odd: Data) -> None:
    events, whole = play(odd, text("x"), end(said("x")), b"[DONE]")
    assert events == ["x"]
    assert whole.tool_calls == []


def test_an_event_of_an_unknown_type_about_one_item_is_no_whole_response() -> None:
    outputs = {"type": "new", "output": [{"stdout": "files"}], "output_index": 0, "sequence_number": 1}

    events, completion = play(outputs, text("Hello"), end(said("Hello")))

    assert events == ["Hello"]
    assert completion.finish_reason == "stop"


def test_json_with_small_mistakes_is_read() -> None:
    events, whole = play(
        b'{"type":"response.output_text.delta","delta":"a","logprobs":NaN}',
        b'{"type":"response.output_text.delta","delta":"\\ud83d"}',
        b'{"type":"response.output_text.delta","delta":"\xff"}',
        b'{"type":"response.output_item.done","item":{"type":"function_call","call_id":"c","name":"f","arguments":"\\ud83d"}}',
        end(),
    )
    assert [event for event in events if isinstance(event, str)] == ["a", "\ud83d", "\ufffd"]
    assert whole.tool_calls == [ToolCallText("c", "f", "\ufffd")]


def test_a_stream_without_its_terminal_event_was_cut() -> None:
    assert failure_of(text("x")).kind == "provider_protocol"
    assert play(text("x"), b"[DONE]")[1].finish_reason == "stop"
    mapper = API.open_stream(request())
    mapper.feed("", json.dumps(end(said("x"))).encode(), [])
    assert mapper.is_complete


def test_an_unreadable_event_ends_a_stream_unless_the_answer_is_complete() -> None:
    assert failure_of(b'{"type":"resp').kind == "provider_protocol"
    assert failure_of(b"3").kind == "provider_protocol"
    assert play(end(), b'{"type":"resp')[1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        ({"message": "m", "code": "rate_limit_exceeded"}, "rate_limit", "rate_limit_exceeded"),
        ({"message": "m", "code": "server_error"}, "provider_unavailable", "server_error"),
        ({"message": "m", "code": "invalid_prompt"}, "invalid_request", "invalid_prompt"),
        ({"message": "m", "code": "bio_policy"}, "invalid_request", "bio_policy"),
        ({"message": "m", "code": "failed_to_download_image"}, "invalid_request", "failed_to_download_image"),
        ({"message": "m", "code": "vector_store_timeout"}, "provider_unavailable", "vector_store_timeout"),
        ({"message": "m", "type": "insufficient_quota"}, "rate_limit", "insufficient_quota"),
        ({"message": "m", "code": None}, "provider_unavailable", None),
    ],
)
def test_an_error_is_classified_by_its_code_in_each_form(error: dict[str, Any], kind: str, code: str | None) -> None:
    forms: list[dict[str, Any]] = [
        {"type": "error", "error": error},
        {"error": error},
        end(status="failed", error=error),
        end(error=error),
    ]
    if "type" not in error:
        forms.append({"type": "error", "sequence_number": 3, "param": None, **error})
    for form in forms:
        failure = failure_of(form, end(status="failed", error={"code": "other", "message": "other"}))
        assert (failure.kind, failure.reason, failure.code) == (kind, "m", code)


def test_a_failure_keeps_the_usage_and_the_text_before_it() -> None:
    mapper = API.open_stream(request())
    events: list[RunEvent] = []
    mapper.feed("", json.dumps(text("x")).encode(), events)
    with pytest.raises(ProviderFailedError) as caught:
        mapper.feed("", json.dumps(end(status="failed", usage={"input_tokens": 2})).encode(), events)
    assert caught.value.failure.reason == "the response was failed"
    assert events[0] == "x"
    assert mapper.usage.input_tokens == 2


def test_a_whole_body_is_mapped_with_its_message() -> None:
    body = {"status": "completed", "model": "gpt", "output": [said("x", id="msg_1")], "usage": {"input_tokens": 2}}
    whole = read(body)
    assert whole.message == Message("assistant", "x")
    assert (whole.finish_reason, whole.model, whole.usage.total_tokens) == ("stop", "gpt", 2)
    called = read({"status": "completed", "output": [said("x"), *BOTH]})
    assert called.tool_calls == TWO
    assert called.message is not None
    assert called.message.tool_calls == [ToolCallPart("a", "f", {"x": 1}), ToolCallPart("b", "g", {})]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"message": "m", "code": "rate_limit_exceeded"}}, "rate_limit"),
        ({"status": "failed", "error": {"message": "m", "code": "invalid_prompt"}, "output": []}, "invalid_request"),
        ({"status": "queued", "output": []}, "provider_protocol"),
        ({"object": "chat.completion", "choices": []}, "provider_protocol"),
        (b"<html><title>Sign in</title></html>", "provider_protocol"),
        (b"", "provider_protocol"),
        (b"[]", "provider_protocol"),
    ],
)
def test_a_body_that_is_no_answer_fails(body: Any, kind: str) -> None:
    with pytest.raises(ProviderFailedError) as caught:
        read(body)
    assert caught.value.failure.kind == kind


KEYS = ["item", "response", "delta", "output_index", "item_id", "arguments", "output", "content", "text", "usage"]
KEYS += ["type", "call_id", "name", "id", "error", "status", "summary", "incomplete_details", "reason"]
KINDS = ["created", "completed", "output_item.done", "output_item.added", "function_call_arguments.delta"]
KINDS = [*(f"response.{kind}" for kind in KINDS), "error", "message", "function_call", "reasoning", "custom_tool_call"]

json_values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from([*KINDS, "{}"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=repeated(30, 150), deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(KEYS), json_values, max_size=3)), max_size=3
    )
)
def test_no_json_breaks_the_mapper(events: list[tuple[str, dict[str, Any]]]) -> None:
    with suppress(ProviderFailedError):
        play(*(json.dumps({**fields, "type": kind}).encode() for kind, fields in events), b"[DONE]")
    for _, fields in events:
        with suppress(ProviderFailedError):
            read(json.dumps(fields).encode())
        with suppress(ProviderFailedError):
            play(json.dumps(fields).encode())
