"""The state machine of one run in its client: it waits for a lease, runs on a worker, is tried again, and ends. Pure.

Rules of this file:

1. Everything that changes a run's phase is here.
2. A run gets exactly one ending, which never changes. ``outcome.py`` says what the caller gets, and what an abort
   changes.
3. Events are accepted in sequence only, from the attempt and the worker epoch that hold the lease.
4. A run without any event so far is retried on another worker. Any other run ends with its worker.
5. A run without any event so far may be tried again after a failure of its provider, on any worker, and may then be
   given to another model. ``retry_policy.py`` says when.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.answers.assembly import joined_text
from headrace.errors import (
    EngineUnavailableError,
    HeadraceError,
    PoisonRunError,
    RemoteProtocolError,
    WorkerLostError,
)
from headrace.runs.attempt_messages import acquire_of, hold_of, run_of
from headrace.runs.endings import (
    Ending,
    aborted_without_answer,
    as_aborted,
    checked,
    client_outcome,
    failure,
    timed_out,
)
from headrace.runs.failed_attempts import FailedAttempts
from headrace.runs.reader_credit import ReaderCredit
from headrace.runs.retry_policy import longest_wait, may_fall_back_after, next_step
from headrace.runs.run_plan import RunPlan
from headrace.runs.run_times import RunTimes
from headrace.runs.session_commands import AskBroker, Command, RunEnded, TellWorker, WakeAt
from headrace.runs.silence import QUERY_TIMEOUT, Silence
from headrace.types import RunEvent
from headrace.wire.messages import (
    NOT_BEGUN,
    Abort,
    Aborted,
    AbortMode,
    Acquire,
    Chunk,
    Credit,
    Failed,
    Finished,
    Grant,
    Query,
    Refuse,
    Release,
    RunState,
    Terminal,
)
from headrace.wire.settlement import ClientOutcome, release_of
from headrace.wire.typed_errors import refusal_error

ABORT_GRACE = 0.2
"""Seconds that a stopped run waits for the worker's last message, which has the usage."""
DRAIN_GRACE = 60.0
"""The same with ``on_abort="drain"``: the worker reads the provider's answer to its end."""
DEADLINE_GRACE = 5.0
"""Seconds that a run waits beyond its total timeout for the worker's message that it timed out."""
MAX_WORKER_DEATHS = 2
"""A run that was on so many workers when they died is not tried again."""


class Phase(enum.Enum):
    """How far a run has come."""

    NEW = "new"
    WAITING = "waiting"  # for a lease
    RUNNING = "running"  # on a worker
    STOPPING = "stopping"  # the worker was told to stop; its last message is awaited
    BACKING_OFF = "backing off"  # an attempt has failed at its provider; the next one begins later
    ENDED = "ended"


_NOTHING: list[Command] = []
_RUN_ENDED = RunEnded()


