"""What a session with a hedge promises: the faster attempt counts, whole and alone; the other one is stopped and given back."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.errors import PoisonRunError, ProviderUnavailableError, WorkerLostError
from headrace.runs.hedge import SlowFirstChunks
from headrace.runs.hedged_session import HedgedSession
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Phase
from headrace.runs.session_commands import AskBroker, Command, HedgeBegan, HedgeEnded, RunEnded, TellWorker, WakeAt
from headrace.types import Usage
from headrace.wire.messages import (
    Abort,
    Acquire,
    Chunk,
    Credit,
    Failed,
    Finished,
    Grant,
    Hold,
    Refuse,
    Release,
    Run,
    Terminal,
)
from tests.repetition import repeated

SPAN = "sp_0123456789abcdef"
HEDGE = f"{SPAN}:h2"
FIRST, SECOND = 7, 8
"""Epochs of the workers of the first attempt and of the hedge."""


def new_session(**changes: Any) -> HedgedSession:
    facts: dict[str, Any] = {"span_id": SPAN, "provider": "p", "model": "m", "request": b"r", "streams": True}
    return HedgedSession(RunPlan(**facts | {"hedge_after": 2.0, "total_timeout": 600.0} | changes))


def first_grant() -> Grant:
    return Grant(SPAN, 1, "w1", "ipc://w1", FIRST)


def hedge_grant(epoch: int = SECOND) -> Grant:
    return Grant(HEDGE, 2, "w2", "ipc://w2", epoch)


def running(**changes: Any) -> HedgedSession:
    session = new_session(**changes)
    session.start(0.0)
    session.granted(first_grant(), 1.0)
    return session


def asked(**changes: Any) -> HedgedSession:
    session = running(**changes)
    session.due(3.0)
    return session


def hedged(epoch: int = SECOND, **changes: Any) -> HedgedSession:
    session = asked(**changes)
    session.granted(hedge_grant(epoch), 3.5)
    return session


def chunk(span_id: str, *events: str, sequence: int = 0) -> Chunk:
    return Chunk(span_id, 1 if span_id == SPAN else 2, sequence, list(events))


def failed(span_id: str, **facts: Any) -> Failed:
    attempt = 1 if span_id == SPAN else 2
    return Failed(span_id, attempt, 0, "provider_unavailable", "no", status_code=503, **facts)


def finished(span_id: str, sequence: int = 1, length: int = 4) -> Finished:
    attempt = 1 if span_id == SPAN else 2
    return Finished(span_id, attempt, sequence, length, "stop", "stop", Usage(), [], "m-1")


DROPPED = [
    TellWorker(Abort(HEDGE, 2, "close", is_beaten=True), former=hedge_grant()),
    AskBroker(Release(HEDGE, 2, "aborted")),
    HedgeEnded(HEDGE),
]
BEATEN = [
    TellWorker(Abort(SPAN, 1, "close", is_beaten=True), former=first_grant()),
    AskBroker(Release(SPAN, 1, "aborted")),
]


def test_a_hedge_begins_when_no_event_has_come_in_time() -> None:
    session = new_session(account="k@a")
    session.start(0.0)
    assert session.granted(first_grant(), 1.0)[-1] == WakeAt(3.0)
    assert session.next_deadline == 3.0
    assert session.due(2.9) == []

    began, question = session.due(3.0)
    assert began == HedgeBegan(HEDGE)
    assert isinstance(question, AskBroker)
    assert isinstance(question.message, Acquire)
    facts = question.message
    assert (facts.span_id, facts.attempt, facts.account, facts.max_wait) == (HEDGE, 2, "k@a", 0.0)
    assert (facts.is_hedge, facts.is_provider_retry, facts.is_traced) == (True, False, False)

    (told,) = session.granted(hedge_grant(), 3.5)
    assert isinstance(told, TellWorker)
    assert told.lease == hedge_grant()
    assert isinstance(told.message, Run)
    assert (told.message.span_id, told.message.span_of, told.message.attempt) == (HEDGE, SPAN, 2)
    assert (told.message.queued, told.message.time_left) == (3.5, 596.5)
    assert session.granted(hedge_grant(), 3.6) == [], "it has begun"
    assert session.next_deadline == 605.0


def test_a_run_whose_first_event_came_in_time_gets_no_hedge() -> None:
    session = running()
    session.chunk(FIRST, chunk(SPAN, "text"))

    assert session.due(3.0) == []


def test_an_event_of_the_first_attempt_stops_the_hedge() -> None:
    session = hedged()

    assert session.chunk(FIRST, chunk(SPAN, "text")) == DROPPED
    assert session.events == ["text"]
    assert session.chunk(SECOND, chunk(HEDGE, "late")) == []
    assert session.ended(FIRST, finished(SPAN), 4.0)[-1] == RunEnded()


def test_a_hedge_with_the_first_event_takes_the_place_of_the_first_attempt() -> None:
    session = hedged()

    assert session.chunk(SECOND, chunk(HEDGE, "text")) == BEATEN
    assert session.chunk(FIRST, chunk(SPAN, "late")) == []
    assert session.worker_lost("gone", 4.0, SPAN) == []
    assert session.give_credit()[0] == TellWorker(Credit(HEDGE, 2, 64, 65536))
    assert session.broker_changed(5.5) == [AskBroker(Hold(HEDGE, 2, SECOND, session._question, age=2.0))]
    end = session.ended(SECOND, finished(HEDGE), 6.0)
    assert end == [HedgeEnded(HEDGE), AskBroker(Release(HEDGE, 2, "finished")), RunEnded()]
    assert session.events == ["text"]
    assert (session.attempt, session.lease) == (2, hedge_grant())


def test_a_whole_answer_without_a_stream_decides_too() -> None:
    session = hedged(streams=False)

    assert session.ended(SECOND, finished(HEDGE, 0, 0), 4.0)[:2] == BEATEN
    assert isinstance(session.ending, Finished)


def test_a_hedge_that_the_broker_does_not_allow_changes_nothing() -> None:
    session = asked()

    assert session.refused(Refuse(HEDGE, 2, "no_hedge", "too many"), 3.1) == [HedgeEnded(HEDGE)]
    assert session.granted(hedge_grant(), 3.2) == []
    assert session.phase is Phase.RUNNING
    assert session.due(100.0) == [], "one hedge for each run"


def test_a_hedge_that_still_waits_for_its_lease_is_withdrawn() -> None:
    session = asked()

    assert session.chunk(FIRST, chunk(SPAN, "text")) == [
        AskBroker(Release(HEDGE, 2, "withdrawn")),
        HedgeEnded(HEDGE),
    ]


def test_a_hedge_that_fails_is_forgotten() -> None:
    session = hedged(max_retries=2)

    commands = session.ended(SECOND, failed(HEDGE, may_retry=True), 4.0)
    assert commands == [AskBroker(Release(HEDGE, 2, "provider_unavailable", status_code=503)), HedgeEnded(HEDGE)]
    session.chunk(FIRST, chunk(SPAN, "text"))
    session.ended(FIRST, finished(SPAN), 5.0)
    assert isinstance(session.ending, Finished)


def test_a_hedge_takes_the_place_of_an_attempt_that_fails() -> None:
    session = hedged(max_retries=2)

    assert session.ended(FIRST, failed(SPAN, may_retry=True), 4.0) == [
        AskBroker(Release(SPAN, 1, "provider_unavailable", status_code=503))
    ]
    assert session.phase is Phase.RUNNING
    wake = session.ended(SECOND, failed(HEDGE, may_retry=True), 5.0)[-1]
    assert isinstance(wake, WakeAt)
    (question,) = session.due(wake.when)
    assert isinstance(question, AskBroker)
    assert isinstance(question.message, Acquire)
    assert (question.message.span_id, question.message.attempt, question.message.is_hedge) == (HEDGE, 3, False)


def test_the_error_of_a_hedge_is_that_of_its_run() -> None:
    session = hedged()
    session.ended(FIRST, failed(SPAN), 4.0)
    session.ended(SECOND, failed(HEDGE), 5.0)

    assert isinstance(session.ending, ProviderUnavailableError)
    assert session.ending.span_id == SPAN
    assert [attempt.number for attempt in session.ending.attempts] == [1, 2]


def test_a_retry_after_a_dropped_hedge_has_a_number_of_its_own() -> None:
    session = asked(max_retries=1)
    commands = session.ended(FIRST, failed(SPAN, may_retry=True), 4.0)
    assert commands[:2] == [AskBroker(Release(HEDGE, 2, "withdrawn")), HedgeEnded(HEDGE)]
    wake = commands[-1]
    assert isinstance(wake, WakeAt)
    (question,) = session.due(wake.when)

    assert isinstance(question, AskBroker)
    assert isinstance(question.message, Acquire)
    assert (question.message.span_id, question.message.attempt) == (SPAN, 3)


def test_a_hedge_takes_the_place_of_an_attempt_whose_worker_is_lost() -> None:
    session = hedged()

    assert session.worker_lost("gone", 4.0, SPAN) == [AskBroker(Release(SPAN, 1, "worker_lost"))]
    session.worker_lost("gone too", 5.0, HEDGE)
    assert isinstance(session.ending, PoisonRunError)


def test_both_attempts_on_one_worker_that_dies_are_one_death() -> None:
    session = hedged(epoch=FIRST)
    session.worker_lost("gone", 4.0, HEDGE)
    question = session.worker_lost("gone", 4.0, SPAN)[-1]

    assert isinstance(question, AskBroker)
    assert isinstance(question.message, Acquire)
    assert session.deaths == 1


def test_a_hedge_whose_worker_dies_is_a_death_of_its_run() -> None:
    session = hedged()
    session.worker_lost("gone", 4.0, HEDGE)
    assert (session.deaths, session.phase) == (1, Phase.RUNNING)

    session.worker_lost("gone too", 5.0, SPAN)
    assert isinstance(session.ending, PoisonRunError)


def test_an_abort_stops_both_attempts() -> None:
    session = hedged()

    assert session.stop(4.0) == [TellWorker(Abort(SPAN, 1, "close")), *DROPPED]
    assert session.chunk(SECOND, chunk(HEDGE, "late")) == []
    assert session.phase is Phase.STOPPING


def test_a_new_broker_is_told_of_both_leases() -> None:
    session = hedged()

    holds = [command.message for command in session.broker_changed(5.0) if isinstance(command, AskBroker)]
    assert [(hold.span_id, hold.attempt) for hold in holds] == [(SPAN, 1), (HEDGE, 2)]
    assert [hold.age for hold in holds if isinstance(hold, Hold)] == [4.0, 1.5]


def test_messages_of_another_worker_or_attempt_are_not_the_hedges() -> None:
    session = hedged()
    other = Chunk(HEDGE, 3, 0, ["late"])

    assert session.chunk(FIRST, chunk(HEDGE, "late")) == []
    assert session.chunk(SECOND, other) == []
    assert session.ended(FIRST, finished(HEDGE), 4.0) == []
    assert session.events == []


def test_a_hedge_whose_lease_was_ended_is_stopped() -> None:
    session = hedged()

    assert session.revoked(2, HEDGE) == DROPPED
    assert session.phase is Phase.RUNNING


def test_a_failed_client_ends_both_attempts() -> None:
    session = hedged()
    commands = session.failed(WorkerLostError(SPAN, "why"), 4.0)

    assert [command for command in DROPPED if command not in commands] == []
    assert commands[-1] == RunEnded()


def test_the_slow_first_chunks_are_known_after_twenty() -> None:
    times = SlowFirstChunks()
    for number in range(19):
        times.add(float(number))
    assert times.slow() is None

    times.add(19.0)
    assert times.slow() == 19.0
    for number in range(200):
        times.add(number / 100)
    assert times.slow() == 1.9, "of the last 200"


class HedgeMachine(RuleBasedStateMachine):
    """Two attempts of one run, with anything that can happen to them, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.asked: list[Acquire] = []
        self.given: dict[tuple[str, int], Grant] = {}
        self.released: list[tuple[str, int]] = []
        self.running: set[tuple[str, int]] = set()
        self.ends = 0
        self.epochs = 10

    @initialize(streams=st.booleans(), max_retries=st.integers(0, 2))
    def start(self, streams: bool, max_retries: int) -> None:
        self.session = new_session(streams=streams, max_retries=max_retries)
        self.carry_out(self.session.start(self.now))

    def carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case AskBroker(message=Acquire() as question):
                    self.asked.append(question)
                case AskBroker(message=Release() as release):
                    self.released.append((release.span_id, release.attempt))
                    self.asked = [each for each in self.asked if (each.span_id, each.attempt) != self.released[-1]]
                case TellWorker(message=Run() as run):
                    assert not self.session.events, "an attempt begins after an event"
                    self.running.add((run.span_id, run.attempt))
                case TellWorker(message=Abort() as abort):
                    self.running.discard((abort.span_id, abort.attempt))
                case RunEnded():
                    self.ends += 1
                case _:
                    pass

    @precondition(lambda self: self.asked)
    @rule(is_refused=st.sampled_from([False, False, False, True]))
    def broker_answers(self, is_refused: bool) -> None:
        question = self.asked.pop(0)
        if is_refused:
            kind: Any = "no_hedge" if question.is_hedge else "queue_full"
            self.carry_out(self.session.refused(Refuse(question.span_id, question.attempt, kind, "no"), self.now))
            return
        self.epochs += 1
        grant = Grant(question.span_id, question.attempt, "w", f"ipc://{self.epochs}", self.epochs)
        self.given[question.span_id, question.attempt] = grant
        self.carry_out(self.session.granted(grant, self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), what=st.sampled_from(["chunk", "finish", "fail", "fail", "lose"]))
    def something_happens_to_an_attempt(self, data: st.DataObject, what: str) -> None:
        span_id, attempt = data.draw(st.sampled_from(sorted(self.running)))
        epoch = self.given[span_id, attempt].epoch
        count = len(self.session.events)
        match what:
            case "chunk" if self.session.plan.streams:
                self.carry_out(self.session.chunk(epoch, Chunk(span_id, attempt, count, ["a"])))
            case "finish":
                end: Terminal = Finished(span_id, attempt, count, count, "stop", "stop", Usage(), [], "m")
                self.running.discard((span_id, attempt))
                self.carry_out(self.session.ended(epoch, end, self.now))
            case "fail":
                end = Failed(span_id, attempt, count, "provider_unavailable", "no", may_retry=True)
                self.running.discard((span_id, attempt))
                self.carry_out(self.session.ended(epoch, end, self.now))
            case _:
                self.running.discard((span_id, attempt))
                self.carry_out(self.session.worker_lost("gone", self.now, span_id))

    @rule(seconds=st.sampled_from([0.1, 2.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        deadline = self.session.next_deadline
        self.now = max(self.now, deadline if deadline is not None and seconds < 3 else 0.0) + seconds
        self.carry_out(self.session.due(self.now))

    @rule()
    def broker_is_another_one(self) -> None:
        for command in self.session.broker_changed(self.now):
            assert isinstance(command, AskBroker)
            assert not isinstance(command.message, Release)

    @rule()
    def caller_aborts(self) -> None:
        self.carry_out(self.session.stop(self.now))

    @invariant()
    def no_lease_is_given_back_twice(self) -> None:
        assert len(self.released) == len(set(self.released))

    @invariant()
    def at_most_two_attempts_run_and_one_after_the_first_event(self) -> None:
        if hasattr(self, "session"):
            assert len(self.running) <= (1 if self.session.events else 2)

    @invariant()
    def there_is_one_end(self) -> None:
        if hasattr(self, "session"):
            assert self.ends == (self.session.phase is Phase.ENDED)

    def teardown(self) -> None:
        if hasattr(self, "session"):
            self.carry_out(self.session.failed(WorkerLostError(SPAN, "the test is over"), self.now))
            assert set(self.given) <= set(self.released), "a lease was kept"
            assert not self.asked
            assert not self.running or self.session.phase is Phase.ENDED


TestHedgeMachine = HedgeMachine.TestCase
TestHedgeMachine.settings = settings(max_examples=repeated(40, 200), stateful_step_count=40, deadline=None)
