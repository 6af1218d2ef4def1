"""What a session promises: one ending that never changes, events in sequence, credit, and each lease released."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.errors import (
    EngineUnavailableError,
    InvalidRequestError,
    PoisonRunError,
    ProviderUnavailableError,
    QueueFullError,
    RemoteProtocolError,
    RunTimeoutError,
    WorkerLostError,
)
from headrace.runs.endings import Ending
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Phase, Session
from headrace.runs.session_commands import AskBroker, Command, RunEnded, TellWorker, WakeAt
from headrace.runs.silence import QUERY_AFTER, QUERY_TIMEOUT
from headrace.types import ReasoningDelta, RunEvent, Usage
from headrace.wire.flow import characters
from headrace.wire.messages import (
    WINDOW_CHARACTERS,
    WINDOW_EVENTS,
    Abort,
    Aborted,
    AbortMode,
    Acquire,
    Chunk,
    Credit,
    Failed,
    Finished,
    Grant,
    Hold,
    Query,
    RefusalKind,
    Refuse,
    Release,
    Run,
    RunState,
    Terminal,
    TokenCounts,
)
from headrace.wire.settlement import AttemptOutcome
from tests.repetition import repeated

SPAN = "sp_0123456789abcdef"
EPOCH = 7
USAGE = Usage(1, 2, 3, source="provider")
TOKENS = TokenCounts(1, 2, 0, "provider")


def new_session(**changes: Any) -> Session:
    facts: dict[str, Any] = {"span_id": SPAN, "provider": "p", "model": "m", "request": b"r", "streams": True}
    return Session(RunPlan(**facts | changes))


def grant(attempt: int = 1, epoch: int = EPOCH) -> Grant:
    return Grant(SPAN, attempt, "w1", "ipc://w1", epoch)


def acquire(attempt: int = 1, avoid: list[int] | None = None) -> AskBroker:
    return AskBroker(Acquire(SPAN, attempt, "p", "m", "interactive", avoid or []))


def repeat(attempt: int = 1, avoid: list[int] | None = None) -> AskBroker:
    return AskBroker(Acquire(SPAN, attempt, "p", "m", "interactive", avoid or [], is_repeat=True))


def hold() -> AskBroker:
    return AskBroker(Hold(SPAN, 1, EPOCH, Acquire(SPAN, 1, "p", "m")))


def release(outcome: AttemptOutcome, attempt: int = 1, tokens: TokenCounts | None = None) -> AskBroker:
    return AskBroker(Release(SPAN, attempt, outcome, tokens))


def abort(attempt: int = 1, mode: AbortMode = "close") -> TellWorker:
    return TellWorker(Abort(SPAN, attempt, mode))


def chunk(sequence: int, *events: RunEvent, attempt: int = 1) -> Chunk:
    return Chunk(SPAN, attempt, sequence, list(events))


def finished(sequence: int, text_length: int, attempt: int = 1) -> Finished:
    return Finished(SPAN, attempt, sequence, text_length, "stop", "stop", USAGE, [], "m-1")


def waiting(**changes: Any) -> Session:
    session = new_session(**changes)
    session.start(0.0)
    return session


def running(**changes: Any) -> Session:
    session = waiting(**changes)
    session.granted(grant(), 0.0)
    return session


def aborting(**changes: Any) -> Session:
    session = running(**changes)
    session.stop(0.0)
    return session


# The way through.


def test_a_run_asks_for_a_lease_runs_and_gives_the_lease_back() -> None:
    session = new_session(api_key="k")
    assert session.start(0.0) == [acquire()]

    run = Run(SPAN, 1, EPOCH, b"r", WINDOW_EVENTS, WINDOW_CHARACTERS, "k")
    assert session.granted(grant(), 0.0) == [TellWorker(run)]

    assert session.chunk(EPOCH, chunk(0, "Hel", ReasoningDelta("hm"))) == []
    assert session.chunk(EPOCH, chunk(2, "lo")) == []
    assert session.events == ["Hel", ReasoningDelta("hm"), "lo"]

    end = finished(3, 5)
    assert session.ended(EPOCH, end, 0.0) == [release("finished", tokens=TOKENS), RunEnded()]
    assert session.ending is end
    assert session.phase is Phase.ENDED


def test_a_run_without_a_stream_ends_with_its_terminal_message_alone() -> None:
    session = running(streams=False)
    end = finished(0, 0)

    assert session.ended(EPOCH, end, 0.0) == [release("finished", tokens=TOKENS), RunEnded()]
    assert session.ending is end


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refuse(SPAN, 1, "duplicate_span_id", "it runs"), InvalidRequestError),
        (Refuse(SPAN, 1, "queue_full", "full", 1.5), QueueFullError),
        (Refuse(SPAN, 1, "no_workers", "none"), EngineUnavailableError),
        (Refuse(SPAN, 1, "stopping", "bye"), EngineUnavailableError),
    ],
)
def test_a_refused_run_ends_with_the_error_of_the_refusal(refusal: Refuse, error: type[Exception]) -> None:
    session = waiting()

    assert RunEnded() in session.refused(refusal, 0.0)
    assert type(session.ending) is error


def test_a_failed_run_keeps_the_text_that_arrived() -> None:
    session = running()
    session.chunk(EPOCH, chunk(0, "half"))

    session.ended(EPOCH, Failed(SPAN, 1, 1, "provider_unavailable", "502", status_code=502), 0.0)

    assert isinstance(session.ending, ProviderUnavailableError)
    assert session.ending.partial_text == "half"
    assert (session.ending.provider, session.ending.status_code) == ("p", 502)


def test_a_new_broker_is_asked_by_a_waiting_run_and_told_of_the_lease_of_a_running_run() -> None:
    assert waiting().broker_changed(0.0) == [repeat()]
    assert running().broker_changed(0.0) == [hold()]
    assert new_session().broker_changed(0.0) == []


# Abort.


def test_a_stop_before_the_start_sends_nothing() -> None:
    session = new_session()

    assert session.stop(0.0) == [RunEnded()]
    assert session.ending == Aborted(SPAN, 1, 0, Usage())


def test_a_stopped_run_that_waited_is_released_and_a_late_grant_starts_nothing() -> None:
    session = waiting()

    assert session.stop(0.0) == [release("withdrawn"), RunEnded()]
    assert session.granted(grant(), 0.0) == []
    assert session.ending == Aborted(SPAN, 1, 0, Usage())


def test_a_stopped_run_tells_its_worker_and_has_the_usage_of_the_last_message() -> None:
    session = running()
    session.chunk(EPOCH, chunk(0, "half"))

    assert session.stop(0.0) == [abort()]
    assert session.chunk(EPOCH, chunk(1, "late")) == []
    assert session.events == ["half"]

    assert session.ended(EPOCH, Aborted(SPAN, 1, 1, USAGE), 0.0) == [release("aborted", tokens=TOKENS), RunEnded()]
    assert session.ending == Aborted(SPAN, 1, 1, USAGE)


def test_a_stop_wins_over_a_terminal_message_that_was_on_its_way() -> None:
    session = aborting()

    session.ended(EPOCH, finished(9, 9), 0.0)

    assert session.ending == Aborted(SPAN, 1, 9, USAGE)


def test_a_stop_after_the_end_changes_nothing() -> None:
    session = running()
    end = finished(0, 0)
    session.ended(EPOCH, end, 0.0)

    assert session.stop(0.0) == []
    assert session.ending is end


def test_a_second_stop_changes_nothing() -> None:
    session = aborting()

    assert session.stop(0.1) == []
    assert session.next_deadline == 0.2


@pytest.mark.parametrize(("mode", "grace"), [("close", 0.2), ("drain", 60.0)])
def test_a_stopped_run_waits_for_its_worker_only_for_the_grace_of_its_mode(mode: AbortMode, grace: float) -> None:
    session = running(on_abort=mode)
    session.chunk(EPOCH, chunk(0, "half"))

    assert session.stop(10.0) == [abort(mode=mode)]
    assert session.next_deadline == 10.0 + grace
    assert session.due(10.0 + grace - 0.001) == []
    assert session.due(10.0 + grace) == [release("aborted"), RunEnded()]
    assert session.ending == Aborted(SPAN, 1, 1, Usage())


def test_a_stopped_run_whose_worker_is_lost_ends_as_aborted() -> None:
    session = aborting()

    assert session.worker_lost("gone", 0.0) == [release("aborted"), RunEnded()]
    assert session.ending == Aborted(SPAN, 1, 0, Usage())


# Workers that die.


def test_a_run_without_any_event_is_retried_on_another_worker() -> None:
    session = running()

    assert session.worker_lost("gone", 0.0) == [release("worker_lost"), acquire(2, [EPOCH])]
    assert session.phase is Phase.WAITING

    session.granted(grant(2, 8), 0.0)
    session.chunk(8, chunk(0, "text", attempt=2))
    session.ended(8, finished(1, 4, attempt=2), 0.0)
    assert session.events == ["text"]
    assert isinstance(session.ending, Finished)
    assert session.attempt == 2


def test_a_run_that_was_stopped_before_its_first_chunk_is_lost_with_its_worker_where_the_engine_ends() -> None:
    """What docs/engine.md promises of a second SIGTERM."""
    stopped = Failed(SPAN, 1, 0, "worker_stopping", "its worker was stopped", partial_text="what a whole answer had")
    refused, failed = running(), running()
    for session in (refused, failed):
        assert session.ended(EPOCH, stopped, 0.0)[-1] == acquire(2, [EPOCH])
    refused.refused(Refuse(SPAN, 2, "stopping", "the engine is stopping"), 0.0)
    failed.failed(EngineUnavailableError("embedded", "it has ended"), 0.0)

    for session in (refused, failed):
        assert isinstance(session.ending, WorkerLostError)
        assert session.ending.partial_text == "what a whole answer had"


def test_a_run_that_no_worker_began_is_refused_where_the_engine_ends() -> None:
    waits, turned_away = waiting(), running()
    turned_away.ended(EPOCH, Failed(SPAN, 1, 0, "worker_stopping", "the worker is stopping", code="not_begun"), 0.0)
    waits.refused(Refuse(SPAN, 1, "stopping", "the engine is stopping"), 0.0)
    turned_away.refused(Refuse(SPAN, 2, "stopping", "the engine is stopping"), 0.0)

    for session in (waits, turned_away):
        assert isinstance(session.ending, EngineUnavailableError)


def test_a_run_with_events_ends_with_its_worker() -> None:
    session = running()
    session.chunk(EPOCH, chunk(0, "half"))

    assert session.worker_lost("gone", 0.0) == [release("worker_lost"), RunEnded()]
    assert isinstance(session.ending, WorkerLostError)
    assert session.ending.partial_text == "half"


def test_an_error_names_the_argument_as_the_caller_wrote_it() -> None:
    session = running(original_paths={"messages[0].content[0]": "messages[0].tool_calls[0]"})
    session.ended(
        EPOCH, Failed(SPAN, 1, 0, "invalid_request", "no such key", argument="messages[0].content[0].colour"), 0.0
    )

    assert isinstance(session.ending, InvalidRequestError)
    assert session.ending.argument == "messages[0].tool_calls[0].colour"


def test_another_worker_gets_the_same_key_and_the_same_address() -> None:
    session = waiting(api_key="sk-secret", base_url="http://user:secret@host/v1")
    asked = [session.granted(grant(), 0.0)]
    session.worker_lost("gone", 0.0)
    asked.append(session.granted(grant(2, 8), 0.0))

    for commands in asked:
        (told,) = commands
        assert isinstance(told, TellWorker)
        assert isinstance(told.message, Run)
        assert (told.message.api_key, told.message.base_url) == ("sk-secret", "http://user:secret@host/v1")
        assert "secret" not in f"{told} {session.plan}"


def test_a_run_that_a_stopping_worker_did_not_begin_is_a_retry_that_avoids_this_worker() -> None:
    session = running()
    stopping = Failed(SPAN, 1, 0, "worker_stopping", "it stops", code="not_begun")

    commands = session.ended(EPOCH, stopping, 0.0)

    assert commands == [release("worker_stopping"), acquire(2, [EPOCH])]
    assert isinstance(question := commands[1], AskBroker)
    assert isinstance(question.message, Acquire)
    assert question.message.is_retry


def test_the_broker_is_told_how_an_attempt_ended_as_its_worker_said_it() -> None:
    session = running()
    limited = Failed(SPAN, 1, 0, "rate_limit", "slow down", USAGE, 429, retry_after=2.0)

    assert session.ended(EPOCH, limited, 0.0) == [
        AskBroker(Release(SPAN, 1, "rate_limit", TOKENS, 429, 2.0)),
        RunEnded(),
    ]


def test_a_release_says_only_how_its_own_attempt_ended() -> None:
    session = running()
    session.ended(EPOCH, Failed(SPAN, 1, 0, "worker_stopping", "it stops", code="not_begun"), 0.0)
    session.granted(grant(2, 8), 0.0)

    assert session.worker_lost("gone", 0.0)[0] == release("worker_lost", 2)


def test_a_run_that_saw_two_workers_die_is_not_tried_again() -> None:
    session = running()
    session.worker_lost("gone", 0.0)
    session.granted(grant(2, 8), 0.0)

    assert session.worker_lost("gone too", 0.0) == [release("worker_lost", 2), RunEnded()]
    assert isinstance(session.ending, PoisonRunError)


def test_a_second_attempt_starts_with_a_whole_window() -> None:
    session = running()
    session.worker_lost("gone", 0.0)

    run = Run(SPAN, 2, 8, b"r", WINDOW_EVENTS, WINDOW_CHARACTERS)
    assert session.granted(grant(2, 8), 0.0) == [TellWorker(run)]


def test_messages_of_an_earlier_attempt_or_another_worker_change_nothing() -> None:
    session = running()
    session.worker_lost("gone", 0.0)
    assert session.granted(grant(1, EPOCH), 0.0) == []
    assert session.refused(Refuse(SPAN, 1, "no_workers", "late"), 0.0) == []
    session.granted(grant(2, 8), 0.0)

    assert session.chunk(EPOCH, chunk(0, "old")) == []
    assert session.chunk(8, chunk(0, "old")) == []
    assert session.chunk(EPOCH, chunk(0, "old", attempt=2)) == []
    assert session.ended(EPOCH, finished(1, 3), 0.0) == []
    assert session.ended(EPOCH, finished(1, 3, attempt=2), 0.0) == []
    assert session.events == []
    assert session.ending is None


def test_a_lost_worker_does_not_change_a_run_that_waits() -> None:
    session = waiting()

    assert session.worker_lost("gone", 0.0) == []
    assert session.phase is Phase.WAITING


# A peer that breaks the protocol.


@pytest.mark.parametrize("sequence", [0, 2, 5])
def test_a_chunk_out_of_sequence_ends_the_run_and_stops_the_worker(sequence: int) -> None:
    session = running()
    session.chunk(EPOCH, chunk(0, "a"))

    assert session.chunk(EPOCH, chunk(sequence, "c")) == [abort(), release("client_failed"), RunEnded()]
    assert isinstance(session.ending, RemoteProtocolError)
    assert session.events == ["a"]


@pytest.mark.parametrize(("sequence", "text_length"), [(1, 4), (1, 6), (0, 5), (2, 5)])
def test_a_terminal_message_with_another_count_than_the_events_is_an_error(sequence: int, text_length: int) -> None:
    session = running()
    session.chunk(EPOCH, chunk(0, "Hello"))

    assert session.ended(EPOCH, finished(sequence, text_length), 0.0) == [
        release("finished", tokens=TOKENS),
        RunEnded(),
    ]
    assert isinstance(session.ending, RemoteProtocolError)


# Time.


def test_a_run_without_a_total_timeout_has_no_deadline() -> None:
    session = running()

    assert session.next_deadline is None
    assert session.due(1e9) == []


def test_a_run_ends_at_its_total_timeout_though_its_worker_does_not_say_so() -> None:
    session = running(total_timeout=3.0)
    session.chunk(EPOCH, chunk(0, "half"))
    deadline = 3.0 + 5.0
    assert session.next_deadline == deadline

    assert session.due(deadline - 0.001) == []
    assert session.due(deadline) == [abort(), release("client_failed"), RunEnded()]
    assert isinstance(session.ending, RunTimeoutError)
    assert (session.ending.clock, session.ending.limit, session.ending.partial_text) == ("total", 3.0, "half")


def test_the_total_timeout_of_a_retried_run_counts_from_the_first_start() -> None:
    session = running(total_timeout=3.0)
    session.worker_lost("gone", 0.0)

    assert session.due(3.0 + 5.0) == [release("withdrawn", 2), RunEnded()]
    assert isinstance(session.ending, RunTimeoutError)


# Silence.

ASK = TellWorker(Query(SPAN, 1))


def test_a_worker_is_asked_for_a_run_that_is_silent() -> None:
    session = running()
    assert session.check_silence(100.0) == []
    assert session.check_silence(100.0 + QUERY_AFTER - 0.1) == []

    assert session.check_silence(100.0 + QUERY_AFTER) == [ASK]
    assert session.check_silence(100.0 + QUERY_AFTER + 1.0) == [], "asked once"


def test_a_worker_that_has_the_run_is_asked_again_later() -> None:
    session = running()
    session.check_silence(0.0)
    session.check_silence(QUERY_AFTER)
    assert session.run_state(EPOCH, RunState(SPAN, 1, is_running=True), 0.0) == []

    assert session.check_silence(2 * QUERY_AFTER - 0.1) == []
    assert session.check_silence(2 * QUERY_AFTER) == [ASK]


def test_an_event_counts_as_an_answer() -> None:
    session = running()
    session.check_silence(0.0)
    assert session.check_silence(QUERY_AFTER) == [ASK]
    session.chunk(EPOCH, chunk(0, "a"))

    assert session.check_silence(QUERY_AFTER + QUERY_TIMEOUT) == []
    assert session.check_silence(2 * QUERY_AFTER + QUERY_TIMEOUT) == [ASK]


def test_a_run_that_its_worker_does_not_have_ends_as_if_the_worker_was_lost() -> None:
    session = running()
    session.chunk(EPOCH, chunk(0, "half"))

    assert session.run_state(EPOCH, RunState(SPAN, 1, is_running=False), 0.0) == [release("worker_lost"), RunEnded()]
    assert isinstance(session.ending, WorkerLostError)
    assert session.ending.partial_text == "half"
    assert running().run_state(EPOCH, RunState(SPAN, 1, is_running=False), 0.0) == [
        release("worker_lost"),
        acquire(2, [EPOCH]),
    ]


def test_a_run_without_events_is_retried_if_its_worker_does_not_answer() -> None:
    session = running()
    session.check_silence(0.0)
    session.check_silence(QUERY_AFTER)

    assert session.check_silence(QUERY_AFTER + QUERY_TIMEOUT - 0.1) == []
    abort_there = TellWorker(Abort(SPAN, 1, "close"), grant())
    assert session.check_silence(QUERY_AFTER + QUERY_TIMEOUT) == [
        abort_there,
        release("worker_lost"),
        acquire(2, [EPOCH]),
    ]


def test_a_run_with_events_ends_if_its_worker_does_not_answer() -> None:
    session = running()
    session.chunk(EPOCH, chunk(0, "half"))
    session.check_silence(0.0)
    session.check_silence(QUERY_AFTER)

    abort_there = TellWorker(Abort(SPAN, 1, "close"), grant())
    assert session.check_silence(QUERY_AFTER + QUERY_TIMEOUT) == [abort_there, release("worker_lost"), RunEnded()]
    assert isinstance(session.ending, WorkerLostError)
    assert session.ending.partial_text == "half"


def test_the_broker_is_told_again_of_a_lease_that_it_ended_while_the_worker_has_the_run() -> None:
    session = running()

    assert session.revoked(1) == [ASK]
    assert session.run_state(EPOCH, RunState(SPAN, 1, is_running=True), 0.0) == [hold()]
    assert session.run_state(EPOCH, RunState(SPAN, 1, is_running=True), 0.0) == []


def test_a_run_whose_lease_was_ended_is_retried_if_its_worker_does_not_have_it() -> None:
    session = running()
    session.revoked(1)

    assert session.run_state(EPOCH, RunState(SPAN, 1, is_running=False), 0.0) == [
        release("worker_lost"),
        acquire(2, [EPOCH]),
    ]


def test_the_end_of_another_lease_changes_nothing() -> None:
    assert running().revoked(2) == []
    assert new_session().revoked(1) == []


def test_an_answer_about_another_attempt_changes_nothing() -> None:
    session = running()
    for epoch, attempt in ((EPOCH, 2), (EPOCH + 1, 1)):
        assert session.run_state(epoch, RunState(SPAN, attempt, is_running=False), 0.0) == []

    assert session.phase is Phase.RUNNING
    assert waiting().check_silence(1e9) == []
    assert waiting().run_state(EPOCH, RunState(SPAN, 1, is_running=False), 0.0) == []


# Credit.


def test_the_worker_may_send_a_whole_window_beyond_what_the_reader_has_taken() -> None:
    session = running()
    session.credit.take(["ab"] * 40)

    limits = Credit(SPAN, 1, 40 + WINDOW_EVENTS, 80 + WINDOW_CHARACTERS)
    assert session.give_credit() == [TellWorker(limits)]


def test_a_run_that_is_not_running_gives_no_credit() -> None:
    for session in (waiting(), aborting()):
        session.credit.take(["x"] * WINDOW_EVENTS)
        assert session.give_credit() == []


# The connection gives up.


def test_a_connection_that_fails_ends_each_run_with_its_error() -> None:
    error = EngineUnavailableError("embedded", "gone")

    for session, commands in (
        (new_session(), [RunEnded()]),
        (waiting(), [release("withdrawn"), RunEnded()]),
        (running(), [abort(), release("client_failed"), RunEnded()]),
        (aborting(), [abort(), release("client_failed"), RunEnded()]),
    ):
        assert session.failed(error, 0.0) == commands
        assert session.ending is error
        assert session.failed(EngineUnavailableError("embedded", "again"), 0.0) == []
        assert session.ending is error


def test_the_plan_does_not_show_the_key() -> None:
    assert "sk-secret" not in repr(new_session(api_key="sk-secret").plan)


# Everything at once.


class WorkerModel:
    """One worker process: the messages to it and from it."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.attempt = 0
        self.inbox: list[Run | Credit | Abort | Query] = []
        self.sent: list[RunEvent] = []
        self.outbox: list[Chunk | Terminal | RunState] = []
        self.is_running = False
        self.sequence_limit = 0
        self.character_limit = 0

    def read(self) -> None:
        message = self.inbox.pop(0)
        match message:
            case Run():
                assert message.epoch == self.epoch
                self.attempt = message.attempt
                self.is_running = True
                self.sequence_limit, self.character_limit = message.sequence_limit, message.character_limit
            case Credit():
                self.sequence_limit = max(self.sequence_limit, message.sequence_limit)
                self.character_limit = max(self.character_limit, message.character_limit)
            case Abort():
                if self.is_running:
                    self.end(Aborted(SPAN, self.attempt, len(self.sent), USAGE))
            case Query():
                is_running = self.is_running and self.attempt == message.attempt
                self.outbox.append(RunState(SPAN, message.attempt, is_running))

    def send(self, events: list[RunEvent]) -> None:
        room = self.character_limit - characters(self.sent)
        allowed = events[: self.sequence_limit - len(self.sent)]
        while characters(allowed) > room:
            allowed.pop()
        if allowed:
            self.outbox.append(Chunk(SPAN, self.attempt, len(self.sent), allowed))
            self.sent.extend(allowed)

    def end(self, terminal: Terminal) -> None:
        self.is_running = False
        self.outbox.append(terminal)


