"""Promises of Anthropic's mapper beyond the recordings: odd streams, opaque blocks, calls in pieces, errors."""

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
    RunEvent,
    TextPart,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)
from headrace.wire.messages import ToolCallText
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.anthropic.api import API
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailedError, ProviderFailure
from tests.repetition import repeated

REQUEST = RunRequest(provider="anthropic", model="claude", messages=[], stream=True)

JSON = dict[str, Any]


def start(index: int, kind: str, **fields: Any) -> JSON:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}}


def delta(index: int, kind: str, **fields: Any) -> JSON:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def text(index: int, said: str) -> JSON:
    return delta(index, "text_delta", text=said)


def arguments(index: int, said: str) -> JSON:
    return delta(index, "input_json_delta", partial_json=said)


def close(index: int) -> JSON:
    return {"type": "content_block_stop", "index": index}


def end(word: str | None = "end_turn", usage: Any = None, **fields: Any) -> JSON:
    return {"type": "message_delta", "delta": {"stop_reason": word, **fields}, "usage": usage}


def began(**usage: Any) -> JSON:
    return {"type": "message_start", "message": {"model": "claude-x", "content": [], "usage": usage}}


STOP: JSON = {"type": "message_stop"}
TEXT = start(0, "text", text="")


def play(*data: JSON | bytes, name: str = "") -> tuple[list[RunEvent], Completion]:
    mapper = API.open_stream(REQUEST)
    events: list[RunEvent] = []
    for item in data:
        mapper.feed(name, item if isinstance(item, bytes) else json.dumps(item).encode(), events)
    return events, mapper.finish()


def failure_of(*data: JSON | bytes, name: str = "") -> ProviderFailure:
    with pytest.raises(ProviderFailedError) as caught:
        play(*data, name=name)
    return caught.value.failure


def opaque(**block: Any) -> JSON:
    return {"api": "anthropic", "block": block}


def test_text_arrives_as_bare_strings_and_needs_no_message() -> None:
    events, whole = play(TEXT, text(0, ""), text(0, "a"), {"type": "ping"}, text(0, "b"), close(0), end(), STOP)
    assert events == ["a", "b"]
    assert whole == Completion(
        finish_reason="stop", provider_finish_reason="end_turn", usage=Usage(), tool_calls=[], model="claude"
    )


def test_the_message_stop_completes_a_stream() -> None:
    mapper = API.open_stream(REQUEST)
    mapper.feed("", json.dumps(end()).encode(), [])
    assert not mapper.is_complete
    mapper.feed("", json.dumps(STOP).encode(), [])
    assert mapper.is_complete


def test_usage_counts_the_cache_as_input_and_a_later_usage_replaces_it() -> None:
    events, whole = play(
        began(input_tokens=10, cache_creation_input_tokens=3, cache_read_input_tokens=4, output_tokens=1),
        end(None, {"input_tokens": 20, "cache_read_input_tokens": None, "output_tokens": 5}),
        end("end_turn", {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 6}}),
    )
    updates = [event.usage for event in events if isinstance(event, UsageUpdate)]
    assert [usage.source for usage in updates] == ["partial", "partial", "provider"]
    assert updates[0] == Usage(17, 1, 18, 4, 3, source="partial")
    assert whole.usage == updates[-1] == Usage(27, 9, 36, 4, 3, 6, source="provider")


def test_a_thinking_block_goes_into_the_message_with_its_last_signature() -> None:
    events, whole = play(
        start(0, "thinking", thinking="", signature=""),
        delta(0, "thinking_delta", thinking="w"),
        delta(0, "thinking_delta", thinking="hy"),
        delta(0, "signature_delta", signature="old"),
        delta(0, "signature_delta", signature="sig/+=="),
        start(1, "redacted_thinking", data="ENC"),
        start(2, "text", text=""),
        text(2, "x"),
        end(),
    )
    assert events == [ReasoningDelta("w"), ReasoningDelta("hy"), "x"]
    assert whole.message == Message(
        "assistant",
        [
            ReasoningPart("why", opaque(type="thinking", signature="sig/+==")),
            ReasoningPart("", opaque(type="redacted_thinking", data="ENC")),
            TextPart("x"),
        ],
    )


