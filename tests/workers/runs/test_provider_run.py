"""A run in its worker sends everything in order, within its credit, and one terminal message at the end."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.settings.settings import Settings, with_built_in
from headrace.types import Message, ReasoningDelta, Usage
from headrace.wire.codec import decode_request, encode_request
from headrace.wire.messages import (
    WINDOW_CHARACTERS,
    WINDOW_EVENTS,
    Aborted,
    AbortMode,
    Credit,
    ToolCallText,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.sse import MAX_EVENT_BYTES
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderFailure
from headrace_workers.runs.provider_run import MAX_ERROR_BODY
from headrace_workers.runs.run_commands import Command, Commands
from headrace_workers.worker_settings import Providers
from tests.repetition import repeated
from tests.workers.runs.driven import CLOSE_ONE, DONE, FINISH_ONE, JSON, SPAN, Driven, delta, sse, stop, text, usage

# From the response to the client.


def test_text_arrives() -> None:
    run = Driven().respond()
    assert run.receive(delta(role="assistant")) == ()
    assert run.receive(text("Hel")) == (Command.SEND,)
    assert run.receive(text("lo")) == (Command.SEND,)

    assert run.sent == ["Hel", "lo"]


def test_the_terminal_message_comes_once_after_the_last_chunk() -> None:
    run = Driven().respond()
    run.receive(text("Hel"))

    assert run.receive(text("lo"), stop(), usage(5), DONE) == FINISH_ONE
    assert run.finished.text_length == 5
    assert run.finished.sequence == len(run.sent)
    assert (run.finished.finish_reason, run.finished.model) == ("stop", "m-1")
    assert run.finished.usage == Usage(5, 5, 10, source="provider")

    assert run.core.is_over
    assert run.receive(text("late")) == ()
    assert run.complete() == ()
    assert run.fail("read") == ()
    assert run.due(1e9) == ()
    run.take()
    assert run.text == "Hello"


def test_reasoning_and_tool_calls_are_events_of_their_own() -> None:
    run = Driven().respond()
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
    run.receive(delta(reasoning_content="hm"), delta(tool_calls=[call]))
    run.receive(delta(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]), stop("tool_calls"), DONE)

    assert run.sent[0] == ReasoningDelta("hm")
    assert run.finished.tool_calls == [ToolCallText("c1", "f", '{"a":1}')]
    assert run.finished.text_length == 0


def test_a_run_without_streaming_sends_one_message() -> None:
    run = Driven(stream=False).respond(headers=JSON)
    body = {"model": "m-1", "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    assert run.receive(json.dumps(body).encode()) == (Command.SET_TIMER,)

    assert run.complete() == FINISH_ONE
    assert run.sent == []
    assert run.finished.message == Message("assistant", "Hello")
    assert (run.finished.sequence, run.finished.text_length) == (0, 0)


# Credit.


def test_out_of_credit_events_wait_and_are_merged() -> None:
    run = Driven(sequence_limit=1).respond()
    run.receive(text("a"))
    for letter in "bcd":
        assert run.receive(text(letter)) == ()

    assert run.credit(1, 0) == (Command.SEND,)
    assert run.text.startswith("ab")
    run.credit(10, 0)
    assert run.text == "abcd"


def test_a_terminal_message_waits_for_the_events_before_it() -> None:
    run = Driven(sequence_limit=1).respond()
    run.receive(text("a"))
    run.receive(text("b"), stop(), DONE)
    assert run.terminal is None
    assert run.is_closed

    run.credit(10, 0)
    assert run.text == "ab"
    assert run.finished.sequence == len(run.sent)


def test_after_a_stall_at_most_a_window_is_read_at_once() -> None:
    """Else one turn would read everything in the kernel, also with credit: events leave at its end."""
    run = Driven(sequence_limit=1000, character_limit=10 * WINDOW_CHARACTERS).respond()
    received = run.core.received(text("a" * WINDOW_CHARACTERS), 0.0)
    assert received == (Command.PAUSE, Command.SEND)

    assert run.core.take(0.0)[1] == (Command.RESUME,)


def test_a_full_window_stops_reading_until_it_has_left() -> None:
    run = Driven(sequence_limit=1).respond()
    run.receive(text("a"))
    assert run.receive(text("b" * (WINDOW_CHARACTERS - 1))) == ()
    assert run.receive(text("c")) == (Command.PAUSE,)
    assert run.receive(text("d")) == (), "what was on its way is taken"

    run.credit(WINDOW_EVENTS, 0)
    assert run.is_paused, "there is credit for events, not for letters"
    run.credit(0, WINDOW_CHARACTERS)
    assert not run.is_paused
    assert run.text == "a" + "b" * (WINDOW_CHARACTERS - 1) + "cd"


def test_a_repeated_or_late_credit_does_not_lower_the_limit() -> None:
    run = Driven().respond()
    run.carry_out(run.core.allow_more(Credit(SPAN, 1, 1, 1)))

    run.receive(text("ab"), text("cd"))
    assert run.text == "abcd"


def test_reading_resumes_when_waiting_events_use_up_the_credit_exactly() -> None:
    run = Driven().respond()
    for _ in range(2 * WINDOW_EVENTS):
        run.receive(text("x" * 1024))
    assert run.is_paused

    for _ in range(4):
        run.credit(WINDOW_EVENTS // 2, WINDOW_CHARACTERS // 2)

    assert len(run.text) == 2 * WINDOW_CHARACTERS
    assert not run.is_paused


# Readers that stall, workers that stop.


def stalled(reader: float = math.inf, idle: float = math.inf, total: float = math.inf) -> Driven:
    """Return a run that has sent "a", and has a whole window waiting."""
    run = Driven(sequence_limit=1, reader=reader, idle=idle, total=total).respond()
    run.receive(text("a"))
    run.receive(text("b" * WINDOW_CHARACTERS))
    assert run.is_paused
    return run


def test_a_reader_that_takes_nothing_for_too_long_ends_its_run() -> None:
    run = stalled(reader=300.0, idle=2.0)
    assert run.due(299.0) == ()

    assert run.due(300.0) == CLOSE_ONE
    assert (run.failure.kind, run.failure.clock, run.failure.limit) == ("timeout", "reader", 300.0)
    assert (run.failure.sequence, run.failure.partial_text) == (1, "b" * WINDOW_CHARACTERS)


def test_the_reader_clock_starts_anew_when_the_reader_takes_events() -> None:
    run = stalled(reader=300.0)
    run.now = 200.0
    run.credit(1, 0)
    assert run.due(499.0) == ()

    run.due(500.0)
    assert run.failure.clock == "reader"


def test_a_complete_run_waits_for_its_reader_no_longer() -> None:
    run = Driven(sequence_limit=1, reader=300.0).respond()
    run.receive(text("a"))
    run.receive(text("b"), stop(), usage(3), DONE)
    assert run.due(299.0) == ()

    assert run.due(300.0) == (Command.SEND,)
    assert (run.failure.clock, run.failure.partial_text) == ("reader", "b")


def test_a_stalled_reader_hears_of_a_total_timeout() -> None:
    run = stalled(reader=300.0, total=10.0)
    run.due(10.0)
    assert run.is_closed
    assert run.terminal is None

    run.due(300.0)
    assert (run.failure.clock, run.failure.sequence) == ("total", 1)


def test_a_stopping_worker_ends_a_run_with_its_partial_text() -> None:
    run = Driven().respond()
    run.receive(text("a"))

    assert run.carry_out(run.core.stopped("it stops", run.now)) == CLOSE_ONE
    assert (run.failure.kind, run.failure.reason, run.failure.sequence) == ("worker_stopping", "it stops", 1)
    assert run.carry_out(run.core.stopped("it stops", run.now)) == (Command.SEND,)


def test_a_stopping_worker_does_not_wait_for_a_reader() -> None:
    run = stalled()
    run.carry_out(run.core.stopped("it stops", run.now))
    assert run.failure.partial_text == "b" * WINDOW_CHARACTERS

    run = Driven(sequence_limit=1).respond()
    run.receive(text("a"))
    run.receive(text("b"), stop(), DONE)
    run.carry_out(run.core.stopped("it stops", run.now))
    assert (run.failure.kind, run.failure.partial_text) == ("worker_stopping", "b")


def test_a_run_that_is_complete_stays_so_when_its_worker_stops() -> None:
    run = Driven().respond()
    run.receive(text("a"))
    run.core.received(stop() + DONE, 0.0)

    run.carry_out(run.core.stopped("it stops", run.now))
    assert run.finished.sequence == 1


def test_an_aborted_run_stays_aborted_when_its_worker_stops() -> None:
    run = Driven().respond()
    run.receive(text("a"))
    run.abort("drain")

    run.carry_out(run.core.stopped("it stops", run.now))
    assert run.aborted.sequence == 1


PIECES = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=6),
        st.sampled_from([1024, 4096, 16384, 32768]).map("x".__mul__),
        st.integers(1, 20_000).map("y".__mul__),
        st.builds(ReasoningDelta, st.text(min_size=1, max_size=6)),
    ),
    max_size=12,
)
CREDITS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 1, 77, 1024, 32768, 65536])), max_size=12)


@settings(deadline=None, max_examples=repeated(30, 150), suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.data(),
    pieces=PIECES,
    first=st.tuples(st.integers(1, 64), st.sampled_from([1, 1024, 32768, 65536])),
    allowed=CREDITS,
)
def test_everything_arrives_once_and_in_order_with_any_splits_and_credits(
    data: st.DataObject, pieces: list[str | ReasoningDelta], first: tuple[int, int], allowed: list[tuple[int, int]]
) -> None:
    run = Driven(sequence_limit=first[0], character_limit=first[1]).respond()
    body = b"".join(text(piece) if isinstance(piece, str) else delta(reasoning=piece.text) for piece in pieces)
    body += stop() + usage(3) + DONE
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=10)))
    reads = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    idle = 0
    while run.terminal is None:
        # A paused response brings no events. Credit may come at any time.
        if reads and not run.is_paused and (not allowed or data.draw(st.booleans())):
            run.receive(reads.pop(0))
        elif allowed:
            run.credit(*allowed.pop(0))
        else:
            run.credit(64, 70_001)
            idle += 1
        assert idle < 1000, "the run stands still"

    assert run.text == "".join(piece for piece in pieces if isinstance(piece, str))
    thoughts = "".join(event.text for event in run.sent if isinstance(event, ReasoningDelta))
    assert thoughts == "".join(piece.text for piece in pieces if isinstance(piece, ReasoningDelta))
    assert run.finished.sequence == len(run.sent)
    assert run.finished.text_length == len(run.text)
    assert run.finished.usage == Usage(3, 3, 6, source="provider")


@settings(deadline=None)
@given(
    data=st.data(),
    pieces=st.lists(st.text(min_size=1, max_size=6), max_size=6),
    mode=st.sampled_from(["close", "drain"]),
)
def test_a_run_aborted_at_any_time_ends_aborted_with_a_prefix_or_had_ended(
    data: st.DataObject, pieces: list[str], mode: AbortMode
) -> None:
    run = Driven(sequence_limit=data.draw(st.integers(1, 5))).respond()
    body = b"".join(map(text, pieces)) + stop() + usage(3) + DONE
    cut = data.draw(st.integers(0, len(body)))
    run.receive(body[:cut])
    had_ended = run.terminal is not None
    before = run.text

    run.abort(mode)
    run.abort(mode)
    run.receive(body[cut:])

    assert run.text == before
    assert "".join(pieces).startswith(run.text)
    assert had_ended or run.aborted.sequence == len(run.sent)


# Abort.


def test_abort_closes_the_response_and_tells_the_best_usage() -> None:
    run = Driven().respond()
    run.receive(text("y" * 20))

    assert run.abort() == CLOSE_ONE
    assert run.aborted.usage == Usage(10, 5, 15, source="estimated")
    assert run.text == "y" * 20


def test_abort_before_the_response_knows_of_no_usage() -> None:
    run = Driven()

    assert run.abort() == CLOSE_ONE
    assert run.aborted == Aborted(SPAN, 1, 0, Usage())


def test_abort_tells_running_usage_as_partial() -> None:
    run = Driven().respond()
    run.receive(text("a"), usage(3))

    run.abort()
    assert run.aborted.usage == Usage(3, 3, 6, source="partial")


def test_abort_drops_events_that_wait_for_credit() -> None:
    run = Driven(sequence_limit=1).respond()
    run.receive(text("a"))
    run.receive(text("b"))

    run.abort()
    assert run.text == "a"
    assert run.aborted.sequence == 1


def test_abort_of_a_run_that_has_ended_but_not_left_keeps_its_exact_usage() -> None:
    run = Driven(sequence_limit=1).respond()
    run.receive(text("a"))
    run.receive(text("b"), stop(), usage(3), DONE)

    run.abort()
    assert run.aborted == Aborted(SPAN, 1, 1, Usage(3, 3, 6, source="provider"))


def test_abort_after_the_terminal_message_changes_nothing() -> None:
    run = Driven().respond()
    run.receive(text("a"), stop(), DONE)
    end = run.finished

    run.abort()
    assert run.terminal is end


def test_drain_reads_on_for_exact_usage_and_sends_nothing_more() -> None:
    run = Driven().respond()
    run.receive(text("a"))

    assert run.abort("drain") == ()
    assert run.receive(text("b")) == ()
    assert run.receive(stop(), usage(3), DONE) == FINISH_ONE
    assert run.text == "a"
    assert run.aborted == Aborted(SPAN, 1, 1, Usage(3, 3, 6, source="provider"))


def test_drain_before_the_response_waits_for_it() -> None:
    run = Driven()
    assert run.abort("drain") == ()

    run.respond()
    run.receive(text("a"), stop(), usage(3), DONE)
    assert run.aborted.usage == Usage(3, 3, 6, source="provider")


def test_drain_of_a_paused_run_reads_on() -> None:
    run = Driven(sequence_limit=1).respond()
    run.receive(text("a"))
    run.receive(text("b" * WINDOW_CHARACTERS))
    assert run.is_paused

    run.abort("drain")
    assert not run.is_paused
    run.receive(stop(), usage(3), DONE)
    assert run.aborted.usage.source == "provider"


def test_a_drained_run_that_fails_is_aborted() -> None:
    run = Driven().respond()
    run.receive(text("y" * 20))
    run.abort("drain")

    run.fail("read")
    assert run.aborted.usage.source == "estimated"


def test_close_after_drain_closes() -> None:
    run = Driven().respond()
    run.receive(text("a"))
    run.abort("drain")

    assert run.abort("close") == CLOSE_ONE
    assert run.aborted.sequence == 1


def test_abort_twice_is_abort_once() -> None:
    run = Driven().respond()
    run.receive(text("a"))
    run.core.aborted("drain", 0.0)
    run.core.received(stop() + usage(3) + DONE, 0.0)

    run.abort("drain")
    assert run.aborted.usage == Usage(3, 3, 6, source="provider")


def test_the_idle_clock_bounds_the_drain_of_a_paused_run() -> None:
    run = Driven(sequence_limit=1, idle=2.0).respond()
    run.receive(text("a"))
    run.receive(text("b" * WINDOW_CHARACTERS))
    run.abort("drain")

    assert run.due(1000.0) == CLOSE_ONE
    assert run.aborted.sequence == 1


def test_the_first_chunk_clock_stops_at_the_first_content_also_of_a_drained_run() -> None:
    run = Driven(first_chunk=3.0).respond()
    run.abort("drain")
    run.receive(text("a"))

    assert run.due(3.0) == ()


# Responses that are not streams.


def test_a_json_body_in_place_of_a_stream_is_read_whole() -> None:
    run = Driven().respond(headers=JSON)
    body = {"model": "m-1", "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    run.receive(json.dumps(body).encode())

    assert run.complete() == FINISH_ONE
    assert run.text == "Hello"
    assert (run.finished.sequence, run.finished.text_length) == (1, 5)


def test_an_html_page_is_a_failure() -> None:
    run = Driven().respond(headers={"content-type": "text/html; charset=utf-8"})
    run.receive(b"<html><title>Sign in</title>")
    run.complete()

    assert run.failure.kind == "provider_protocol"
    assert "HTML" in run.failure.reason


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{}", b'{"choices": []}', b"<html>"])
def test_a_body_that_is_not_a_completion_is_a_failure(body: bytes) -> None:
    for stream in (True, False):
        run = Driven(stream=stream).respond(headers=JSON)
        run.receive(body)
        run.complete()
        assert run.failure.kind == "provider_protocol"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request"),
        (401, "authentication"),
        (403, "authentication"),
        (404, "invalid_request"),
        (413, "invalid_request"),
        (422, "invalid_request"),
        (429, "rate_limit"),
        (500, "provider_unavailable"),
        (503, "provider_unavailable"),
        (302, "provider_protocol"),
        (204, "provider_protocol"),
    ],
)
def test_each_error_status_is_a_failure_of_its_kind(status: int, kind: str) -> None:
    run = Driven().respond(status, {"content-type": "application/json", "x-request-id": "req_7", "retry-after": "2"})
    run.receive(b'{"error": {"message": "it says no", "code": "nope"}}')
    run.complete()

    assert run.failure.kind == kind
    assert (run.failure.status_code, run.failure.request_id) == (status, "req_7")
    assert (run.failure.reason, run.failure.code, run.failure.retry_after) == ("it says no", "nope", 2.0)


def test_only_the_first_part_of_an_error_body_is_read() -> None:
    run = Driven().respond(500, {})

    assert run.receive(b"x" * MAX_ERROR_BODY) == ()
    assert run.receive(b"x") == CLOSE_ONE
    assert len(run.failure.reason) < 1000


def test_an_error_body_that_is_cut_still_tells_its_status() -> None:
    run = Driven().respond(503, {})
    run.receive(b'{"error": {"mess')
    run.fail("read")

    assert (run.failure.kind, run.failure.status_code) == ("provider_unavailable", 503)


@pytest.mark.parametrize("status", [200, 401])
def test_a_key_in_the_providers_error_is_not_passed_on(status: int) -> None:
    run = Driven(api_key="sk-secret-123").respond(status)
    run.receive(b'data: {"error": {"message": "Incorrect API key provided: sk-secret-123"}}\n\n')
    run.complete()

    assert "sk-secret-123" not in f"{run.failure}"


@pytest.mark.parametrize("words", [480, 487, 493])
def test_a_part_of_a_key_at_the_end_of_a_cut_error_is_not_passed_on(words: int) -> None:
    run = Driven(api_key="sk-secret-123456789").respond(401)
    run.receive(b'{"error": {"message": "' + b"x" * words + b'sk-secret-123456789, which is no key"}}')
    run.complete()

    assert "sk-secret" not in f"{run.failure}"
    assert "[key]" in run.failure.reason


# Streams that go wrong.


def test_a_stream_without_an_end_is_a_failure_and_keeps_its_text() -> None:
    run = Driven().respond()
    run.receive(text("half"))
    run.complete()

    assert run.text == "half"
    assert (run.failure.kind, run.failure.sequence) == ("provider_protocol", 1)


def test_a_cut_stream_is_a_failure_and_keeps_its_text() -> None:
    run = Driven().respond()
    run.receive(text("half"), b'data: {"choices": [')

    assert run.fail("read", "connection reset") == CLOSE_ONE
    assert run.text == "half"
    assert run.failure.kind == "provider_protocol"
    assert "connection reset" in run.failure.reason


def test_a_stream_with_a_finish_reason_is_complete_without_done() -> None:
    for end in (Driven.complete, lambda run: run.fail("read")):
        run = Driven().respond()
        run.receive(text("whole"), stop())
        end(run)
        assert run.finished.text_length == 5


def test_an_event_that_is_not_json_ends_the_run() -> None:
    run = Driven().respond()
    run.receive(text("half"))

    assert run.receive(b"data: {nonsense\n\n") == CLOSE_ONE
    assert (run.failure.kind, run.text) == ("provider_protocol", "half")


def test_an_error_in_the_stream_ends_the_run_after_the_text_before_it() -> None:
    run = Driven().respond()

    run.receive(text("half"), sse(error={"message": "overloaded", "code": "overloaded"}), text("never"))
    assert run.text == "half"
    assert (run.failure.kind, run.failure.reason) == ("provider_unavailable", "overloaded")


def test_an_event_that_never_ends_is_cut_off() -> None:
    run = Driven().respond()
    run.receive(text("half"))
    piece = b"data: " + b"x" * (MAX_EVENT_BYTES // 4)
    commands: Commands = ()
    for _ in range(5):
        commands = commands or run.receive(piece)

    assert commands == CLOSE_ONE
    assert run.failure.kind == "provider_protocol"
    assert run.text == "half"


def test_an_event_that_is_too_large_at_the_end_of_the_body_is_a_failure() -> None:
    run = Driven().respond()
    run.receive(b"data: " + b"x" * (MAX_EVENT_BYTES - 100) + b"\ndata: " + b"y" * 200)

    run.complete()
    assert run.failure.kind == "provider_protocol"


@pytest.mark.parametrize("stage", ["connect", "send", "read"])
def test_a_connection_that_fails_before_the_response_means_the_provider_is_unavailable(stage: str) -> None:
    run = Driven()

    assert run.fail(stage, "connection refused") == CLOSE_ONE
    assert (run.failure.kind, run.failure.reason) == ("provider_unavailable", "connection refused")


def test_a_request_that_could_not_be_made_fails_with_the_reason() -> None:
    run = Driven()
    run.carry_out(run.core.refused(ProviderFailure("invalid_request", "an image there?")))

    assert (run.failure.kind, run.failure.reason) == ("invalid_request", "an image there?")


# Clocks.


def test_the_connect_clock_runs_until_the_request_is_on_its_way() -> None:
    run = Driven(connect=1.0)
    assert run.due(0.9) == ()
    assert run.due(1.0) == CLOSE_ONE
    assert (run.failure.kind, run.failure.clock, run.failure.limit) == ("timeout", "connect", 1.0)

    other = Driven(connect=1.0).respond()
    assert other.due(1.0) == ()


def test_the_first_chunk_clock_runs_until_the_first_content() -> None:
    run = Driven(first_chunk=3.0).respond()
    run.receive(b": ping\n\n", delta(role="assistant"))
    assert run.due(3.0) == CLOSE_ONE
    assert run.failure.clock == "first_chunk"

    other = Driven(first_chunk=3.0).respond()
    other.receive(text("a"))
    assert other.due(1000.0) == ()


def test_usage_is_not_content() -> None:
    run = Driven(first_chunk=3.0).respond()
    run.receive(usage(3))

    assert run.due(3.0) == CLOSE_ONE


def test_the_idle_clock_starts_anew_with_every_byte() -> None:
    run = Driven(idle=2.0).respond()
    for second in range(1, 10):
        assert run.due(float(second)) == ()
        run.receive(b": ping\n\n")

    assert run.due(11.0) == CLOSE_ONE
    assert (run.failure.clock, run.failure.limit) == ("idle", 2.0)


def test_the_idle_clock_stands_still_while_the_run_waits_for_its_reader() -> None:
    run = Driven(sequence_limit=1, idle=2.0).respond()
    run.receive(text("a"))
    run.receive(text("b" * WINDOW_CHARACTERS))
    assert run.is_paused
    assert run.due(100.0) == ()

    run.credit(WINDOW_EVENTS, 2 * WINDOW_CHARACTERS)
    assert not run.is_paused
    assert run.due(101.9) == ()
    assert run.due(102.0) == CLOSE_ONE


def test_the_total_clock_always_runs() -> None:
    run = Driven(total=5.0).respond()
    run.now = 4.9
    run.receive(text("half"))

    assert run.due(5.0) == CLOSE_ONE
    assert (run.failure.clock, run.text) == ("total", "half")


def test_an_ended_run_has_no_clock() -> None:
    run = Driven(total=5.0).respond()
    run.receive(stop(), DONE)

    assert run.due(5.0) == ()


# Requests.


@pytest.mark.parametrize("value", [{(1, 2): 3}, msgspec.msgpack.Ext(5, b"")], ids=["a list as key", "an extension"])
def test_a_request_that_json_cannot_encode_is_refused(value: Any) -> None:
    request = RunRequest(provider="openai", model="m", messages=[], stream=True, custom_options={"a": value})
    arrived = decode_request(encode_request(request))
    providers = Providers(with_built_in(Settings(), {}), {"OPENAI_API_KEY": "sk-x"})

    with pytest.raises(ProviderFailedError, match="JSON"):
        providers.prepare(arrived, None)


# How much of a response a run may hold.


def test_a_whole_body_may_have_32_mebibytes_and_no_byte_more() -> None:
    run = Driven(stream=False).respond(headers=JSON)
    piece = b"[" + b" " * (16 * 1024 * 1024 - 1)
    for _ in range(2):
        assert run.receive(piece) == ()

    assert run.receive(b" ") == CLOSE_ONE
    assert (run.failure.kind, run.failure.status_code) == ("provider_protocol", 200)
    assert run.failure.reason == "the provider's answer holds more than 32 MiB; ask for less at a time"
    assert run.failure.code == "answer_too_large"


def test_an_error_body_may_have_64_kibibytes() -> None:
    run = Driven().respond(500, {})

    assert run.receive(b"x" * 65_536) == ()
    assert run.receive(b"x") == CLOSE_ONE


# Runs without streaming.


def test_a_run_without_streaming_sends_nothing_before_its_end_and_never_pauses() -> None:
    run = Driven(stream=False, sequence_limit=0, character_limit=0).respond()
    for _ in range(4):
        assert run.receive(text("x" * WINDOW_CHARACTERS)) == ()
    assert run.core.take(0.0) == ([], ())

    assert run.receive(delta(reasoning="hm"), delta(refusal="no"), usage(3), stop(), DONE) == FINISH_ONE
    assert (run.sent, run.finished.sequence, run.finished.text_length) == ([], 0, 0)
    message = run.finished.message
    assert message is not None
    assert message.text == "x" * 4 * WINDOW_CHARACTERS
    assert run.finished.refusal == "no"
    assert run.finished.usage == Usage(3, 3, 6, source="provider")


def test_a_failed_run_without_streaming_has_its_partial_text() -> None:
    run = Driven(stream=False).respond()
    run.receive(text("ha"), delta(reasoning="hm"), usage(3), text("lf"))
    run.fail("read")

    assert (run.failure.partial_text, run.failure.sequence) == ("half", 0)
    assert run.failure.usage == Usage(3, 3, 6, source="partial")


def test_an_aborted_run_without_streaming_estimates_its_usage() -> None:
    run = Driven(stream=False).respond()
    run.receive(text("y" * 20))

    run.abort()
    assert run.sent == []
    assert run.aborted.sequence == 0


# Pauses.


def test_a_run_pauses_once_for_one_stall_and_again_for_the_next() -> None:
    run = Driven(sequence_limit=1).respond()
    run.receive(text("a"))
    assert run.receive(text("b" * WINDOW_CHARACTERS)) == (Command.PAUSE,)
    assert run.receive(text("c" * WINDOW_CHARACTERS)) == ()
    run.credit(1, 3 * WINDOW_CHARACTERS)
    assert (run.is_paused, run.core.take(0.0)) == (True, ([], ())), "there is no credit left for what follows"

    run.credit(1, 0)
    assert not run.is_paused
    assert run.receive(text("d" * WINDOW_CHARACTERS)) == (Command.PAUSE, Command.SEND)


def test_a_reading_run_gets_no_resume() -> None:
    run = Driven().respond()
    run.receive(text("a"))

    assert run.core.take(0.0) == ([], ())
    assert run.core.allow_more(Credit(SPAN, 1, 100, 100_000)) == ()
    assert run.abort("drain") == ()


# Continuations.


def google(text: str, **candidate: Any) -> bytes:
    said = {"content": {"parts": [{"text": text}]}, **candidate}
    return b"data: " + json.dumps({"candidates": [said], "responseId": text}).encode() + b"\n\n"


def continued(**limits: Any) -> Driven:
    """Return a run that has received "a" in its first response, and must continue it."""
    run = Driven(api="google", **limits).respond()
    run.receive(google("a", finishReason="CONTINUATION", continuationToken="t1"))
    assert run.complete() == (Command.RELEASE, Command.SEND_CONTINUATION)
    sent = run.core.continue_request(run.sent_request())
    assert json.loads(sent.body)["continuationToken"] == "t1"
    run.is_closed = False
    return run


def test_a_continued_answer_is_one_answer() -> None:
    run = continued().respond()
    run.receive(google("b", finishReason="STOP"))
    run.complete()

    assert run.text == "ab"
    assert run.finished.finish_reason == "stop"


def test_an_unfinished_event_of_the_first_response_does_not_break_the_next() -> None:
    run = Driven(api="google").respond()
    run.receive(google("a", finishReason="CONTINUATION", continuationToken="t1"))
    run.receive(b"data: \n")
    run.complete()
    run.core.continue_request(run.sent_request())
    run.respond()
    run.receive(google("b", finishReason="STOP"))
    run.complete()

    assert run.text == "ab"


def test_a_repeated_token_is_not_used_again() -> None:
    run = continued().respond()
    run.receive(google("b", finishReason="CONTINUATION", continuationToken="t1"))

    assert run.complete() == FINISH_ONE
    assert (run.text, run.finished.finish_reason) == ("ab", "max_tokens")


def test_a_whole_continuation_is_the_rest_of_the_answer() -> None:
    run = continued().respond(headers=JSON)
    said = {"content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"}
    run.receive(json.dumps([{"candidates": [said], "responseId": "r2"}]).encode())
    run.complete()

    assert run.text == "ab"
    assert run.finished.finish_reason == "stop"


def test_a_continuation_that_is_refused_fails_with_the_text_before_it() -> None:
    run = continued().respond(503, JSON)
    run.receive(b'{"error": {"message": "busy"}}')
    run.complete()

    assert (run.text, run.failure.kind, run.failure.status_code) == ("a", "provider_unavailable", 503)


def test_a_continuation_that_never_connects_fails_with_the_text_before_it() -> None:
    run = continued()
    run.fail("connect", "refused")

    assert (run.text, run.failure.kind, run.failure.reason) == ("a", "provider_unavailable", "refused")


def test_a_continued_answer_began_with_its_first_response() -> None:
    run = Driven(api="google").respond()
    run.now = 5.0
    run.respond()

    assert run.core.response.began_at == 0.0
