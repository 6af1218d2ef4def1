"""A complete answer is a success after two seconds, even if its connection never ends."""

from __future__ import annotations

import json

import pytest

from headrace.types import Usage
from headrace.wire.messages import WINDOW_CHARACTERS, WINDOW_EVENTS
from headrace_workers.runs.run_commands import Command
from tests.workers.providers.example_answers import APIS, STREAMED, whole
from tests.workers.runs.driven import CLOSE_ONE, JSON, Driven, stop, text, usage

GRACE = 2.0
UP_TO_FINISH = {"openai-chat": 4, "anthropic": 7, "google": 3}
"""The events of an answer with its finish reason, but without its end."""

every_api = pytest.mark.parametrize("api", UP_TO_FINISH)


def said(api: str, events: slice) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in STREAMED[api][events])


def finished(api: str = "openai-chat", *, stream: bool = True) -> Driven:
    """Return a run that has received its finish reason at the time 10.0."""
    run = Driven(api=api, stream=stream).respond()
    run.now = 10.0
    commands = run.receive(said(api, slice(UP_TO_FINISH[api])))
    assert Command.SET_TIMER in commands, "the shell waits no longer than the grace"
    return run


@every_api
@pytest.mark.parametrize("stream", [True, False])
def test_a_complete_answer_without_its_end_is_a_success_after_the_grace(api: str, stream: bool) -> None:
    run = finished(api, stream=stream)
    assert run.core.clocks.next_deadline() == 10.0 + GRACE
    assert run.due(10.0 + GRACE - 0.01) == ()

    assert run.due(10.0 + GRACE) == CLOSE_ONE
    assert run.is_closed, "nobody waits for the connection's end"
    assert run.finished.finish_reason == "tool_calls"


@pytest.mark.parametrize("api", ["openai-chat", "anthropic"])
def test_comments_do_not_prolong_the_grace(api: str) -> None:
    run = finished(api)
    for second in (10.5, 11.0, 11.5):
        run.now = second
        assert run.receive(b": ping\n\n") == ()

    run.due(12.0)
    assert run.finished.finish_reason == "tool_calls"


def test_usage_within_the_grace_counts() -> None:
    run = finished()
    run.now = 11.0
    run.receive(usage(3))
    assert run.terminal is None

    run.due(12.0)
    assert run.finished.usage == Usage(3, 3, 6, source="provider")


@every_api
def test_another_clock_that_runs_out_within_the_grace_ends_the_run_with_a_success(api: str) -> None:
    run = Driven(api=api, total=11.0).respond()
    run.now = 10.0
    run.receive(said(api, slice(UP_TO_FINISH[api])))

    run.due(11.0)
    assert run.finished.finish_reason == "tool_calls"


def test_the_reader_still_gets_waiting_events_after_the_grace() -> None:
    run = Driven(sequence_limit=1).respond()
    run.receive(text("a"))
    run.receive(text("b"), stop())
    run.due(GRACE)
    assert run.terminal is None

    run.credit(10, 0)
    assert run.text == "ab"
    assert run.finished.finish_reason == "stop"


def test_the_grace_stands_still_while_the_run_waits_for_its_reader() -> None:
    run = Driven(sequence_limit=1).respond()
    run.receive(text("a"))
    run.receive(text("b" * WINDOW_CHARACTERS), stop())
    assert run.is_paused
    assert run.due(100.0) == ()

    run.credit(WINDOW_EVENTS, 2 * WINDOW_CHARACTERS)
    assert run.due(101.9) == ()
    run.receive(usage(3))
    run.due(102.0)
    assert run.finished.usage.source == "provider"


def test_an_answer_that_goes_on_after_its_finish_reason_is_not_cut() -> None:
    """Early Gemini models sent STOP with each piece."""
    run = Driven(api="google", idle=60.0).respond()
    piece = {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]}
    for second in (1.0, 2.5, 20.0):
        run.now = second
        run.receive(b"data: " + json.dumps(piece).encode() + b"\n\n")
        assert run.due(second) == ()

    run.complete()
    assert run.text == "aaa"
    assert run.finished.finish_reason == "stop"


