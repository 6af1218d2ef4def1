"""What a sink does after a server's answer, and when it tries again."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.spans.span import Rank, Span, SpanAttempt, SpanContent, encode_content
from headrace.spans.span_database import StoredSpan
from headrace.text.secret_mask import SecretMask
from headrace.types import Message
from headrace_engine.spans.sinks.answer_policy import (
    MAX_RETRY_AFTER,
    MAX_TRIES_OF_ONE,
    Blocked,
    Delivered,
    Retry,
    ServerAnswer,
    SpanSetAside,
    SplitBatch,
    Undeliverable,
    Verdict,
    joined_verdict,
    seconds_to_wait,
    verdict_on,
)
from headrace_engine.spans.sinks.circuit import (
    HELD_DELAY,
    MAX_HELD_PERIOD,
    MAX_PERIOD,
    OPEN_AFTER,
    BatchLimit,
    Circuit,
)
from headrace_engine.spans.sinks.content_policy import without_content
from headrace_engine.spans.sinks.settle_time import SETTLE_SECONDS, SettleTime

NOW = 1_795_000_000.0


def verdict(status: int, *, spans: int = 8, tries: int = 1, retry_after: str = "", body: bytes = b"") -> Verdict:
    return verdict_on(ServerAnswer(status, retry_after, body), spans, tries, NOW, SecretMask(["key-1234567"]))


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_success_delivers_the_batch(status: int) -> None:
    assert verdict(status) == Delivered(8)


@pytest.mark.parametrize("status", [400, 422])
def test_a_malformed_span_is_given_up_only_if_it_is_refused_alone(status: int) -> None:
    assert isinstance(verdict(status), SplitBatch)
    assert isinstance(verdict(status, spans=1), Undeliverable)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 529, 599])
def test_a_passing_error_is_tried_again(status: int) -> None:
    assert isinstance(verdict(status), Retry)


@pytest.mark.parametrize("status", [301, 302, 401, 402, 403, 404, 405, 410, 415, 501])
def test_an_error_that_the_operator_can_mend_keeps_the_spans(status: int) -> None:
    assert isinstance(verdict(status), Blocked)


def test_a_batch_that_is_too_large_is_halved_and_a_single_span_that_is_too_large_is_given_up() -> None:
    assert isinstance(verdict(413, spans=2), SplitBatch)
    assert isinstance(verdict(413, spans=1), Undeliverable)


def test_a_span_that_breaks_the_server_each_time_does_not_hold_up_the_others_forever() -> None:
    assert isinstance(verdict(500, spans=1, tries=MAX_TRIES_OF_ONE - 1), Retry)
    assert isinstance(verdict(500, spans=1, tries=MAX_TRIES_OF_ONE), Undeliverable)
    # An outage says so with another status, and costs no span however long it lasts.
    assert isinstance(verdict(503, spans=1, tries=10 * MAX_TRIES_OF_ONE), Retry)
    assert isinstance(verdict(500, spans=2, tries=10 * MAX_TRIES_OF_ONE), Retry)


@pytest.mark.parametrize("said", ["key-1234567", "key-123456", "key%2D1234567", "a2V5LTEyMzQ1Njc=", "KEY-1234567"])
@pytest.mark.parametrize("status", [400, 401, 413, 500, 503])
def test_a_server_that_quotes_the_key_is_not_quoted(said: str, status: int) -> None:
    reason = getattr(verdict(status, spans=1, body=f"no such key: {said}".encode()), "reason", "")

    assert "[key]" in reason
    assert not any(part in reason for part in ("1234", "EyMz"))


def test_retry_after_is_seconds_or_a_date_and_has_a_bound() -> None:
    assert verdict(429, retry_after="7") == Retry("HTTP 429 Too Many Requests", 7.0)
    assert verdict(503, retry_after=formatdate(NOW + 30, usegmt=True)) == Retry("HTTP 503 Service Unavailable", 30.0)
    assert seconds_to_wait(formatdate(NOW - 30, usegmt=True), NOW) == 0.0
    assert seconds_to_wait("86400", NOW) == MAX_RETRY_AFTER
    assert seconds_to_wait(formatdate(NOW + 86400, usegmt=True), NOW) == MAX_RETRY_AFTER


@given(st.text())
def test_nonsense_in_retry_after_is_no_error(text: str) -> None:
    wait = seconds_to_wait(text, NOW)

    assert wait is None or 0 <= wait <= MAX_RETRY_AFTER


@given(st.integers(200, 599), st.binary(max_size=300), st.integers(1, 300))
def test_every_answer_has_a_verdict(status: int, body: bytes, spans: int) -> None:
    assert isinstance(verdict(status, body=body, spans=spans), Verdict)


def test_the_servers_words_are_quoted_without_our_key() -> None:
    said = verdict(401, body=b'{"error":\n "no such key: key-1234567"}')

    assert said == Blocked('HTTP 401 Unauthorized: {"error": "no such key: [key]"}')
    assert verdict(404, body=b"<html><h1>nginx</h1>") == Blocked("HTTP 404 Not Found")
    assert verdict(400, spans=1, body=b"\x08\x03\x12\x04oops") == Undeliverable("HTTP 400 Bad Request")


def test_spans_sent_one_by_one_are_done_up_to_the_first_failure() -> None:
    one = Delivered(1)

    assert joined_verdict([one, one]) == Delivered(2)
    assert joined_verdict([one, Undeliverable("bad"), one, Retry("busy"), one]) == Delivered(
        3, rejected=1, reason="bad", aside=(SpanSetAside(1, "bad"),)
    )
    assert joined_verdict([Retry("busy", 3.0), one, one]) == Retry("busy", 3.0)
    assert joined_verdict([Blocked("no"), one]) == Blocked("no")


def test_the_circuit_opens_after_failures_in_a_row_and_closes_with_a_success() -> None:
    circuit, states = Circuit(), []
    for _ in range(OPEN_AFTER + 1):
        states.append(circuit.state)
        circuit.failed(None, now=0.0, random=0.5)
    circuit.answered()
    states.append(circuit.state)

    assert states == ["ok", *["retrying"] * (OPEN_AFTER - 1), "open", "ok"]


def test_waits_grow_and_have_a_bound() -> None:
    circuit, now, waits = Circuit(), 1000.0, []
    for _ in range(100):
        circuit.failed(None, now, random=1.0)
        waits.append(circuit.due - now)
        now = circuit.due

    assert waits == sorted(waits)
    assert waits[0] < 1
    assert waits[-1] == MAX_PERIOD


@given(st.floats(0, 1), st.integers(1, 40))
def test_an_open_circuit_never_tries_again_at_once(random: float, failures: int) -> None:
    circuit = Circuit()
    for _ in range(failures):
        circuit.failed(None, 0.0, random)

    assert 0 <= circuit.due <= MAX_PERIOD
    if circuit.state == "open":
        assert circuit.due >= 1


@given(st.floats(0, 1), st.floats(0, MAX_RETRY_AFTER))
def test_a_server_is_never_asked_earlier_than_it_says(random: float, after: float) -> None:
    circuit = Circuit()
    circuit.failed(after, 5.0, random)

    assert circuit.due >= 5.0 + after


def test_a_refusal_opens_the_circuit_at_once_for_long() -> None:
    circuit = Circuit()
    circuit.held(0.0, random=0.0)

    assert circuit.state == "open"
    assert circuit.due >= HELD_DELAY / 2

    for _ in range(20):
        circuit.held(0.0, random=1.0)
    assert circuit.due == MAX_HELD_PERIOD


def test_a_batch_that_was_too_much_is_halved_and_grows_again() -> None:
    batch = BatchLimit(256)
    batch.was_too_much(256)
    batch.was_too_much(128)
    assert batch.limit == 64

    batch.was_taken()
    assert 64 < batch.limit < 128

    for _ in range(100):
        batch.was_taken()
    assert batch.limit == 256


@given(st.integers(1, 1000))
def test_the_smallest_batch_has_one_span(most: int) -> None:
    batch = BatchLimit(most)
    for _ in range(20):
        batch.was_too_much(batch.limit)

    assert batch.limit == 1


def row(seq: int, rank: Rank) -> StoredSpan:
    return StoredSpan(seq, Span(span_id=f"sp_{seq:016x}", rank=rank, provider="openai", model="m"), None)


def test_a_record_that_may_be_replaced_waits_a_moment_for_a_better_one() -> None:
    settling = SettleTime()
    rows = [row(1, Rank.WORKER), row(2, Rank.STUB), row(3, Rank.WORKER), row(4, Rank.CLIENT)]

    assert [stored.seq for stored in settling.ready(rows, last=4, now=10.0)] == [1]
    assert settling.due == 10.0 + SETTLE_SECONDS
    assert list(settling.ready(rows[1:], last=4, now=11.0)) == []

    # In the meantime number 4 was replaced by number 5; all others stay as they are.
    left = [row(2, Rank.STUB), row(3, Rank.WORKER), row(5, Rank.WORKER)]
    assert [stored.seq for stored in settling.ready(left, last=5, now=12.0)] == [2, 3, 5]
    assert settling.due is None


def test_many_such_records_wait_together() -> None:
    settling = SettleTime()
    rows = [row(seq, Rank.STUB) for seq in range(1, 1001)]

    assert list(settling.ready(rows, last=1000, now=0.0)) == []
    assert len(list(settling.ready(rows, last=1000, now=SETTLE_SECONDS))) == 1000


def test_without_permission_no_content_is_sent() -> None:
    secret = "the secret"
    span = Span(
        span_id="sp_00000000000000aa",
        rank=Rank.WORKER,
        provider="openai",
        model="m",
        error=f"invalid tool call: {secret}",
        content=encode_content(SpanContent(messages=[Message("user", secret)], text=secret)),
        attempts=[SpanAttempt(1, "w1", outcome="provider_protocol", reason=secret, status_code=200)],
        parameters={
            "temperature": 0.5,
            "reasoning_effort": "low",
            "response_format": {"type": "json_schema", "schema": {"description": secret}},
            "custom_options": ["seed", "prediction"],
            "further": {"note": secret},
        },
    )

    stripped = without_content(StoredSpan(1, span, 0.5))

    assert secret not in repr(stripped)
    assert stripped.cost == 0.5
    assert stripped.span.content_note == "policy"
    assert stripped.span.attempts[0].status_code == 200
    assert stripped.span.parameters == {
        "temperature": 0.5,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema"},
        "custom_options": ["seed", "prediction"],
    }
