"""What a span says of its request, and what is left of a span that no frame or no encoding has room for."""

from __future__ import annotations

import msgspec

from headrace.spans.encoded_span import (
    MAX_SPAN_BYTES,
    TOO_LARGE,
    encode_bounded,
    parameters,
    request_content,
    request_stub,
)
from headrace.spans.span import LOST, Rank, Span, SpanAttempt, decode_span, encode_span
from headrace.types import Message, Tool
from headrace.wire.messages import MAX_REQUEST_BYTES
from headrace.wire.run_request import RunRequest

ASKED = RunRequest(provider="openai", model="gpt-4o", messages=[Message("user", "Hello")], stream=True, trace_id="tr_1")
EMBEDDED = RunRequest(provider="openai", model="m", messages=[], inputs=["a", "b"], stream=False, dimensions=3)


def test_a_stub_says_what_was_asked_and_that_no_more_is_known() -> None:
    stub = request_stub("sp_1", ASKED)

    assert (stub.span_id, stub.rank, stub.kind, stub.streamed) == ("sp_1", Rank.STUB, "llm", True)
    assert (stub.status, stub.error_type, stub.trace_id) == ("error", LOST, "tr_1")


def test_texts_to_embed_make_a_span_of_their_own_kind() -> None:
    stub, content = request_stub("sp_1", EMBEDDED), request_content(EMBEDDED)

    assert (stub.kind, stub.streamed, stub.parameters) == ("embedding", False, {"dimensions": 3})
    assert (content.inputs, content.messages) == (["a", "b"], [])


def test_of_parameters_only_what_was_given_is_kept_and_of_options_the_names() -> None:
    asked = msgspec.structs.replace(
        ASKED,
        temperature=0.0,
        seed=0,
        parallel_tool_calls=False,
        metadata={"team": "a"},
        stop_sequences=["x"],
        response_format={"type": "json_object"},
        custom_options={"secret": "value"},
        tools=[Tool("look")],
    )

    assert parameters(ASKED) == {}
    assert parameters(asked) == {
        "temperature": 0.0,
        "seed": 0,
        "parallel_tool_calls": False,
        "metadata": {"team": "a"},
        "stop_sequences": ["x"],
        "response_format": {"type": "json_object"},
        "custom_options": ["secret"],
    }


def test_what_json_cannot_carry_is_left_out() -> None:
    assert parameters(msgspec.structs.replace(ASKED, response_format={"type": object()})) == {"response_format": None}


def test_a_span_of_exactly_the_most_bytes_is_kept_whole_and_one_more_costs_its_content() -> None:
    span = request_stub("sp_1", ASKED)
    room = (
        MAX_SPAN_BYTES - len(encode_span(msgspec.structs.replace(span, content=bytes(MAX_SPAN_BYTES)))) + MAX_SPAN_BYTES
    )
    fitting = msgspec.structs.replace(span, content=bytes(room))
    assert len(encode_span(fitting)) == MAX_SPAN_BYTES

    assert decode_span(encode_bounded(fitting)) == fitting
    kept = decode_span(encode_bounded(msgspec.structs.replace(span, content=bytes(room + 1))))
    assert (kept.content, kept.content_note, kept.trace_id) == (b"", TOO_LARGE, "tr_1")


def test_a_span_that_is_too_large_without_its_content_keeps_its_facts_alone() -> None:
    large = msgspec.structs.replace(
        request_stub("sp_1", ASKED), tags=["x" * MAX_SPAN_BYTES], content=b"y", user_id="ann"
    )

    kept = decode_span(encode_bounded(large))

    assert (kept.span_id, kept.model, kept.status, kept.trace_id) == ("sp_1", "gpt-4o", "error", "tr_1")
    assert (kept.tags, kept.user_id, kept.content, kept.content_note) == ([], None, b"", TOO_LARGE)


def test_the_most_that_a_span_may_have_is_more_than_a_request_and_less_than_a_frame() -> None:
    assert MAX_SPAN_BYTES == 56 * 1024 * 1024
    assert MAX_REQUEST_BYTES < MAX_SPAN_BYTES < 64 * 1024 * 1024


def test_a_stub_has_each_field_of_its_request_in_its_own_place() -> None:
    asked = RunRequest(
        provider="p", model="m", messages=[Message("user", "x")], stream=True, trace_id="tr_1", parent_span_id="sp_2",
        traceparent="00-1", tags=["t"], user_id="u", session_id="s", temperature=0.5,
    )  # fmt: skip
    attempts = [SpanAttempt(3)]

    assert request_stub("sp_1", asked, 1.0, 2.0, 3.0, "rate", attempts) == Span(
        span_id="sp_1", rank=Rank.STUB, provider="p", model="m", trace_id="tr_1", parent_span_id="sp_2",
        traceparent="00-1", kind="llm", streamed=True, status="error", error_type=LOST, tags=["t"], user_id="u",
        session_id="s", parameters={"temperature": 0.5}, started_at=1.0, ended_at=2.0, queue_seconds=3.0,
        queue_reason="rate", attempts=attempts,
    )  # fmt: skip