def test_thinking_whose_text_is_omitted_keeps_its_signature() -> None:
    events, whole = play(start(0, "thinking", thinking=""), delta(0, "signature_delta", signature="s"), end())
    assert events == []
    assert whole.message == Message("assistant", [ReasoningPart("", opaque(type="thinking", signature="s"))])


def test_blocks_of_server_tools_are_no_tool_calls_and_are_sent_back_unchanged() -> None:
    result = {"tool_use_id": "s1", "content": [{"type": "web_search_result", "encrypted_content": "E"}]}
    events, whole = play(
        start(0, "server_tool_use", id="s1", name="web_search", input={}),
        arguments(0, '{"q"'),
        arguments(0, ":1}"),
        close(0),
        start(1, "web_search_tool_result", **result),
        start(2, "text", text="", citations=[]),
        delta(2, "citations_delta", citation={"url": "u"}),
        text(2, "x"),
        end("pause_turn"),
    )
    assert events == ["x"]
    assert (whole.tool_calls, whole.finish_reason, whole.provider_finish_reason) == ([], "stop", "pause_turn")
    assert whole.message == Message(
        "assistant",
        [
            ReasoningPart("", opaque(type="server_tool_use", id="s1", name="web_search", input={"q": 1})),
            ReasoningPart("", opaque(type="web_search_tool_result", **result)),
            TextPart("x", opaque(citations=[{"url": "u"}])),
        ],
    )


def test_an_unknown_block_is_kept_with_its_deltas() -> None:
    events, whole = play(
        start(0, "compaction", content=None), delta(0, "compaction_delta", content="c", encrypted_content="E"), end()
    )
    assert events == []
    kept = opaque(type="compaction", content="c", encrypted_content="E")
    assert whole.message == Message("assistant", [ReasoningPart("", kept)])


def test_tool_calls_are_numbered_in_order_of_appearance() -> None:
    events, whole = play(
        start(0, "text", text=""),
        start(1, "tool_use", id="a", name="f", input={}),
        arguments(1, ""),
        arguments(1, '{"x"'),
        arguments(1, ":1}"),
        close(1),
        start(2, "server_tool_use", id="s", name="w", input={}),
        start(3, "tool_use", id="b", name="g", input={}),
        close(3),
        end("tool_use"),
        STOP,
    )
    assert events == [
        ToolCallDelta(0, "a", "f"),
        ToolCallDelta(0, arguments='{"x"'),
        ToolCallDelta(0, arguments=":1}"),
        ToolCallDelta(1, "b", "g"),
    ]
    assert whole.tool_calls == [ToolCallText("a", "f", '{"x":1}'), ToolCallText("b", "g", "{}")]
    assert whole.finish_reason == "tool_calls"


@pytest.mark.parametrize("ending", [[close(0), end("tool_use")], [end("tool_use")], [STOP]])
def test_a_whole_input_is_sent_at_the_end_of_its_block(ending: list[JSON]) -> None:
    events, whole = play(start(0, "tool_use", id="a", name="f", input={"x": 1}), *ending)
    assert events == [ToolCallDelta(0, "a", "f"), ToolCallDelta(0, arguments='{"x":1}')]
    assert whole.tool_calls == [ToolCallText("a", "f", '{"x":1}')]


def test_pieces_of_an_input_replace_the_input_at_the_start_of_its_block() -> None:
    _, whole = play(start(0, "tool_use", id="a", name="f", input={"x": 0}), arguments(0, '{"x":1}'), close(0), end())
    assert whole.tool_calls == [ToolCallText("a", "f", '{"x":1}')]


def test_a_cut_call_keeps_raw_arguments_and_a_complete_call_before_it_does_not() -> None:
    first, second = start(0, "tool_use", id="a", name="f", input={}), start(1, "tool_use", id="b", name="g", input={})
    assert play(first, close(0), second, arguments(1, '{"x'), end("max_tokens"))[1].tool_calls == [
        ToolCallText("a", "f", "{}"),
        ToolCallText("b", "g", '{"x'),
    ]
    assert play(second, close(1), end("max_tokens"))[1].tool_calls == [ToolCallText("b", "g", "")]


def test_a_cut_call_is_no_part_of_the_message() -> None:
    thinking = start(0, "thinking", thinking="why", signature="s")
    call = start(1, "tool_use", id="a", name="f", input={})
    _, whole = play(thinking, call, arguments(1, '{"x'), end("max_tokens"))
    assert whole.message == Message("assistant", [ReasoningPart("why", opaque(type="thinking", signature="s"))])


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "max_tokens"),
        ("model_context_window_exceeded", "max_tokens"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
        ("new_word", "stop"),
    ],
)
def test_a_finish_reason_keeps_the_providers_word(word: str, reason: str) -> None:
    _, whole = play(end(word))
    assert (whole.finish_reason, whole.provider_finish_reason) == (reason, word)


def test_a_refusal_has_the_explanation_of_the_api() -> None:
    assert play(end("refusal", stop_details={"type": "refusal", "explanation": "no"}))[1].refusal == "no"
    assert play(end("refusal", stop_details={"type": "refusal", "explanation": None}))[1].refusal is None
    assert play(end("refusal", stop_details=None))[1].finish_reason == "content_filter"


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"null",
        {},
        {"type": "ping"},
        {"type": "news", "delta": {"type": "text_delta", "text": "no"}},
        {"type": "content_block_start", "index": 7, "content_block": None},
        {"type": "content_block_start", "index": "x", "content_block": {"type": 3}},
        {"type": "content_block_delta", "index": 0, "delta": None},
        {"type": "content_block_delta", "index": 0, "delta": "x"},
        {"type": "content_block_delta", "index": [], "delta": {"type": "news_delta", "text": "no"}},
        delta(0, "text_delta", text=None),
        delta(0, "text_delta", text={}),
        delta(9, "signature_delta", signature="s"),
        delta(9, "input_json_delta", partial_json="{}"),
        close(9),
        {"type": "message_start", "message": None},
        {"type": "message_delta", "delta": None, "usage": []},
        {"type": "message_delta", "usage": {"output_tokens": None, "input_tokens": "x", "output_tokens_details": 3}},
    ],
)
def test_an_event_without_content_does_no_harm(odd: JSON | bytes) -> None:
    events, whole = play(TEXT, odd, text(0, "x"), end(), STOP)
    assert [event for event in events if not isinstance(event, UsageUpdate)] == ["x"]
    assert (whole.tool_calls, whole.message) == ([], None)


def test_text_without_a_block_is_not_lost() -> None:
    events, _ = play(text(3, "a"), {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "b"}}, end())
    assert events == ["a", "b"]
    assert play(start(0, "text", text="whole"), end())[0] == ["whole"]


def test_the_name_of_an_event_replaces_a_missing_type() -> None:
    mapper = API.open_stream(REQUEST)
    mapper.feed("message_stop", b"{}", [])
    assert mapper.is_complete


def test_json_with_small_mistakes_is_read() -> None:
    events, _ = play(
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"},"x":NaN}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\ud83d"}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\xff"}}',
        b'{"type":"content_block_delta","index":0.5,"delta":{"type":"text_delta","text":"\xe2\x80\xa8"}}',
        end(),
    )
    assert events == ["a", "\ud83d", "\ufffd", "\u2028"]


def test_a_stream_without_its_end_was_cut() -> None:
    failure = failure_of(TEXT, text(0, "x"), close(0))
    assert (failure.kind, failure.reason) == ("provider_protocol", "the stream ended before the message was stopped")
    assert play(end(), b"[DONE]")[1].finish_reason == "stop"