class Session:
    """One run. Each method takes what happened, and returns what to do."""

    __slots__ = (
        "_backoff_until",
        "_deadline",
        "_failures",
        "_is_revoked",
        "_question",
        "_silence",
        "_stop_deadline",
        "_stopped_with_worker",
        "_terminal",
        "_was_granted",
        "_worker_told_end",
        "attempt",
        "avoided_epochs",
        "credit",
        "deaths",
        "ending",
        "events",
        "lease",
        "phase",
        "plan",
        "span_id",
        "times",
    )

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        """What was asked for. Once the run was given to another model, it is that model's plan."""
        self.span_id = plan.span_id
        """The id of the present attempt, to the broker and to its worker: the run's, or that of a hedge that was faster."""
        self.phase = Phase.NEW
        self.attempt = 1
        self.deaths = 0
        self.avoided_epochs: Sequence[int] = ()
        """Epochs of workers on which the run must not be tried again."""
        self.lease: Grant | None = None
        self.events: list[RunEvent] = []
        self.ending: Ending | None = None
        self.credit = ReaderCredit(reads_all=not plan.streams)
        self.times = RunTimes(plan.total_timeout)
        # None: the connection limits how long the run waits, until the run has a deadline.
        self._deadline: float | None = None
        self._stop_deadline: float | None = None
        self._backoff_until = 0.0
        self._was_granted = False
        self._worker_told_end = False
        # The message of a worker that had begun the run and was stopped before any event had arrived. It is the ending,
        # if no other worker takes the run.
        self._stopped_with_worker: Failed | None = None
        # The worker's terminal message of this attempt. The Release tells the broker how the attempt ended.
        self._terminal: Terminal | None = None
        # The question of this attempt to the broker.
        self._question: Acquire | None = None
        self._failures: FailedAttempts | None = None
        self._silence: Silence | None = None
        # The broker has ended the lease. The worker was asked whether it has the run all the same.
        self._is_revoked = False

    @property
    def next_deadline(self) -> float | None:
        """When :meth:`due` must be called next, on the caller's clock; ``None`` for never."""
        match self.phase:
            case Phase.STOPPING:
                return self._stop_deadline
            case Phase.BACKING_OFF:
                return self._backoff_until
            case _:
                return self._deadline

    @property
    def wants_span(self) -> bool:
        """Whether the client must write the span of a run that has ended: its worker did not say how it ended."""
        return self.plan.is_traced and self._was_granted and not self._worker_told_end

    def failure_count(self, status_code: int) -> int:
        """Return how many attempts of the run failed with an HTTP status of the provider."""
        return 0 if self._failures is None else self._failures.count_of(status_code)

    def start(self, now: float) -> list[Command]:
        """Ask for a lease."""
        self.times.started_at = now
        if self.plan.total_timeout is not None:
            self._deadline = now + self.plan.total_timeout + DEADLINE_GRACE
        return self._acquire(now)

    def broker_changed(self, now: float) -> list[Command]:
        """The broker is a new one: ask it for a lease again, or tell it of the lease that the run has."""
        if self.phase is Phase.WAITING and self._question is not None:
            max_wait = longest_wait(self.plan, self.times.left(now))
            return [AskBroker(msgspec.structs.replace(self._question, is_repeat=True, max_wait=max_wait))]
        if self.lease is not None and self.phase in (Phase.RUNNING, Phase.STOPPING):
            return self._hold(self.lease, now)
        return _NOTHING

    def granted(self, grant: Grant, now: float) -> list[Command]:
        """A lease arrived."""
        if self.phase is not Phase.WAITING or grant.attempt != self.attempt or grant.span_id != self.span_id:
            # The run waits no longer: it has given this lease back already.
            return _NOTHING
        self.phase = Phase.RUNNING
        self.lease = grant
        self._was_granted = True
        self._worker_told_end = False
        self._is_revoked = False
        self._silence = None
        times = self.times
        times.granted(grant.waited_for, now)
        time_left = None if self.attempt == 1 else times.left(now)
        return [TellWorker(run_of(self.plan, grant, self.credit, times.until_lease, time_left))]

    def refused(self, refusal: Refuse, now: float, address: str = "the engine") -> list[Command]:
        """The broker gives no lease. ``address`` is the engine's address, for the error's text."""
        if self.phase is not Phase.WAITING or refusal.attempt != self.attempt or refusal.span_id != self.span_id:
            return _NOTHING
        if refusal.kind == "stopping" and self._stopped_with_worker is not None:
            return self._end(failure(self.plan, self.events, self._stopped_with_worker))
        error = refusal_error(self.plan.span_id, refusal, address)
        failures = self._failures
        if refusal.kind == "no_retry" and failures is not None and failures.last_failure is not None:
            error = failure(self.plan, self.events, failures.last_failure)
        elif failures is not None or self.plan.fallback is not None:
            self._note_failure(error, now)
        if self.plan.fallback is not None and may_fall_back_after(refusal.kind) and self.times.left(now) != 0.0:
            return self._fall_back(self.plan.fallback, now)
        return self._end(error)

    def revoked(self, attempt: int, span_id: str | None = None) -> list[Command]:
        """The broker has ended the lease, because the worker did not know the run.

        It may know it by now: ask the worker. ``span_id``: the id of the attempt, None for the present one.
        """
        if span_id is not None and span_id != self.span_id:
            return _NOTHING
        if self.phase is not Phase.RUNNING or attempt != self.attempt:
            return _NOTHING
        self._is_revoked = True
        return [TellWorker(Query(self.span_id, self.attempt))]

    def chunk(self, epoch: int, chunk: Chunk) -> list[Command]:
        """Events arrived."""
        if self.phase is not Phase.RUNNING or not self._is_current(epoch, chunk.attempt):
            return _NOTHING
        events = self.events
        if chunk.sequence != len(events):
            reason = f"run {self.plan.span_id}: chunk {chunk.sequence} arrived where {len(events)} was due"
            return [self._abort_message("close"), *self._end(RemoteProtocolError(reason))]
        events += chunk.events
        return self.give_credit() if self.credit.is_due(events) else _NOTHING

    def ended(self, epoch: int, terminal: Terminal, now: float) -> list[Command]:
        """The worker's terminal message arrived."""
        if self.phase not in (Phase.RUNNING, Phase.STOPPING) or not self._is_current(epoch, terminal.attempt):
            return _NOTHING
        self._terminal = terminal
        # A worker that shuts down writes no span of a run that it did not begin.
        self._worker_told_end = (
            not isinstance(terminal, Failed) or terminal.kind != "worker_stopping" or terminal.sequence > 0
        )
        if self.phase is Phase.STOPPING:
            return self._end(as_aborted(terminal))
        match terminal:
            case Finished():
                return self._end(checked(self.plan, self.events, terminal))
            case Failed(kind="worker_stopping") if not self.events:
                if terminal.code != NOT_BEGUN:
                    self._stopped_with_worker = terminal
                    self._note_failure(failure(self.plan, self.events, terminal), now)
                self._avoid_worker()  # it shuts down
                return self._try_again(now)
            case Failed():
                return self._failed_at_provider(terminal, now)
            case Aborted():
                return self._end(terminal)

    def stop(self, now: float, mode: AbortMode | None = None) -> list[Command]:
        """Have the worker stop: the caller aborted, or the run was given up. Safe in every phase, any number of times.

        ``mode`` is the plan's ``on_abort`` unless it is given.
        """
        match self.phase:
            case Phase.NEW | Phase.WAITING | Phase.BACKING_OFF:
                return self._end(aborted_without_answer(self.plan, self.attempt, 0))
            case Phase.RUNNING:
                mode = mode or self.plan.on_abort
                self.phase = Phase.STOPPING
                self._stop_deadline = now + (ABORT_GRACE if mode == "close" else DRAIN_GRACE)
                return [self._abort_message(mode)]
            case _:
                return _NOTHING

    def give_credit(self) -> list[Command]:
        """Give the worker further credit. Called when the reader's credit is due (``reader_credit.py``)."""
        if self.phase is not Phase.RUNNING:
            return _NOTHING
        credit = self.credit
        credit.give()
        message = Credit(self.span_id, self.attempt, credit.sequence_limit, credit.character_limit)
        return [TellWorker(message)]

    def worker_lost(self, reason: str, now: float, span_id: str | None = None) -> list[Command]:
        """The worker of the lease is gone. ``span_id``: the id of the attempt, None for the present one."""
        if span_id is not None and span_id != self.span_id:
            return _NOTHING
        if self.phase is Phase.STOPPING:
            return self._end(aborted_without_answer(self.plan, self.attempt, len(self.events)))
        if self.phase is not Phase.RUNNING or self.lease is None:
            return _NOTHING
        self.deaths += 1
        error = WorkerLostError(self.plan.span_id, reason, joined_text(self.events))
        self._note_failure(error, now)
        if self.events:
            return self._end(error)
        if self.deaths >= MAX_WORKER_DEATHS:
            reason = f"the run was present at {self.deaths} worker deaths and is not tried again ({reason})"
            return self._end(PoisonRunError(self.plan.span_id, reason))
        self._avoid_worker()
        return self._try_again(now)

    def check_silence(self, now: float) -> list[Command]:
        """Ask the worker after a long silence; if it does not answer, treat it as lost.

        For workers that answer queries.
        """
        if self.phase is not Phase.RUNNING:
            return _NOTHING
        if self._silence is None:
            self._silence = Silence()
        match self._silence.check(len(self.events), now):
            case "ask":
                return [TellWorker(Query(self.span_id, self.attempt))]
            case "lost":
                reason = f"the worker did not say within {QUERY_TIMEOUT:g} s whether it has the run"
                # The worker may still have the run, and may go on later.
                abort = TellWorker(Abort(self.span_id, self.attempt, "close"), self.lease)
                return [abort, *self.worker_lost(reason, now)]
            case None:
                return _NOTHING

    def run_state(self, epoch: int, state: RunState, now: float) -> list[Command]:
        """The worker answered a query."""
        if self.phase is not Phase.RUNNING or not self._is_current(epoch, state.attempt):
            return _NOTHING
        if not state.is_running:
            return self.worker_lost("the worker does not have the run", now)
        if self._silence is not None:
            self._silence.answered()
        if self._is_revoked and self.lease is not None:
            self._is_revoked = False
            return self._hold(self.lease, now)
        return _NOTHING

    def failed(self, error: HeadraceError, now: float) -> list[Command]:
        """The connection ends the run with ``error``: there is no engine, or the client was closed."""
        if self._failures is not None and not self._failures.has(self.attempt):
            error = _own_copy(error)  # other runs may have it too, with attempts of their own
            self._note_failure(error, now)
        if self.phase in (Phase.RUNNING, Phase.STOPPING):
            return [self._abort_message("close"), *self._end(error)]
        if (
            isinstance(error, EngineUnavailableError)
            and self._stopped_with_worker is not None
            and self.phase is Phase.WAITING
        ):
            return self._end(failure(self.plan, self.events, self._stopped_with_worker))
        return _NOTHING if self.phase is Phase.ENDED else self._end(error)

    def due(self, now: float) -> list[Command]:
        """Time has passed."""
        deadline = self.next_deadline
        if deadline is None or now < deadline:
            return _NOTHING
        match self.phase:
            case Phase.STOPPING:
                return self._end(aborted_without_answer(self.plan, self.attempt, len(self.events)))
            case Phase.WAITING | Phase.RUNNING:
                return self.failed(timed_out(self.plan, self.events), now)
            case Phase.BACKING_OFF:
                return self._back_again(now)
            case _:
                return _NOTHING

    def end_facts(self) -> dict[str, Any]:
        """Return how the run ended, as the client's history writes it."""
        return {
            "span_id": self.plan.span_id,
            "attempt": self.attempt,
            "epoch": self.lease.epoch if self.lease is not None else 0,
            "kind": type(self.ending).__name__,
            "count": len(self.events),
            "text": joined_text(self.events),
        }

    def _is_current(self, epoch: int, attempt: int) -> bool:
        """Return whether a message comes from the attempt and the worker of the lease."""
        lease = self.lease
        return attempt == self.attempt and lease is not None and epoch == lease.epoch

    def _acquire(self, now: float, *, is_provider_retry: bool = False) -> list[Command]:
        self.phase = Phase.WAITING
        self.times.asked_at = now
        max_wait = longest_wait(self.plan, self.times.left(now))
        question = self._question = acquire_of(
            self.plan, self.span_id, self.attempt, self.avoided_epochs, max_wait, is_provider_retry=is_provider_retry
        )
        return [AskBroker(question)]

    def _hold(self, lease: Grant, now: float) -> list[Command]:
        """Tell a new broker of the lease, and of the question to which it was the answer."""
        return [AskBroker(hold_of(self.attempt, lease, self._question, self.times.of_attempt(now)))]

    def _failed_at_provider(self, failed: Failed, now: float) -> list[Command]:
        """The provider has failed. Try again, or ask another model, if nothing has reached the caller so far."""
        error = failure(self.plan, self.events, failed)
        failures = self._note_failure(error, now)
        failures.last_failure = failed
        step = None if self.events else next_step(self.plan, failed, failures.retries, self.times.left(now))
        match step:
            case None:
                return self._end(error)
            case RunPlan():
                return self._fall_back(step, now)
            case delay:
                return self._back_off(now + delay, failures)

    def _back_off(self, until: float, failures: FailedAttempts) -> list[Command]:
        """Give the lease back, and ask for another one later."""
        release = AskBroker(self._release("client_failed"))
        failures.retries += 1
        self.lease = None
        self.phase = Phase.BACKING_OFF
        self._backoff_until = until
        return [release, WakeAt(until)]

    def _back_again(self, now: float) -> list[Command]:
        """The time between two attempts is over."""
        last = self._failures.last_failure if self._failures is not None else None
        if last is not None and self.times.left(now) == 0.0:
            return self._end(failure(self.plan, self.events, last))
        return self._next_attempt(now, is_provider_retry=True)

    def _fall_back(self, plan: RunPlan, now: float) -> list[Command]:
        """Give the run to the next model, at once."""
        release = AskBroker(self._release("client_failed"))
        self.plan = plan
        if self._failures is not None:
            self._failures.model_changed()
        return [release, *self._next_attempt(now)]

    def _note_failure(self, error: HeadraceError, now: float) -> FailedAttempts:
        """Keep what this attempt met, for the error of the run."""
        if self._failures is None:
            self._failures = FailedAttempts()
        self._failures.add(self.plan, self.attempt, error, self.times.of_attempt(now))
        return self._failures

    def _avoid_worker(self) -> None:
        """Have later attempts of this run avoid the worker of its lease."""
        if self.lease is not None:
            self.avoided_epochs = [*self.avoided_epochs, self.lease.epoch]

    def _try_again(self, now: float) -> list[Command]:
        """Ask for a lease for another attempt, from the beginning. No event of the run has arrived."""
        return [AskBroker(self._release("worker_lost")), *self._next_attempt(now)]

    def _next_attempt(self, now: float, *, is_provider_retry: bool = False) -> list[Command]:
        self.lease = None
        self.attempt += 1
        self._terminal = None
        self.credit.restart()
        return self._acquire(now, is_provider_retry=is_provider_retry)

    def _release(self, otherwise: ClientOutcome | Ending) -> Release:
        """Return the Release of this attempt. ``otherwise`` is how the attempt ended, if its worker did not say so."""
        if self._terminal is not None:
            return release_of(self._terminal)
        if self.lease is None:
            return Release(self.span_id, self.attempt, "withdrawn")
        return Release(
            self.span_id, self.attempt, otherwise if isinstance(otherwise, str) else client_outcome(otherwise)
        )

    def _abort_message(self, mode: AbortMode) -> Command:
        return TellWorker(Abort(self.span_id, self.attempt, mode))

    def _end(self, ending: Ending) -> list[Command]:
        has_asked = self.phase is not Phase.NEW and self.phase is not Phase.BACKING_OFF
        self.phase = Phase.ENDED
        self.ending = ending
        if self._failures is not None and isinstance(ending, HeadraceError):
            self._failures.attach(ending)
        if has_asked:
            return [AskBroker(self._release(ending)), _RUN_ENDED]
        return [_RUN_ENDED]


def _own_copy(error: HeadraceError) -> HeadraceError:
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied
