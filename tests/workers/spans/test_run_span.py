"""The span of a run has all of its answer, how and when it ended, and nothing secret."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.spans.encoded_span import MAX_SPAN_BYTES, TOO_LARGE, encode_bounded, parameters
from headrace.spans.span import (
    BEATEN,
    CLIENT_LOST,
    LOST,
    ContentToolCall,
    Rank,
    Span,
    SpanAttempt,
    SpanContent,
    decode_span,
    encode_span,
)
from headrace.text.secret_mask import SecretMask
from headrace.types import Message, ReasoningDelta, RunEvent, ToolCallDelta, Usage, UsageUpdate
from headrace.wire.messages import (
    WINDOW_CHARACTERS,
    AbortMode,
    Chunk,
    Failed,
    FailureKind,
    Finished,
    Run,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.run_commands import Commands
from headrace_workers.runs.timeouts import ClockLimits, Clocks
from headrace_workers.runs.transcript import Transcript
from headrace_workers.spans.run_span import (
    EndedRun,
    Moment,
    begun_span,
    ended_span,
    received_content,
    refused_span,
)
from tests.repetition import repeated
from tests.workers.runs.driven import messages_of_core, received_by

SPAN = "sp_0123456789abcdef"
SSE = {"content-type": "text/event-stream", "x-request-id": "req_7"}
JSON = {"content-type": "application/json"}
DONE = b"data: [DONE]\n\n"
KEY = "sk-secret-0123"
ARRIVED = Moment(1_000_000.0, 50.0)


def sse(**chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return sse(id="chatcmpl-1", model="m-1", choices=[{"index": 0, "delta": fields}])


def text(content: str) -> bytes:
    return delta(content=content)


def stop(reason: str = "stop") -> bytes:
    return sse(choices=[{"index": 0, "delta": {}, "finish_reason": reason}])


def usage(tokens: int) -> bytes:
    return sse(choices=[], usage={"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens})


class Traced:
    """A run with a span: the events that its client was sent, and the span at the end."""

    def __init__(
        self, *, credit: int = 64, queued: float = 0.0, attempt: int = 1, run_fields: Any = None, **fields: Any
    ) -> None:
        self.now = ARRIVED.monotonic
        values: dict[str, Any] = {
            "provider": "openai",
            "model": "m",
            "messages": [Message("user", "x" * 40)],
            "stream": True,
        } | fields
        request = RunRequest(**values)
        run = Run(SPAN, attempt, 7, b"", credit, WINDOW_CHARACTERS, KEY, queued)
        run = msgspec.structs.replace(run, **(run_fields or {}))
        self.stub = begun_span(run, request, "w1", ARRIVED)
        clocks = Clocks(
            ClockLimits(connect=math.inf, first_chunk=10.0, idle=math.inf, total=600.0, reader=math.inf), self.now
        )
        self.core = ProviderRun(run, request, WIRE_FORMATS["openai-chat"].api, clocks, SecretMask([KEY]), Transcript())
        self.sent = ""

    def after(self, seconds: float) -> Traced:
        self.now = ARRIVED.monotonic + seconds
        return self

    def take(self, _: Commands = ()) -> Traced:
        messages, _ = messages_of_core(self.core, self.now)
        for message in messages:
            if isinstance(message, Chunk):
                self.sent += "".join(event for event in message.events if isinstance(event, str))
        return self

    def respond(self, status: int = 200, headers: dict[str, str] | None = None) -> Traced:
        self.core.clocks.connected()
        return self.take(self.core.responded(status, SSE if headers is None else headers, self.now))

    def receive(self, *data: bytes) -> Traced:
        return self.take(received_by(self.core, b"".join(data), self.now))

    def complete(self) -> Traced:
        return self.take(self.core.completed(self.now))

    def fail(self, stage: str = "read", reason: str = "reset") -> Traced:
        return self.take(self.core.failed(stage, reason, 0.0))

    @property
    def span(self) -> Span:
        return ended_span(self.stub, self.core.for_span(), ARRIVED, self.now)

    @property
    def attempt(self) -> SpanAttempt:
        return self.span.attempts[0]

    @property
    def content(self) -> SpanContent:
        return received_content(self.core.for_span())


# How it ended.


def test_a_run_that_ended_well_has_all_of_its_answer() -> None:
    run = Traced(queued=2.0).after(0.5).respond().after(1.0).receive(text("Hel")).receive(text("lo"))
    run.after(3.0).receive(stop(), usage(5), DONE)

    span = run.span
    assert (span.span_id, span.rank, span.status, span.error_type, span.error) == (SPAN, Rank.WORKER, "ok", None, None)
    assert (span.finish_reason, span.provider_finish_reason) == ("stop", "stop")
    assert (span.model, span.response_model, span.response_id) == ("m", "m-1", "chatcmpl-1")
    assert span.usage == Usage(5, 5, 10, source="provider")
    assert run.content == SpanContent(messages=[Message("user", "x" * 40)], text="Hello")
    assert run.attempt == SpanAttempt(
        1, "w1", 1_000_000.0, 1_000_003.0, 1_000_000.5, 1_000_001.0, 200, "req_7", "ok", "", maybe_billed=False
    )


def test_times_are_counted_from_when_the_caller_asked() -> None:
    run = Traced(queued=2.0).after(0.5).respond().after(1.0).receive(text("a")).after(3.0).receive(stop(), DONE)

    span = run.span
    assert (span.started_at, span.ended_at) == (999_998.0, 1_000_003.0)
    assert (span.duration_seconds, span.queue_seconds, span.first_chunk_seconds) == (5.0, 2.0, 3.0)


@pytest.mark.parametrize("queued", [math.nan, math.inf, -1.0, 1e12])
def test_an_impossible_waiting_time_is_zero(queued: float) -> None:
    assert Traced(queued=queued).stub.queue_seconds == 0.0


def test_a_span_says_what_its_run_waited_for() -> None:
    run = Traced(queued=2.0, run_fields={"waited_for": "limit"}).respond().receive(text("a"), stop(), DONE)

    assert run.stub.queue_reason == run.span.queue_reason == "limit"
    assert decode_span(encode_span(run.span)).queue_reason == "limit"


def test_the_span_of_a_hedge_is_stored_under_the_id_of_its_run() -> None:
    run = Traced(attempt=2, run_fields={"span_id": "sp_hedge", "span_of": SPAN}).respond().receive(text("a"))
    run.receive(stop(), DONE)

    assert (run.stub.span_id, run.span.span_id, run.span.rank) == (SPAN, SPAN, Rank.WORKER)
    assert (run.attempt.number, run.attempt.is_hedge, run.attempt.outcome) == (2, True, "ok")


@pytest.mark.parametrize("is_late", [False, True], ids=["in the stream", "after its end"])
@pytest.mark.parametrize("mode", ["close", "drain"])
def test_an_attempt_that_was_beaten_leaves_the_span_to_the_faster_one(mode: AbortMode, is_late: bool) -> None:
    run = Traced(credit=1).respond().receive(text("one "))
    if is_late:
        run.receive(text("two"), stop(), usage(3), DONE)
    run.take(run.core.aborted(mode, run.now, is_beaten=True))

    span = run.span
    assert (span.rank, span.status, span.error_type) == (Rank.STUB, "error", LOST)
    assert (run.attempt.outcome, run.attempt.status_code, run.attempt.maybe_billed) == (BEATEN, 200, not is_late)
    assert not span.usage.output_tokens, "the usage of the run is that of the faster attempt"


def test_the_span_of_an_aborted_run_has_sent_and_unsent_text() -> None:
    run = Traced(credit=1).respond().receive(text("one ")).receive(text("two"))
    assert run.sent == "one "
    run.take(run.core.aborted("close", run.now))

    assert (run.span.status, run.span.error_type, run.span.finish_reason) == ("aborted", None, None)
    assert run.content.text == "one two"
    assert run.span.usage.source == "estimated"
    assert (run.attempt.outcome, run.attempt.maybe_billed) == ("aborted", True)


def test_a_run_read_to_its_end_after_an_abort_has_the_whole_answer_and_exact_usage() -> None:
    run = Traced().respond().receive(text("one "))
    run.core.aborted("drain", run.now)
    run.receive(text("two")).receive(stop(), usage(3), DONE)

    assert run.sent == "one "
    assert run.content.text == "one two"
    assert (run.span.status, run.span.usage.source, run.attempt.maybe_billed) == ("aborted", "provider", False)


def test_the_span_of_a_run_without_a_client_says_so() -> None:
    run = Traced(credit=1).respond().receive(text("one "), text("two"))

    span = run.span
    assert (span.status, span.error_type, run.attempt.outcome) == ("aborted", CLIENT_LOST, CLIENT_LOST)
    assert run.content.text.startswith(run.sent)
    assert run.attempt.maybe_billed
    assert span.response_id == "chatcmpl-1"


def test_the_span_has_text_that_came_after_the_client_went_away() -> None:
    run = Traced(credit=1).respond().receive(text("one "))
    run.core.received(text("two"), run.now)
    assert run.content.text == "one two"


def test_a_refused_run_has_the_error_and_was_not_billed() -> None:
    run = Traced().respond(429, {"request-id": "req_9"}).receive(b'{"error":{"message":"slow down"}}').complete()

    span = run.span
    assert (span.status, span.error_type) == ("error", "RateLimitError")
    assert "slow down" in (span.error or "")
    assert (run.attempt.status_code, run.attempt.request_id, run.attempt.maybe_billed) == (429, "req_9", False)
    assert (run.attempt.outcome, run.attempt.first_chunk_at) == ("RateLimitError", None)


def test_a_cut_stream_has_its_part_and_may_be_billed() -> None:
    run = Traced().respond().receive(text("one ")).fail()

    assert (run.span.error_type, run.content.text) == ("ProviderProtocolError", "one ")
    assert run.span.usage.source == "estimated"
    assert run.attempt.maybe_billed


def test_a_run_that_never_reached_its_provider_was_not_billed() -> None:
    run = Traced().fail("connect", "refused")
    assert (run.span.error_type, run.attempt.maybe_billed) == ("ProviderUnavailableError", False)


def test_a_run_that_timed_out_with_the_request_sent_may_be_billed() -> None:
    run = Traced()
    run.core.clocks.connected()
    run.after(11.0).take(run.core.due(run.now))

    assert (run.span.error_type, run.attempt.maybe_billed) == ("RunTimeoutError", True)
    assert "first_chunk" in (run.span.error or "")


def test_content_that_follows_usage_stops_the_first_chunk_clock() -> None:
    run = Traced().respond().receive(usage(3)).after(1.0).receive(text("a"))

    assert run.core.due(ARRIVED.monotonic + 100.0) == ()
    assert run.receive(stop(), DONE).span.first_chunk_seconds == 1.0


def test_the_span_of_a_run_that_was_given_back_has_the_lowest_rank() -> None:
    run = Traced()
    run.take(run.core.stopped("the worker ends", 0.0))
    assert (run.span.rank, run.span.error_type) == (Rank.STUB, "WorkerLostError")

    begun = Traced().respond().receive(text("a"))
    begun.take(begun.core.stopped("the worker ends", 0.0))
    assert begun.span.rank is Rank.WORKER


@pytest.mark.parametrize(
    ("kind", "error_type"),
    [("authentication", "AuthenticationError"), ("invalid_request", "InvalidRequestError")],
)
def test_a_run_that_its_worker_did_not_start_has_its_span(kind: FailureKind, error_type: str) -> None:
    run = Traced(queued=1.0)
    span = refused_span(run.stub, Failed(SPAN, 1, 0, kind, "no key"), ARRIVED, ARRIVED.monotonic + 1.0)

    assert (span.rank, span.status, span.error_type, span.error) == (Rank.WORKER, "error", error_type, "no key")
    assert (span.duration_seconds, span.attempts[0].outcome) == (2.0, error_type)


def test_the_stub_has_the_facts_of_the_request_and_no_content() -> None:
    stub = Traced(attempt=2, tags=["a"], user_id="u", session_id="s", trace_id="tr_1", parent_span_id="sp_1").stub

    assert (stub.rank, stub.status, stub.error_type, stub.content) == (Rank.STUB, "error", LOST, b"")
    assert (stub.tags, stub.user_id, stub.session_id, stub.trace_id) == (["a"], "u", "s", "tr_1")
    assert stub.attempts == [SpanAttempt(2, "w1", ARRIVED.wall)]


def test_the_stub_names_the_wire_format_in_which_the_provider_is_asked() -> None:
    request = RunRequest(
        provider="our-gateway", model="gemini-2.5-flash", messages=[Message("user", "hi")], stream=True
    )

    stub = begun_span(Run(SPAN, 1, 7, b"", 64, 65536), request, "w1", ARRIVED, WIRE_FORMATS["google"])

    attempt = stub.attempts[0]
    assert (attempt.wire_format, attempt.telemetry_provider) == ("google", "gcp.gemini")


# The content.


def test_the_span_of_a_cut_run_has_reasoning_refusals_and_calls() -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
    run = Traced().respond().receive(delta(reasoning_content="h"), delta(reasoning_content="m"))
    run.receive(delta(refusal="no"), delta(tool_calls=[call])).fail()

    content = run.content
    assert (content.reasoning, content.refusal) == ("hm", "no")
    assert content.tool_calls == [ContentToolCall("c1", "f", '{"a":')]


def test_the_span_of_a_whole_answer_has_its_parts() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    message = {"content": "Hello", "reasoning_content": "hm", "tool_calls": [call]}
    body = {"id": "r1", "model": "m-1", "choices": [{"message": message, "finish_reason": "tool_calls"}]}
    run = Traced(stream=False).respond(headers=JSON).receive(json.dumps(body).encode()).complete()

    assert (run.content.text, run.content.reasoning) == ("Hello", "hm")
    assert run.content.tool_calls == [ContentToolCall("c1", "f", '{"a":1}')]
    assert (run.span.streamed, run.span.response_id, run.span.first_chunk_seconds) == (False, "r1", None)


EVENTS: st.SearchStrategy[RunEvent] = st.one_of(
    st.text(max_size=4),
    st.builds(ReasoningDelta, st.text(max_size=3)),
    st.builds(ToolCallDelta, st.integers(0, 2), st.none(), st.none(), st.text(max_size=3)),
    st.builds(UsageUpdate, st.builds(Usage, st.integers(0, 9))),
)


@given(st.lists(st.lists(EVENTS, max_size=80), max_size=8))
@settings(max_examples=repeated(30, 80))
def test_a_transcript_has_each_piece_in_its_order(chunks: list[list[RunEvent]]) -> None:
    transcript = Transcript()
    for chunk in chunks:
        transcript.add(list(chunk))
    said = transcript.assembled()

    events = [event for chunk in chunks for event in chunk]
    assert said.text == "".join(event for event in events if isinstance(event, str))
    assert said.reasoning == "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    pieces = [event for event in events if isinstance(event, ToolCallDelta)]
    for index, call in zip(sorted({piece.index for piece in pieces}), said.tool_calls, strict=True):
        assert call.arguments == "".join(piece.arguments for piece in pieces if piece.index == index)


@given(
    letters=st.lists(st.text("ab", min_size=1, max_size=5), max_size=30),
    credit=st.integers(1, 8),
    end=st.sampled_from([Traced.fail, Traced.complete, lambda run: run.take(run.core.aborted("close", run.now))]),
)
@settings(max_examples=repeated(30, 60))
def test_the_spans_text_begins_with_the_text_that_the_client_got(
    letters: list[str], credit: int, end: Callable[[Traced], object]
) -> None:
    run = Traced(credit=credit).respond()
    for letter in letters:
        run.receive(text(letter))
    end(run)

    assert run.content.text == "".join(letters)
    assert run.content.text.startswith(run.sent)


# What must not be written.


def test_a_key_that_a_provider_quotes_is_not_in_the_span() -> None:
    body = json.dumps({"error": {"message": f"bad key {KEY}", "code": KEY}}).encode()
    run = Traced().respond(401, {}).receive(body).complete()

    assert run.span.error_type == "AuthenticationError"
    assert KEY.encode() not in encode_span(run.span)


def test_only_the_names_of_custom_options_are_kept() -> None:
    run = Traced(custom_options={"extra_headers": {"authorization": KEY}}, temperature=0.5, stop_sequences=["\n"])

    assert parameters(run.core.request) == {
        "temperature": 0.5,
        "stop_sequences": ["\n"],
        "custom_options": ["extra_headers"],
    }
    assert KEY.encode() not in encode_span(run.stub)


def test_a_span_too_long_for_a_frame_is_kept_without_its_content() -> None:
    whole = msgspec.structs.replace(Traced().stub, content=b"x" * MAX_SPAN_BYTES)
    kept = decode_span(encode_bounded(whole))

    assert (kept.span_id, kept.content, kept.content_note) == (SPAN, b"", TOO_LARGE)
    assert decode_span(encode_bounded(Traced().stub)) == Traced().stub


def test_a_span_that_cannot_be_encoded_is_kept_with_its_values_replaced() -> None:
    odd = msgspec.structs.replace(
        Traced().stub, error="\ud800", user_id="a\ud800", parameters={"max_output_tokens": 2**70}
    )
    kept = decode_span(encode_bounded(odd))
    assert (kept.span_id, kept.provider, kept.error, kept.user_id) == (SPAN, "openai", "\ufffd", "a\ufffd")
    assert kept.parameters == {"max_output_tokens": 2**63 - 1}


def test_an_ended_span_has_each_field_of_its_stub_and_of_the_facts_in_its_own_place() -> None:
    begun = SpanAttempt(3, "w1", 4.0, wire_format="f", telemetry_provider="t", provider="q", model="n", is_hedge=True)
    stub = Span(
        span_id="sp_1", rank=Rank.STUB, provider="p", model="m", trace_id="tr_1", parent_span_id="sp_2",
        traceparent="00-1", kind="embedding", streamed=True, error_type=LOST, started_at=1.0, ended_at=2.0,
        queue_seconds=3.0, tags=["t"], user_id="u", session_id="s", parameters={"x": 1}, attempts=[begun],
        queue_reason="rate",
    )  # fmt: skip
    used = Usage(1, 2, 3)
    facts = EndedRun(
        request=RunRequest(provider="p", model="m", messages=[], stream=True),
        terminal=Finished("sp_1", 3, 0, 0, "max_tokens", "length", used, [], "answered"),
        headers_at=51.0,
        content_at=52.0,
        status_code=201,
        request_id="req_1",
        response_id="resp_1",
        maybe_billed=True,
        usage=used,
        received=None,
        mask=SecretMask([]),
    )
    wall = ARRIVED.wall

    ended = ended_span(stub, facts, ARRIVED, 55.0, b"content", "note")

    assert ended == msgspec.structs.replace(
        stub, rank=Rank.WORKER, status="ok", error_type=None, ended_at=wall + 5.0, duration_seconds=8.0,
        first_chunk_seconds=5.0, usage=used, response_model="answered", response_id="resp_1",
        finish_reason="max_tokens", provider_finish_reason="length", content=b"content", content_note="note",
        attempts=[
            msgspec.structs.replace(
                begun, ended_at=wall + 5.0, headers_at=wall + 1.0, first_chunk_at=wall + 2.0, status_code=201,
                request_id="req_1", outcome="ok", reason="", maybe_billed=True,
            )
        ],
    )  # fmt: skip