EVENTS = st.lists(
    st.one_of(
        st.text(max_size=5),
        st.builds(ReasoningDelta, st.text(max_size=5)),
        st.integers(1, WINDOW_CHARACTERS // 4).map("x".__mul__),
    ),
    min_size=1,
    max_size=WINDOW_EVENTS,
)


class SessionMachine(RuleBasedStateMachine):
    """A client, a broker and two workers that die, with any delay of each message."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.asked: list[Acquire | Hold | Release] = []  # on its way to the broker
        self.answers: list[Grant | Refuse] = []  # on its way from it
        self.waiting: Acquire | None = None
        self.released: list[int] = []
        self.granted: set[int] = set()
        self.epochs = 2
        self.workers = [WorkerModel(1), WorkerModel(2)]
        self.stale: list[tuple[int, Chunk | Terminal | RunState]] = []
        self.sent_of: dict[int, list[RunEvent]] = {}
        self.taken = 0
        self.ends = 0
        self.happens: set[str] = set()
        self.first_outcome: Ending | None = None
        self.events_before: list[RunEvent] = []
        self.worker_deaths = 0
        self.failures: dict[
            str, int
        ] = {}  # model: how often its provider failed with a failure that may be tried again
        self.refusals = 0

    @initialize(
        happens=st.sets(st.sampled_from(["refusal", "abort", "time", "end", "forgotten"])),
        max_retries=st.integers(0, 2),
        fallbacks=st.integers(0, 2),
        streams=st.sampled_from([True, True, True, False]),
        on_abort=st.sampled_from(["close", "drain"]),
        total_timeout=st.sampled_from([None, 1.0, 30.0]),
    )
    def start(
        self,
        happens: set[str],
        max_retries: int,
        fallbacks: int,
        streams: bool,
        on_abort: AbortMode,
        total_timeout: float | None,
    ) -> None:
        self.happens = happens  # what may end this run: with fewer of them, it runs for longer
        facts: dict[str, Any] = {"streams": streams, "on_abort": on_abort, "total_timeout": total_timeout}
        facts |= {"max_retries": max_retries}
        self.max_retries, self.fallbacks = max_retries, fallbacks
        fallback: RunPlan | None = None
        for number in range(fallbacks, 0, -1):
            fallback = new_session(**facts, model=f"m{number}", fallback=fallback).plan
        self.session = new_session(**facts, fallback=fallback)
        self.carry_out(self.session.start(self.now))

    def carry_out(self, commands: list[Command]) -> None:
        had_ended = self.first_outcome is not None
        assert not (had_ended and commands), "something after the outcome"
        for command in commands:
            match command:
                case AskBroker():
                    self.asked.append(command.message)
                    if isinstance(command.message, Release):
                        self.released.append(command.message.attempt)
                case WakeAt():
                    assert self.session.phase is Phase.BACKING_OFF
                    assert self.session.next_deadline == command.when
                case TellWorker():
                    assert self.session.lease is not None
                    assert not isinstance(command.message, Run) or not self.session.events, "events had arrived"
                    for worker in self.workers:
                        if worker.epoch == self.session.lease.epoch:
                            worker.inbox.append(command.message)
                case RunEnded():
                    self.ends += 1
        if self.session.ending is not None and not had_ended:
            self.first_outcome = self.session.ending

    def worker_of_lease(self) -> WorkerModel | None:
        lease = self.session.lease
        return next((worker for worker in self.workers if lease and worker.epoch == lease.epoch), None)

    # The broker.

    @precondition(lambda self: self.asked)
    @rule()
    def broker_reads(self) -> None:
        message = self.asked.pop(0)
        if isinstance(message, Acquire):
            self.waiting = message
        elif self.waiting is not None and self.waiting.attempt == message.attempt:
            self.waiting = None

    @precondition(lambda self: self.waiting is not None)
    @rule(number=st.integers(0, 1))
    def broker_grants(self, number: int) -> None:
        assert self.waiting is not None
        question, self.waiting = self.waiting, None
        assert question.attempt not in self.granted
        self.granted.add(question.attempt)
        self.answers.append(Grant(SPAN, question.attempt, "w", f"ipc://{number}", self.workers[number].epoch))

    @precondition(lambda self: self.waiting is not None and "refusal" in self.happens)
    @rule(data=st.data())
    def broker_refuses(self, data: st.DataObject) -> None:
        assert self.waiting is not None
        question, self.waiting = self.waiting, None
        kinds: list[RefusalKind] = ["queue_full", "over_budget", "no_workers"]
        if question.is_provider_retry:
            kinds.append("no_retry")
        self.refusals += 1
        self.answers.append(Refuse(SPAN, question.attempt, data.draw(st.sampled_from(kinds)), "no"))

    @precondition(lambda self: self.answers)
    @rule()
    def answer_arrives(self) -> None:
        answer = self.answers.pop(0)
        if isinstance(answer, Refuse):
            self.carry_out(self.session.refused(answer, self.now))
            return
        self.carry_out(self.session.granted(answer, self.now))
        if self.session.phase is Phase.RUNNING and self.worker_of_lease() is None:
            # The worker has died since the grant: the connection to it fails.
            self.worker_deaths += 1
            self.carry_out(self.session.worker_lost("gone", self.now))

    # The workers.

    @precondition(lambda self: any(worker.inbox for worker in self.workers))
    @rule()
    def worker_reads(self) -> None:
        next(worker for worker in self.workers if worker.inbox).read()

    @precondition(lambda self: any(worker.is_running for worker in self.workers))
    @rule(events=EVENTS)
    def worker_sends(self, events: list[RunEvent]) -> None:
        worker = next(worker for worker in self.workers if worker.is_running)
        if self.session.plan.streams:
            worker.send(events)
            self.sent_of[worker.attempt] = worker.sent

    @precondition(lambda self: "end" in self.happens and any(worker.is_running for worker in self.workers))
    @rule(
        succeeds=st.booleans(),
        may_retry=st.booleans(),
        kind=st.sampled_from(["provider_unavailable", "invalid_request"]),
    )
    def worker_ends(self, succeeds: bool, may_retry: bool, kind: Any) -> None:
        worker = next(worker for worker in self.workers if worker.is_running)
        length = sum(len(event) for event in worker.sent if isinstance(event, str))
        if succeeds:
            worker.end(finished(len(worker.sent), length, worker.attempt))
        else:
            status = 502 if kind == "provider_unavailable" else 400
            failed = Failed(SPAN, worker.attempt, len(worker.sent), kind, "no", status_code=status, may_retry=may_retry)
            worker.end(failed)

    @precondition(lambda self: any(worker.outbox for worker in self.workers))
    @rule()
    def message_arrives(self) -> None:
        worker = next(worker for worker in self.workers if worker.outbox)
        self.receive(worker.epoch, worker.outbox.pop(0))

    def receive(self, epoch: int, message: Chunk | Terminal | RunState) -> None:
        self.stale.append((epoch, message))
        match message:
            case Chunk():
                self.carry_out(self.session.chunk(epoch, message))
            case RunState():
                was_running = self.session.phase is Phase.RUNNING
                self.carry_out(self.session.run_state(epoch, message, self.now))
                self.worker_deaths += was_running and self.session.phase is not Phase.RUNNING
                assert self.session.phase is Phase.RUNNING or not was_running or "forgotten" in self.happens
            case _:
                model, attempt = self.session.plan.model, self.session.attempt
                self.carry_out(self.session.ended(epoch, message, self.now))
                if self.session.phase is Phase.BACKING_OFF or self.session.attempt != attempt:
                    self.failures[model] = self.failures.get(model, 0) + 1

    @precondition(lambda self: "forgotten" in self.happens and any(worker.is_running for worker in self.workers))
    @rule()
    def worker_forgets_the_run(self) -> None:
        next(worker for worker in self.workers if worker.is_running).is_running = False

    @rule(number=st.integers(0, 1), reads_on=st.booleans())
    def worker_dies(self, number: int, reads_on: bool) -> None:
        worker = self.workers[number]
        while reads_on and worker.outbox:  # its last messages arrive before its end
            self.receive(worker.epoch, worker.outbox.pop(0))
        self.stale.extend((worker.epoch, message) for message in worker.outbox)
        self.epochs += 1
        self.workers[number] = WorkerModel(self.epochs)
        lease = self.session.lease
        if lease is not None and lease.epoch == worker.epoch:
            self.worker_deaths += self.session.phase is Phase.RUNNING
            self.carry_out(self.session.worker_lost("gone", self.now))

    @precondition(lambda self: self.session.phase is Phase.RUNNING and not self.session.events)
    @rule(events=EVENTS)
    def worker_dies_with_words_unheard(self, events: list[RunEvent]) -> None:
        worker = self.worker_of_lease()
        assert worker is not None
        while worker.inbox:
            worker.read()
        if worker.is_running:
            self.worker_sends(events)
        self.worker_dies(self.workers.index(worker), reads_on=False)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def a_message_of_an_old_attempt_comes_late(self, data: st.DataObject) -> None:
        epoch, message = data.draw(st.sampled_from(self.stale))
        lease = self.session.lease
        is_current = lease is not None and lease.epoch == epoch and message.attempt == self.session.attempt
        if is_current and self.first_outcome is None:
            return  # a link delivers each message of the current attempt once
        self.receive(epoch, message)

    @precondition(lambda self: self.first_outcome is None)
    @rule(number=st.integers(0, 1))
    def all_goes_well(self, number: int) -> None:
        """Deliver all messages that are on their way, so that the run runs."""
        if self.session.phase is Phase.BACKING_OFF:
            self.the_wait_for_the_next_attempt_ends()
        while self.asked:
            self.broker_reads()
        if self.waiting is not None:
            self.broker_grants(number)
        while self.answers:
            self.answer_arrives()
        while any(worker.inbox for worker in self.workers):
            self.worker_reads()

    # The caller.

    @precondition(lambda self: "abort" in self.happens)
    @rule()
    def caller_aborts(self) -> None:
        self.carry_out(self.session.stop(self.now))
        assert self.session.phase in (Phase.STOPPING, Phase.ENDED)
        assert self.session.stop(self.now + 1.0) == []

    @rule(count=st.integers(1, WINDOW_EVENTS))
    def caller_reads(self, count: int) -> None:
        batch = self.session.events[self.taken : self.taken + count]
        self.taken += len(batch)
        if batch:
            self.session.credit.take(batch)
        if self.session.credit.is_due(self.session.events):
            self.carry_out(self.session.give_credit())

    @precondition(lambda self: "time" in self.happens)
    @rule(seconds=st.sampled_from([0.01, 0.3, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.session.due(self.now))
        deadline = self.session.next_deadline
        assert self.first_outcome is not None or deadline is None or deadline > self.now

    @precondition(lambda self: self.session.phase is Phase.BACKING_OFF)
    @rule()
    def the_wait_for_the_next_attempt_ends(self) -> None:
        deadline = self.session.next_deadline
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.carry_out(self.session.due(self.now))
        assert self.session.phase in (Phase.WAITING, Phase.ENDED)

    @rule(seconds=st.sampled_from([1.0, QUERY_AFTER]))
    def silence_is_listened_to(self, seconds: float) -> None:
        lease = self.session.lease
        worker = next((worker for worker in self.workers if lease and worker.epoch == lease.epoch), None)
        is_answered = worker is None or not any(isinstance(message, Query) for message in worker.inbox)
        answers = [message for message in worker.outbox if isinstance(message, RunState)] if worker else []
        if is_answered and not answers:  # a worker that answers is in time
            self.now += seconds
            self.carry_out(self.session.check_silence(self.now))

    @rule()
    def engine_changes(self) -> None:
        if self.session.phase is Phase.WAITING and self.waiting is None and not self.answers:
            self.asked = [message for message in self.asked if isinstance(message, Release)]
            self.carry_out(self.session.broker_changed(self.now))

    # What always holds.

    @invariant()
    def the_outcome_comes_once_and_never_changes(self) -> None:
        if hasattr(self, "session"):
            assert self.session.ending is self.first_outcome
            assert self.ends == (self.first_outcome is not None)
            assert (self.session.phase is Phase.ENDED) == (self.first_outcome is not None)

    @invariant()
    def events_grow_and_are_a_prefix_of_what_the_worker_sent(self) -> None:
        if hasattr(self, "session"):
            events = self.session.events
            assert events[: len(self.events_before)] == self.events_before
            assert events == self.sent_of.get(self.session.attempt, [])[: len(events)]
            self.events_before = list(events)

    @invariant()
    def no_more_than_a_window_is_outstanding(self) -> None:
        if hasattr(self, "session"):
            size = characters(self.session.events[: self.taken])
            assert len(self.session.events) - self.taken <= WINDOW_EVENTS
            for worker in self.workers:
                if worker.attempt == self.session.attempt:
                    assert worker.sequence_limit <= self.taken + WINDOW_EVENTS
                    assert worker.character_limit <= size + WINDOW_CHARACTERS

    @invariant()
    def no_lease_is_given_back_twice(self) -> None:
        assert len(self.released) == len(set(self.released))

    @invariant()
    def a_run_has_no_more_attempts_than_it_may(self) -> None:
        if hasattr(self, "session"):
            attempts = 1 + self.worker_deaths + sum(self.failures.values()) + self.refusals
            assert self.session.attempt <= attempts
            assert all(count <= 1 + self.max_retries for count in self.failures.values())
            assert len(self.failures) <= 1 + self.fallbacks

    @invariant()
    def no_more_than_two_workers_die_of_a_run(self) -> None:
        assert self.worker_deaths <= 2

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return
        while self.answers:
            self.answer_arrives()
        self.carry_out(self.session.failed(EngineUnavailableError("embedded", "the test is over"), self.now))
        assert self.session.ending is not None
        self.the_outcome_comes_once_and_never_changes()
        # Every question was released: the broker holds nothing.
        assert self.released == list(range(1, self.session.attempt + 1))
        assert self.granted <= set(self.released)
        while self.asked:
            self.broker_reads()
        assert self.waiting is None


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=repeated(30, 150), stateful_step_count=50, deadline=None)