def test_an_unreadable_event_ends_a_stream_unless_the_answer_is_complete() -> None:
    assert failure_of(b'{"type":"content_blo').kind == "provider_protocol"
    assert failure_of(b"[1]").kind == "provider_protocol"
    assert failure_of(b"[DONE]").kind == "provider_protocol"
    assert play(end(), b'{"type":"mess')[1].finish_reason == "stop"
    deep = b'{"type":"error","error":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert failure_of(deep).kind == "provider_protocol"


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        ({"type": "overloaded_error"}, "provider_unavailable", "overloaded_error"),
        ({"type": "api_error"}, "provider_unavailable", "api_error"),
        ({"type": "timeout_error"}, "provider_unavailable", "timeout_error"),
        ({"type": "rate_limit_error", "details": None}, "rate_limit", "rate_limit_error"),
        (
            {"type": "rate_limit_error", "details": {"error_code": "contract_spend_limit_reached"}},
            "rate_limit",
            "contract_spend_limit_reached",
        ),
        ({"type": "invalid_request_error"}, "invalid_request", "invalid_request_error"),
        ({"type": "request_too_large"}, "invalid_request", "request_too_large"),
        ({"type": "authentication_error"}, "authentication", "authentication_error"),
        ({"type": "permission_error"}, "authentication", "permission_error"),
        ({"type": "billing_error"}, "invalid_request", "billing_error"),
        ({"type": "new_error"}, "provider_unavailable", "new_error"),
    ],
)
def test_an_error_in_a_stream_is_classified_by_its_type(error: JSON, kind: Any, code: str) -> None:
    failure = failure_of(TEXT, {"type": "error", "error": {"message": "m"} | error, "request_id": "r1"})
    is_final = code in {"contract_spend_limit_reached", "billing_error"}
    may_retry = kind in {"rate_limit", "provider_unavailable"} and not is_final
    assert failure == ProviderFailure(kind, "m", request_id="r1", code=code, may_retry=may_retry, is_final=is_final)


def test_an_error_is_found_in_each_form() -> None:
    assert failure_of({"error": {"type": "overloaded_error", "message": "m"}}).kind == "provider_unavailable"
    assert failure_of({"message": "m"}, name="error").reason == "m"
    assert failure_of({"type": "error", "error": "m"}).reason == "m"


KEYS = ["type", "index", "delta", "content_block", "message", "content", "usage", "error", "text", "thinking", "input"]
KEYS += ["partial_json", "signature", "citation", "stop_reason", "stop_details", "details", "id", "name"]
KINDS = ["content_block_start", "content_block_delta", "content_block_stop", "message_start", "message_delta", "error"]
KINDS += ["text", "thinking", "tool_use", "server_tool_use", "text_delta", "thinking_delta", "input_json_delta"]
KINDS += ["signature_delta", "citations_delta", "end_turn", "{}", "refusal"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.floats() | st.text(max_size=4) | st.sampled_from(KINDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)
server_events = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS[:6])},
    optional={
        "index": json_values,
        "delta": st.fixed_dictionaries(
            {"type": st.sampled_from(KINDS)}, optional=dict.fromkeys(["text", "partial_json", "citation"], json_values)
        ),
        "content_block": st.fixed_dictionaries(
            {"type": st.sampled_from(KINDS)}, optional=dict.fromkeys(["input", "citations", "id", "text"], json_values)
        ),
        "message": json_values,
    },
)


@pytest.mark.slow
@settings(max_examples=repeated(50, 500), deadline=None)
@given(st.lists(server_events | json_values, max_size=6), json_values)
def test_no_json_breaks_the_mapper(events: list[Any], whole: Any) -> None:
    with suppress(ProviderFailedError):
        play(*(json.dumps(event).encode() for event in events), end())
    for body in (whole, {"content": whole}, {"content": [whole]}):
        with suppress(ProviderFailedError):
            API.read_body(REQUEST, json.dumps(body).encode())
        API.read_error(500, {}, json.dumps(body).encode())
