"""What a client promises for the spans of its runs: it writes a span if the worker did not, with what it received."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest

from headrace.arguments.trace_context import current_traceparent
from headrace.errors import EngineUnavailableError, WorkerLostError
from headrace.runs.fallback_span import fallback_span
from headrace.runs.outcome import RunOutcome
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.spans.encoded_span import MAX_SPAN_BYTES, TOO_LARGE, encode_bounded
from headrace.spans.span import ContentToolCall, Rank, Span, decode_content, decode_span
from headrace.types import Message, ReasoningDelta, RefusalDelta, RunEvent, Tool, ToolCallDelta, Usage, UsageUpdate
from headrace.wire.codec import encode_request
from headrace.wire.messages import (
    Aborted,
    Acquire,
    Chunk,
    Failed,
    FailureKind,
    Finished,
    Grant,
    Refuse,
    Run,
    RunState,
    Terminal,
)
from headrace.wire.run_request import RunRequest

SPAN = "sp_0123456789abcdef"
EPOCH = 7
USAGE = Usage(1, 2, 3, source="provider")
REQUEST = RunRequest(
    provider="openai",
    model="gpt-4o",
    messages=[Message("user", "Hello")],
    stream=True,
    tools=[Tool("look")],
    temperature=0.5,
    custom_options={"secret": "value"},
    tags=["a"],
    user_id="u",
    session_id="s",
    trace_id="tr_1",
    parent_span_id="sp_2",
    traceparent="00-1-2-01",
)


def waiting(**changes: Any) -> Session:
    facts: dict[str, Any] = {"span_id": SPAN, "provider": "openai", "model": "gpt-4o", "streams": True}
    session = Session(RunPlan(**facts | {"request": encode_request(REQUEST)} | changes))
    session.start(10.0)
    return session


def running(*events: RunEvent, **changes: Any) -> Session:
    session = waiting(**changes)
    session.granted(Grant(SPAN, 1, "w1", "ipc://w1", EPOCH), 10.5)
    session.chunk(EPOCH, Chunk(SPAN, 1, 0, list(events)))
    return session


def aborted() -> RunOutcome:
    outcome = RunOutcome()
    outcome.abort()
    return outcome


def failed(kind: FailureKind, sequence: int = 0) -> Failed:
    return Failed(SPAN, 1, sequence, kind, "why")


def finished() -> Finished:
    return Finished(SPAN, 1, 0, 0, "stop", "stop", USAGE, [], "m-1")


# When the client writes a span.


@pytest.mark.parametrize(
    "terminal",
    [finished(), failed("timeout"), failed("worker_stopping", 1), Aborted(SPAN, 1, 0, USAGE)],
    ids=lambda terminal: type(terminal).__name__,
)
@pytest.mark.parametrize("is_aborted", [False, True])
def test_a_run_has_no_span_of_its_client_if_its_worker_said_how_it_ended(terminal: Terminal, is_aborted: bool) -> None:
    session = running("a") if isinstance(terminal, Failed) and terminal.sequence else running()
    if is_aborted:
        session.stop(11.0)
    session.ended(EPOCH, terminal, 0.0)

    assert session.ending is not None
    assert not session.wants_span


def test_a_run_has_a_span_of_its_client_if_its_worker_did_not_say_how_it_ended() -> None:
    def ended(*commands: Any, events: tuple[str, ...] = ("a",)) -> Session:
        session = running(*events)
        for name, *arguments in commands:
            getattr(session, name)(*arguments)
        assert session.ending is not None
        return session

    error = EngineUnavailableError("x", "closed")
    sessions = [
        ended(("worker_lost", "died", 0.0)),
        ended(("failed", error, 0.0)),
        ended(("stop", 11.0), ("due", 20.0)),
        ended(("stop", 11.0), ("worker_lost", "died", 0.0)),
        ended(("stop", 11.0), ("ended", EPOCH, failed("worker_stopping"), 0.0)),
        ended(("chunk", EPOCH, Chunk(SPAN, 1, 9, ["b"]))),
        ended(("run_state", EPOCH, RunState(SPAN, 1, is_running=False), 0.0)),
        ended(("worker_lost", "died", 0.0), ("refused", Refuse(SPAN, 2, "stopping", "no"), 0.0), events=()),
        ended(("worker_lost", "died", 0.0), ("stop", 11.0), events=()),
        ended(("ended", EPOCH, failed("worker_stopping"), 0.0), ("failed", error, 0.0), events=()),
    ]

    assert [session.wants_span for session in sessions] == [True] * len(sessions)


def test_a_run_that_never_had_a_lease_or_wants_no_span_has_no_span() -> None:
    refused, aborted, unwanted = waiting(), waiting(), running("a", is_traced=False)
    refused.refused(Refuse(SPAN, 1, "queue_full", "full"), 0.0)
    aborted.stop(11.0)
    unwanted.worker_lost("died", 0.0)

    assert [session.wants_span for session in (refused, aborted, unwanted)] == [False] * 3


def test_the_engine_is_told_whether_a_run_wants_a_span_and_how_long_it_has_waited() -> None:
    session = waiting(is_traced=False)
    (asked,) = session.broker_changed(0.0)
    (told,) = session.granted(Grant(SPAN, 1, "w1", "ipc://w1", EPOCH), 12.5)

    assert isinstance(asked.message, Acquire)  # type: ignore[union-attr]
    assert not asked.message.is_traced  # type: ignore[union-attr]
    assert isinstance(told.message, Run)  # type: ignore[union-attr]
    assert told.message.queued == 2.5  # type: ignore[union-attr]


# What is in the span.


def test_the_span_has_the_request_and_the_events_that_had_arrived() -> None:
    session = running(
        "one ", ReasoningDelta("hm"), "two", ToolCallDelta(0, "c1", "look", '{"at'), UsageUpdate(USAGE)
    )  # fmt: skip
    session.worker_lost("worker w1 went away", 0.0)
    span = fallback_span(session, RunOutcome(), duration=3.0, wall_time=1000.0)

    assert (span.span_id, span.rank, span.status) == (SPAN, Rank.CLIENT, "error")
    assert (span.error_type, span.error) == ("WorkerLostError", "worker w1 went away")
    assert (span.started_at, span.ended_at, span.duration_seconds, span.queue_seconds) == (997.0, 1000.0, 3.0, 0.5)
    assert (span.trace_id, span.parent_span_id, span.traceparent) == ("tr_1", "sp_2", "00-1-2-01")
    assert (span.tags, span.user_id, span.session_id) == (["a"], "u", "s")
    assert span.parameters == {"temperature": 0.5, "custom_options": ["secret"]}
    assert span.usage == msgspec.structs.replace(USAGE, source="partial")
    content = decode_content(span.content)
    assert (content.messages, content.tools) == (REQUEST.messages, REQUEST.tools)
    assert (content.text, content.reasoning) == ("one two", "hm")
    assert content.tool_calls == [ContentToolCall("c1", "look", '{"at')]
    (attempt,) = span.attempts
    assert (attempt.number, attempt.worker, attempt.outcome, attempt.maybe_billed) == (1, "w1", "lost", True)
    assert (attempt.started_at, attempt.ended_at) == (997.5, 1000.0)


def test_the_span_says_what_the_run_waited_for() -> None:
    session = waiting()
    session.granted(Grant(SPAN, 1, "w1", "ipc://w1", EPOCH, waited_for="limit"), 10.5)
    session.worker_lost("worker w1 went away", 10.6)

    assert fallback_span(session, RunOutcome(), duration=3.0, wall_time=1000.0).queue_reason == "limit"


def test_the_span_has_the_refusal_that_had_arrived_if_there_was_one() -> None:
    refusing, saying = running(RefusalDelta("I can"), RefusalDelta("not")), running("a")
    for session in (refusing, saying):
        session.worker_lost("died", 0.0)

    spans = [fallback_span(each, RunOutcome(), duration=3.0, wall_time=1000.0) for each in (refusing, saying)]

    assert [decode_content(span.content).refusal for span in spans] == ["I cannot", None]


@pytest.mark.parametrize(
    "access", [{"api_key": "sk-4f9a0c7712bd"}, {"base_url": "http://host/v1?key=sk-4f9a0c7712bd"}], ids=["key", "query"]
)
def test_a_key_of_the_caller_that_a_model_quoted_is_not_in_the_span(access: dict[str, str]) -> None:
    said = "is it SK-4F9A0C7712BD?"
    events: list[RunEvent] = [said, ReasoningDelta(said), RefusalDelta(said), ToolCallDelta(0, "c1", "look", said)]
    session = running(*events, **access)
    session.worker_lost("died", 0.0)

    content = decode_content(fallback_span(session, RunOutcome(), duration=3.0, wall_time=1000.0).content)

    stored = [content.text, content.reasoning, content.refusal, *(call.arguments for call in content.tool_calls)]
    assert stored == ["is it [key]?"] * 4


def test_the_span_of_a_run_that_ended_with_its_engine_has_the_error_of_its_caller() -> None:
    session = running("a")
    session.failed(EngineUnavailableError("ipc:///run/x", "it went away"), 0.0)

    span = fallback_span(session, RunOutcome(), duration=3.0, wall_time=1000.0)

    assert (span.status, span.error_type) == ("error", "EngineUnavailableError")
    assert span.error == str(session.ending)
    assert span.attempts[0].reason == str(session.ending)


def test_an_aborted_run_keeps_the_usage_that_had_come() -> None:
    session = running("a", UsageUpdate(USAGE))
    session.stop(11.0)
    session.due(20.0)

    span = fallback_span(session, aborted(), duration=3.0, wall_time=1000.0)

    assert (span.usage.input_tokens, span.usage.output_tokens) == (USAGE.input_tokens, USAGE.output_tokens)
    assert span.usage.source == "partial"


def test_an_aborted_run_is_not_an_error_in_its_span() -> None:
    by_caller, by_close = running("a"), running("a")
    by_caller.stop(11.0)
    by_caller.due(20.0)
    by_close.failed(EngineUnavailableError("x", "the client was closed"), 0.0)

    for session in (by_caller, by_close):
        span = fallback_span(
            session, aborted() if session is by_close else RunOutcome(), duration=3.0, wall_time=1000.0
        )
        assert (span.status, span.error_type, span.error) == ("aborted", None, None)


def test_a_lost_run_names_its_error_class() -> None:
    session = running("a")
    session.failed(WorkerLostError(SPAN, "silent", "a"), 0.0)

    span = fallback_span(session, RunOutcome(), duration=3.0, wall_time=1000.0)
    assert (span.error_type, span.error) == ("WorkerLostError", "silent")


def test_a_span_that_is_too_large_for_a_frame_loses_its_content() -> None:
    span = Span(span_id=SPAN, rank=Rank.CLIENT, provider="p", model="m", trace_id="t", content=bytes(MAX_SPAN_BYTES))

    kept = decode_span(encode_bounded(span))
    assert (kept.content, kept.content_note, kept.trace_id) == (b"", TOO_LARGE, "t")


# The caller's own trace.


def trace_module(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
    module: Any = ModuleType("opentelemetry.trace")
    context = SimpleNamespace(**{"is_valid": True, "trace_id": 0xAB, "span_id": 0xCD, "trace_flags": 1, **facts})
    module.get_current_span = lambda: SimpleNamespace(get_span_context=lambda: context)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", module)


def test_the_active_span_is_named_in_the_w3c_format(monkeypatch: pytest.MonkeyPatch) -> None:
    trace_module(monkeypatch)

    assert current_traceparent() == f"00-{0xAB:032x}-{0xCD:016x}-01"


def test_no_span_is_named_if_none_is_active_or_opentelemetry_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    trace_module(monkeypatch, is_valid=False)
    assert current_traceparent() is None

    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert current_traceparent() is None


def test_a_failing_opentelemetry_does_not_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    trace_module(monkeypatch, trace_id="no number")

    assert current_traceparent() is None