def test_a_continuation_is_requested_after_the_grace_and_awaited() -> None:
    run = Driven(api="google").respond()
    part = {"content": {"parts": [{"text": "a"}]}, "finishReason": "CONTINUATION", "continuationToken": "t1"}
    run.receive(b"data: " + json.dumps({"candidates": [part], "responseId": "r1"}).encode() + b"\n\n")
    assert run.due(GRACE)[-2:] == (Command.CLOSE, Command.SEND_CONTINUATION)

    run.core.continue_request(run.sent_request())
    run.respond()
    run.receive(b'data: {"usageMetadata": {"promptTokenCount": 3}}\n\n')
    assert run.due(50.0) == ()
    last = {"content": {"parts": [{"text": "b"}]}, "finishReason": "STOP"}
    run.receive(b"data: " + json.dumps({"candidates": [last], "responseId": "r2"}).encode() + b"\n\n")
    run.due(50.0 + GRACE)
    assert run.text == "ab"
    assert run.finished.finish_reason == "stop"


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("after", [b"", b"\n", b" \r\n"])
def test_a_whole_body_without_its_end_is_a_success_after_the_grace(api: str, stream: bool, after: bytes) -> None:
    run = Driven(api=api, stream=stream).respond(headers=JSON)
    run.now = 10.0
    assert Command.SET_TIMER in run.receive(whole(api) + after)
    assert run.due(10.0 + GRACE - 0.01) == ()

    run.due(10.0 + GRACE)
    assert run.is_closed
    assert run.finished.finish_reason == "tool_calls"


@pytest.mark.parametrize("api", APIS)
def test_a_body_cut_after_its_last_brace_is_a_success_and_before_it_a_failure(api: str) -> None:
    run = Driven(api=api, stream=False).respond(headers=JSON)
    run.receive(whole(api))
    run.fail("read", "cut")
    assert run.finished.finish_reason == "tool_calls"

    run = Driven(api=api, stream=False).respond(headers=JSON)
    run.receive(whole(api)[:-1])
    run.fail("read", "cut")
    assert (run.failure.kind, run.failure.status_code) == ("provider_protocol", 200)


def test_json_that_pauses_after_a_brace_is_not_taken_for_whole() -> None:
    run = Driven(stream=False, total=60.0).respond(headers=JSON)
    body = whole("openai-chat")
    middle = body.index(b"}") + 1
    assert Command.SET_TIMER in run.receive(body[:middle])
    for second in (2.0, 5.0, 50.0):
        assert run.due(second) == ()
    run.receive(body[middle:])
    run.complete()

    assert run.finished.finish_reason == "tool_calls"


@pytest.mark.parametrize("body", [b"", b'{"error": {"message": "slow down"}}', b"<html>", b'{"error": {"mess'])
def test_an_error_without_its_end_is_reported_after_the_grace(body: bytes) -> None:
    run = Driven().respond(429, {"content-type": "application/json", "retry-after": "7"})
    if body:
        run.receive(body)
    assert run.due(GRACE - 0.01) == ()

    run.due(GRACE)
    assert (run.failure.kind, run.failure.status_code, run.failure.retry_after) == ("rate_limit", 429, 7.0)


def test_an_error_that_is_sent_slowly_is_read_to_its_end() -> None:
    run = Driven().respond(400, JSON)
    for letter in b'{"error": {"message": "too long"}}':
        run.now += 1.5
        assert run.due(run.now) == ()
        run.receive(bytes([letter]))
    run.complete()

    assert run.failure.reason == "too long"


def test_a_run_that_is_aborted_with_drain_waits_no_longer_than_the_grace() -> None:
    run = finished("anthropic")
    run.abort("drain")

    run.due(12.0)
    assert run.aborted.usage.source == "provider"


def test_a_worker_that_stops_within_the_grace_leaves_a_success() -> None:
    run = finished()
    run.take()

    run.carry_out(run.core.stopped("it stops", run.now))
    assert run.finished.finish_reason == "tool_calls"


@pytest.mark.parametrize("api", ["openai-chat", "openai-responses", "anthropic", "google"])
def test_an_answer_without_a_finish_reason_has_no_grace(api: str) -> None:
    run = Driven(api=api, idle=60.0).respond()
    count = UP_TO_FINISH.get(api, 4) - 1
    run.receive(said(api, slice(count)))
    assert run.due(59.0) == ()

    run.due(60.0)
    assert (run.failure.kind, run.failure.clock) == ("timeout", "idle")
