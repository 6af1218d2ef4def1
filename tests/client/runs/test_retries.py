"""What a session promises where a provider fails: it tries again, then another model, and its error knows all attempts."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import pytest

from headrace.errors import (
    BudgetExceededError,
    EngineUnavailableError,
    HeadraceError,
    PoisonRunError,
    ProviderUnavailableError,
    QueueFullError,
    RateLimitError,
    RunTimeoutError,
)
from headrace.runs.retry_policy import FIRST_DELAY, LONGEST_RETRY_AFTER
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Phase, Session
from headrace.runs.session_commands import AskBroker, Command, RunEnded, TellWorker, WakeAt
from headrace.types import Usage
from headrace.wire.messages import (
    WINDOW_CHARACTERS,
    WINDOW_EVENTS,
    Aborted,
    Acquire,
    Chunk,
    Failed,
    Finished,
    Grant,
    Hold,
    Refuse,
    Release,
    Run,
)

SPAN = "sp_0123456789abcdef"
EPOCH = 7


def new_plan(**changes: Any) -> RunPlan:
    facts: dict[str, Any] = {"span_id": SPAN, "provider": "p", "model": "m", "request": b"r", "streams": True}
    return RunPlan(**facts | {"max_retries": 2, "total_timeout": 600.0} | changes)


def grant(session: Session, now: float = 0.0, epoch: int = EPOCH, **facts: Any) -> Run:
    """Have the broker grant what the session asks; return what the worker is told."""
    (told,) = session.granted(Grant(SPAN, session.attempt, "w1", "ipc://w1", epoch, **facts), now)
    assert isinstance(told, TellWorker)
    assert isinstance(told.message, Run)
    return told.message


def running(**changes: Any) -> Session:
    session = Session(new_plan(**changes))
    session.start(0.0)
    grant(session)
    return session


def failed(session: Session, status: int | None = 503, **facts: Any) -> Failed:
    given: dict[str, Any] = {"kind": "provider_unavailable", "reason": "no", "may_retry": True} | facts
    return Failed(SPAN, session.attempt, len(session.events), status_code=status, **given)


def asked(commands: list[Command]) -> Acquire:
    """Return the question for a lease that is the last command."""
    command = commands[-1]
    assert isinstance(command, AskBroker)
    assert isinstance(command.message, Acquire)
    return command.message


def fails(session: Session, now: float = 0.0, **facts: Any) -> float:
    """Have the provider fail, with a retry; return when the retry begins."""
    release, wake = session.ended(EPOCH, failed(session, **facts), now)
    assert isinstance(release, AskBroker)
    assert isinstance(release.message, Release)
    assert isinstance(wake, WakeAt)
    return wake.when


def comes_back(session: Session, now: float) -> Acquire:
    """Let the time to the next attempt pass; return the question for its lease."""
    return asked(session.due(now))


def finished(session: Session, text_length: int = 0) -> Finished:
    sequence = len(session.events)
    return Finished(SPAN, session.attempt, sequence, text_length, "stop", "stop", Usage(), [], "m-1")


def error_of(session: Session) -> HeadraceError:
    assert isinstance(session.ending, HeadraceError)
    return session.ending


# Another attempt.


def test_a_run_is_tried_again_after_a_delay_on_any_worker_and_finishes() -> None:
    session = running()

    due = fails(session, 10.0)
    assert session.phase is Phase.BACKING_OFF
    assert 10.0 <= due <= 10.0 + FIRST_DELAY
    assert session.next_deadline == due
    assert session.due(due - 0.001) == []

    question = comes_back(session, due)
    assert (question.attempt, question.avoid, question.is_provider_retry) == (2, [], True)
    assert question.max_wait == 600.0 - due

    told = grant(session, due + 1.0)
    assert (told.sequence_limit, told.character_limit) == (WINDOW_EVENTS, WINDOW_CHARACTERS)
    assert (told.queued, told.time_left) == (due + 1.0, 600.0 - due - 1.0)
    assert session.times.queue_seconds == 1.0
    session.chunk(EPOCH, Chunk(SPAN, 2, 0, ["text"]))
    assert RunEnded() in session.ended(EPOCH, finished(session, 4), due + 2.0)
    assert isinstance(session.ending, Finished)


def test_the_broker_is_told_of_each_failure_when_it_comes() -> None:
    session = running()
    limited = failed(session, 429, kind="rate_limit", retry_after=2.0, usage=Usage(1, 2, 3, source="provider"))

    release, wake = session.ended(EPOCH, limited, 10.0)

    assert isinstance(release, AskBroker)
    assert isinstance(release.message, Release)
    facts = release.message
    assert (facts.attempt, facts.outcome, facts.status_code, facts.retry_after) == (1, "rate_limit", 429, 2.0)
    assert wake == WakeAt(12.0)


def test_a_final_failure_and_the_clock_of_a_timeout_are_told_to_the_broker() -> None:
    final, late = running(), running()
    final.ended(EPOCH, failed(final, 429, kind="rate_limit", is_final=True), 1.0)
    release, _ = late.ended(EPOCH, failed(late, None, kind="timeout", clock="first_chunk"), 1.0)

    assert isinstance(error_of(final), RateLimitError)
    assert isinstance(release, AskBroker)
    assert isinstance(release.message, Release)
    assert release.message.clock == "first_chunk"


def test_a_run_is_tried_again_only_as_often_as_it_may_be() -> None:
    session = running(max_retries=2)
    for _ in range(2):
        due = fails(session)
        comes_back(session, due)
        grant(session, due)

    assert RunEnded() in session.ended(EPOCH, failed(session), 3.0)
    assert isinstance(session.ending, ProviderUnavailableError)
    assert session.attempt == 3


@pytest.mark.parametrize(
    "changes",
    [{"may_retry": False}, {"is_final": True}, {"retry_after": LONGEST_RETRY_AFTER + 1.0}],
    ids=["worker-says-no", "final", "asked-to-wait-too-long"],
)
def test_a_failure_that_another_attempt_would_meet_too_ends_the_run(changes: dict[str, Any]) -> None:
    session = running()

    assert RunEnded() in session.ended(EPOCH, failed(session, **changes), 1.0)
    assert isinstance(session.ending, ProviderUnavailableError)


def test_a_run_without_retries_ends_with_the_first_failure() -> None:
    session = running(max_retries=0)

    assert RunEnded() in session.ended(EPOCH, failed(session), 1.0)
    assert str(session.ending) == f"run {SPAN}: p: no (HTTP 503)"


def test_nothing_is_tried_again_after_an_event_has_reached_the_reader() -> None:
    session = running(fallback=new_plan(model="other"))
    session.chunk(EPOCH, Chunk(SPAN, 1, 0, ["half"]))

    assert RunEnded() in session.ended(EPOCH, failed(session), 1.0)
    assert isinstance(session.ending, ProviderUnavailableError)
    assert session.ending.partial_text == "half"


def test_a_retry_that_would_begin_after_the_total_timeout_is_not_waited_for() -> None:
    session = running(total_timeout=3.0)

    assert RunEnded() in session.ended(EPOCH, failed(session, retry_after=2.0), 1.5)
    assert isinstance(session.ending, ProviderUnavailableError)


def test_a_retry_that_comes_too_late_ends_with_what_the_provider_said() -> None:
    session = running(total_timeout=3.0)
    fails(session, 1.0, retry_after=1.0)

    assert session.due(4.0) == [RunEnded()]
    assert isinstance(session.ending, ProviderUnavailableError)


def test_a_total_timeout_that_the_engine_sets_counts_too() -> None:
    session = running(total_timeout=None)
    session.times.total_timeout = 3.0

    assert RunEnded() in session.ended(EPOCH, failed(session, retry_after=2.0), 1.5)


def test_a_retry_that_the_broker_does_not_allow_ends_with_what_the_provider_said() -> None:
    session = running()
    comes_back(session, fails(session, status=429, kind="rate_limit"))

    commands = session.refused(Refuse(SPAN, 2, "no_retry", "the retry budget is used up"), 1.0)

    assert commands == [AskBroker(Release(SPAN, 2, "withdrawn")), RunEnded()]
    error = error_of(session)
    assert isinstance(error, RateLimitError)
    assert [attempt.number for attempt in error.attempts] == [1]


def test_a_retry_that_waits_too_long_for_a_lease_says_so() -> None:
    session = running()
    comes_back(session, fails(session))
    session.refused(Refuse(SPAN, 2, "queue_full", "full", 3.0), 1.0)

    error = error_of(session)
    assert isinstance(error, QueueFullError)
    assert str(error) == f"run {SPAN}: full (2 attempts: 503, QueueFullError)"


# The end of a run that waits for its next attempt.


def test_an_abort_ends_a_run_that_waits_for_its_next_attempt_at_once() -> None:
    session = running()
    due = fails(session)

    assert session.stop(0.1) == [RunEnded()]
    assert session.ending == Aborted(SPAN, 1, 0, Usage())
    assert session.due(due) == []


def test_a_closed_client_ends_a_run_that_waits_for_its_next_attempt() -> None:
    session = running()
    fails(session)
    error = EngineUnavailableError("embedded", "the client was closed")

    assert session.failed(error, 0.1) == [RunEnded()]
    assert session.ending is error


def test_late_messages_do_not_disturb_a_run_that_waits_for_its_next_attempt() -> None:
    session = running()
    due = fails(session)
    late = Grant(SPAN, 1, "w1", "ipc://w1", EPOCH)

    assert session.broker_changed(0.0) == []
    assert session.granted(late, 0.0) == []
    assert session.refused(Refuse(SPAN, 1, "queue_full", "late"), 0.0) == []
    assert session.chunk(EPOCH, Chunk(SPAN, 1, 0, ["late"])) == []
    assert session.ended(EPOCH, Finished(SPAN, 1, 0, 0, "stop", "stop", Usage(), [], "m"), 0.0) == []
    assert session.worker_lost("gone", 0.0) == []
    assert session.revoked(1) == []
    assert session.check_silence(1e9) == []
    assert session.give_credit() == []
    assert session.next_deadline == due


# Workers and retries together.


def test_worker_deaths_are_counted_apart_from_retries() -> None:
    session = running(max_retries=1)
    assert asked(session.worker_lost("gone", 1.0)).is_provider_retry is False
    grant(session, epoch=8)
    due = session.ended(8, failed(session), 2.0)[-1]
    assert isinstance(due, WakeAt)
    question = comes_back(session, due.when)
    assert (question.attempt, question.avoid, question.is_provider_retry) == (3, [EPOCH], True)
    grant(session, epoch=9)

    session.worker_lost("gone too", 3.0)
    error = error_of(session)
    assert isinstance(error, PoisonRunError)
    assert [attempt.error for attempt in error.attempts] == [
        "WorkerLostError",
        "ProviderUnavailableError",
        "WorkerLostError",
    ]


def test_a_run_whose_last_worker_said_nothing_has_a_span_of_its_client() -> None:
    session = running()
    comes_back(session, fails(session))
    grant(session)
    session.chunk(EPOCH, Chunk(SPAN, 2, 0, ["half"]))
    assert session.worker_lost("gone", 1.0)[-1] == RunEnded()

    assert session.wants_span


def test_a_new_broker_gets_the_question_of_the_attempt_that_runs_and_its_key() -> None:
    session = running(account="k@a", user="u")
    question = comes_back(session, fails(session, retry_after=1.0))
    session.granted(Grant(SPAN, 2, "w1", "ipc://w1", EPOCH, key="abc"), 2.0)

    assert session.broker_changed(3.0) == [AskBroker(Hold(SPAN, 2, EPOCH, question, "abc", 1.0))]
    assert (question.account, question.user, question.is_provider_retry) == ("k@a", "u", True)


def test_a_new_broker_is_asked_again_with_the_time_that_is_left() -> None:
    session = running()
    question = comes_back(session, fails(session, retry_after=1.0))

    assert question.max_wait == 599.0
    assert session.broker_changed(100.0) == [
        AskBroker(msgspec.structs.replace(question, is_repeat=True, max_wait=500.0))
    ]


def test_what_the_run_waited_for_goes_to_the_worker_and_into_the_result() -> None:
    session = Session(new_plan())
    session.start(0.0)
    told = grant(session, 2.0, waited_for="limit", key="abc", reports=True)

    assert (told.waited_for, told.key, told.reports, told.time_left) == ("limit", "abc", True, None)
    comes_back(session, fails(session, 5.0, retry_after=1.0))
    grant(session, 6.5)
    assert (session.times.queue_reason, session.times.queue_seconds) == ("limit", 2.5)


# Another model.


def with_fallback(**changes: Any) -> Session:
    second = new_plan(provider="q", model="n", request=b"r2", api_key="k2", account="k2@", max_retries=0)
    return running(**{"max_retries": 0, "fallback": second} | changes)


@pytest.mark.parametrize(
    "facts",
    [
        {"status": 503},
        {"status": 401, "kind": "authentication"},
        {"status": 429, "kind": "rate_limit", "is_final": True},
        {"status": 200, "kind": "provider_protocol"},
        {"status": 404, "kind": "invalid_request"},
        {"status": None, "kind": "invalid_request", "argument": "top_k"},
        {"status": None, "kind": "timeout", "clock": "connect"},
        {"status": None, "kind": "timeout", "clock": "first_chunk"},
    ],
    ids=str,
)
def test_a_run_that_fails_for_good_is_given_to_the_next_model(facts: dict[str, Any]) -> None:
    session = with_fallback()

    commands = session.ended(EPOCH, failed(session, **{"may_retry": False} | facts), 1.0)

    question = asked(commands)
    assert (question.attempt, question.provider, question.model, question.account) == (2, "q", "n", "k2@")
    assert not question.is_provider_retry
    told = grant(session, 1.0)
    assert (told.request, told.api_key) == (b"r2", "k2")
    session.ended(EPOCH, finished(session), 2.0)
    assert isinstance(session.ending, Finished)
    assert (session.plan.provider, session.plan.model) == ("q", "n")


@pytest.mark.parametrize(
    "facts",
    [
        {"status": 400, "kind": "invalid_request"},
        {"status": None, "kind": "invalid_request", "code": "headrace_configuration"},
        {"status": None, "kind": "timeout", "clock": "total"},
        {"status": None, "kind": "worker_failed"},
        {"status": None, "kind": "duplicate_span_id"},
    ],
    ids=str,
)
def test_a_failure_that_no_other_model_helps_against_ends_the_run(facts: dict[str, Any]) -> None:
    session = with_fallback()

    assert RunEnded() in session.ended(EPOCH, failed(session, **{"may_retry": False} | facts), 1.0)
    assert session.attempt == 1


@pytest.mark.parametrize("kind", ["queue_full", "over_budget"])
def test_a_run_that_gets_no_lease_is_given_to_the_next_model(kind: Any) -> None:
    session = Session(new_plan(fallback=new_plan(model="n")))
    assert asked(session.start(0.0)).max_wait == 1.0

    question = asked(session.refused(Refuse(SPAN, 1, kind, "no room"), 1.0))

    assert (question.attempt, question.model, question.max_wait) == (2, "n", 599.0)


@pytest.mark.parametrize("kind", ["no_workers", "stopping", "poison", "duplicate_span_id"])
def test_a_refusal_that_is_not_about_the_model_ends_the_run(kind: Any) -> None:
    session = Session(new_plan(fallback=new_plan(model="n")))
    session.start(0.0)

    assert RunEnded() in session.refused(Refuse(SPAN, 1, kind, "no"), 1.0)


def test_no_other_model_is_asked_after_the_total_timeout() -> None:
    session = with_fallback(total_timeout=3.0)

    assert RunEnded() in session.ended(EPOCH, failed(session), 3.0)


def test_a_run_without_a_known_total_timeout_waits_for_the_next_model_too() -> None:
    session = Session(new_plan(total_timeout=None, fallback=new_plan(total_timeout=None, model="n")))

    assert asked(session.start(0.0)).max_wait == 1.0
    assert asked(session.refused(Refuse(SPAN, 1, "queue_full", "no room"), 1.0)).max_wait is None


def test_each_model_has_its_retries_and_the_error_of_the_last_one_counts() -> None:
    third = new_plan(provider="z", model="o", max_retries=0)
    second = new_plan(provider="q", model="n", max_retries=1, fallback=third)
    session = running(max_retries=1, fallback=second)
    comes_back(session, fails(session, status=500))
    grant(session)
    assert asked(session.ended(EPOCH, failed(session), 1.0)).model == "n"
    grant(session, 1.0)
    comes_back(session, fails(session, 1.5, status=429, kind="rate_limit"))
    refused = session.refused(Refuse(SPAN, 4, "no_retry", "no"), 2.5)
    assert asked(refused).model == "o"
    grant(session, 3.0)
    session.ended(EPOCH, failed(session, None, kind="timeout", clock="first_chunk", limit=4.0), 7.0)

    error = error_of(session)
    assert isinstance(error, RunTimeoutError)
    assert str(error) == f"run {SPAN}: no (4 attempts: p/m 500, 503; q/n 429; z/o RunTimeoutError)"
    assert [(attempt.number, attempt.model) for attempt in error.attempts] == [(1, "m"), (2, "m"), (3, "n"), (5, "o")]
    assert error.attempts[-1].seconds == 4.0
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.attempts, str(twin)) == (error.attempts, str(error))


def test_a_budget_that_is_used_up_everywhere_is_the_error() -> None:
    session = Session(new_plan(fallback=new_plan(model="n")))
    session.start(0.0)
    session.refused(Refuse(SPAN, 1, "over_budget", "spent"), 1.0)
    session.refused(Refuse(SPAN, 2, "over_budget", "spent", 60.0), 1.0)

    error = error_of(session)
    assert isinstance(error, BudgetExceededError)
    assert [attempt.model for attempt in error.attempts] == ["m", "n"]


def test_runs_that_end_with_their_engine_do_not_share_their_attempts() -> None:
    error = EngineUnavailableError("embedded", "gone")
    first, second = running(), running()
    comes_back(first, fails(first))
    comes_back(second, fails(second, status=429, kind="rate_limit"))
    first.failed(error, 1.0)
    second.failed(error, 1.0)

    assert "503" in str(first.ending)
    assert "429" in str(second.ending)
    assert error.attempts == ()
