"""The state machine of one run in its client: it waits for a lease, runs on a worker, and ends. Pure.

Rules of this file:

1. Everything that changes a run's phase is here.
2. A run gets exactly one ending, which never changes. ``outcome.py`` says what the caller gets, and what an abort
   changes.
3. Events are accepted in sequence only, from the attempt and the worker epoch that hold the lease.
4. A run without any event so far is retried on another worker. Any other run ends with its worker.
"""

from __future__ import annotations

import enum
from typing import Any

from headrace.answers.assembly import joined_text
from headrace.errors import (
    EngineUnavailableError,
    HeadraceError,
    PoisonRunError,
    RemoteProtocolError,
    WorkerLostError,
)
from headrace.runs.endings import (
    Ending,
    aborted_without_answer,
    as_aborted,
    checked,
    client_outcome,
    failure,
    timed_out,
)
from headrace.runs.reader_credit import ReaderCredit
from headrace.runs.run_plan import RunPlan
from headrace.runs.session_commands import AskBroker, Command, RunEnded, TellWorker
from headrace.runs.silence import QUERY_TIMEOUT, Silence
from headrace.types import RunEvent
from headrace.wire.bounds import MAX_AVOIDED, MAX_NAME, cut
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
    Hold,
    Query,
    Refuse,
    Release,
    Run,
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
    ENDED = "ended"


_NOTHING: list[Command] = []


class Session:
    """One run. Each method takes what happened, and returns what to do."""

    __slots__ = (
        "_deadline",
        "_is_revoked",
        "_silence",
        "_started_at",
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
        "queue_seconds",
    )

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.phase = Phase.NEW
        self.attempt = 1
        self.deaths = 0
        self.avoided_epochs: list[int] = []
        """Epochs of workers on which the run must not be tried again."""
        self.lease: Grant | None = None
        self.events: list[RunEvent] = []
        self.ending: Ending | None = None
        self.credit = ReaderCredit(reads_all=not plan.streams)
        self.queue_seconds = 0.0
        """Seconds from the start to the run's last lease."""
        # None: the connection limits how long the run waits, until the run has a deadline.
        self._deadline: float | None = None
        self._stop_deadline: float | None = None
        self._started_at = 0.0
        self._was_granted = False
        self._worker_told_end = False
        # The message of a worker that had begun the run and was stopped before any event had arrived. It is the ending,
        # if no other worker takes the run.
        self._stopped_with_worker: Failed | None = None
        # The worker's terminal message of this attempt. The Release tells the broker how the attempt ended.
        self._terminal: Terminal | None = None
        self._silence = Silence()
        # The broker has ended the lease. The worker was asked whether it has the run all the same.
        self._is_revoked = False

    @property
    def next_deadline(self) -> float | None:
        """When :meth:`due` must be called next, on the caller's clock; ``None`` for never."""
        return self._stop_deadline if self.phase is Phase.STOPPING else self._deadline

    @property
    def wants_span(self) -> bool:
        """Whether the client must write the span of a run that has ended: its worker did not say how it ended."""
        return self.plan.is_traced and self._was_granted and not self._worker_told_end

    def start(self, now: float) -> list[Command]:
        """Ask for a lease."""
        self._started_at = now
        if self.plan.total_timeout is not None:
            self._deadline = now + self.plan.total_timeout + DEADLINE_GRACE
        return self._acquire()

    def broker_changed(self) -> list[Command]:
        """The broker is a new one: ask it for a lease again, or tell it of the lease that the run has."""
        if self.phase is Phase.WAITING:
            return self._acquire(is_repeat=True)
        if self.lease is not None and self.phase in (Phase.RUNNING, Phase.STOPPING):
            return [AskBroker(Hold(self.plan.span_id, self.attempt, self.lease.epoch))]
        return _NOTHING

    def granted(self, grant: Grant, now: float) -> list[Command]:
        """A lease arrived."""
        if self.phase is not Phase.WAITING or grant.attempt != self.attempt:
            # The run waits no longer: it has given this lease back already.
            return _NOTHING
        self.phase = Phase.RUNNING
        self.lease = grant
        self._was_granted = True
        self._is_revoked = False
        self.queue_seconds = now - self._started_at
        self._silence.restart()
        return [
            TellWorker(
                Run(
                    span_id=self.plan.span_id,
                    attempt=self.attempt,
                    epoch=grant.epoch,
                    request=self.plan.request,
                    sequence_limit=self.credit.sequence_limit,
                    character_limit=self.credit.character_limit,
                    api_key=self.plan.api_key,
                    queued=self.queue_seconds,
                    base_url=self.plan.base_url,
                )
            )
        ]

    def refused(self, refusal: Refuse, address: str = "the engine") -> list[Command]:
        """The broker gives no lease. ``address`` is the engine's address, for the error's text."""
        if self.phase is not Phase.WAITING or refusal.attempt != self.attempt:
            return _NOTHING
        if refusal.kind == "stopping" and self._stopped_with_worker is not None:
            return self._end(failure(self.plan, self.events, self._stopped_with_worker))
        return self._end(refusal_error(self.plan.span_id, refusal, address))

    def revoked(self, attempt: int) -> list[Command]:
        """The broker has ended the lease, because the worker did not know the run.

        It may know it by now: ask the worker.
        """
        if self.phase is not Phase.RUNNING or attempt != self.attempt:
            return _NOTHING
        self._is_revoked = True
        return [TellWorker(Query(self.plan.span_id, self.attempt))]

    def chunk(self, epoch: int, chunk: Chunk) -> list[Command]:
        """Events arrived."""
        if self.phase is not Phase.RUNNING or not self._is_current(epoch, chunk.attempt):
            return _NOTHING
        if chunk.sequence != len(self.events):
            reason = f"run {self.plan.span_id}: chunk {chunk.sequence} arrived where {len(self.events)} was due"
            return [self._abort_message("close"), *self._end(RemoteProtocolError(reason))]
        self.events.extend(chunk.events)
        return _NOTHING

    def ended(self, epoch: int, terminal: Terminal) -> list[Command]:
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
                self._avoid_worker()  # it shuts down
                return self._try_again()
            case Failed():
                return self._end(failure(self.plan, self.events, terminal))
            case Aborted():
                return self._end(terminal)

    def stop(self, now: float, mode: AbortMode | None = None) -> list[Command]:
        """Have the worker stop: the caller aborted, or the run was given up. Safe in every phase, any number of times.

        ``mode`` is the plan's ``on_abort`` unless it is given.
        """
        match self.phase:
            case Phase.NEW | Phase.WAITING:
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
        message = Credit(self.plan.span_id, self.attempt, credit.sequence_limit, credit.character_limit)
        return [TellWorker(message)]

    def worker_lost(self, reason: str) -> list[Command]:
        """The worker of the lease is gone."""
        if self.phase is Phase.STOPPING:
            return self._end(aborted_without_answer(self.plan, self.attempt, len(self.events)))
        if self.phase is not Phase.RUNNING or self.lease is None:
            return _NOTHING
        self.deaths += 1
        if self.events:
            return self._end(WorkerLostError(self.plan.span_id, reason, joined_text(self.events)))
        if self.deaths >= MAX_WORKER_DEATHS:
            reason = f"the run was present at {self.deaths} worker deaths and is not tried again ({reason})"
            return self._end(PoisonRunError(self.plan.span_id, reason))
        self._avoid_worker()
        return self._try_again()

    def check_silence(self, now: float) -> list[Command]:
        """Ask the worker after a long silence; if it does not answer, treat it as lost.

        For workers that answer queries.
        """
        if self.phase is not Phase.RUNNING:
            return _NOTHING
        match self._silence.check(len(self.events), now):
            case "ask":
                return [TellWorker(Query(self.plan.span_id, self.attempt))]
            case "lost":
                reason = f"the worker did not say within {QUERY_TIMEOUT:g} s whether it has the run"
                # The worker may still have the run, and may go on later.
                abort = TellWorker(Abort(self.plan.span_id, self.attempt, "close"), self.lease)
                return [abort, *self.worker_lost(reason)]
            case None:
                return _NOTHING

    def run_state(self, epoch: int, state: RunState) -> list[Command]:
        """The worker answered a query."""
        if self.phase is not Phase.RUNNING or not self._is_current(epoch, state.attempt):
            return _NOTHING
        if not state.is_running:
            return self.worker_lost("the worker does not have the run")
        self._silence.answered()
        if self._is_revoked and self.lease is not None:
            self._is_revoked = False
            return [AskBroker(Hold(self.plan.span_id, self.attempt, self.lease.epoch))]
        return _NOTHING

    def failed(self, error: HeadraceError) -> list[Command]:
        """The connection ends the run with ``error``: there is no engine, or the client was closed."""
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
                return self.failed(timed_out(self.plan, self.events))
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
        return attempt == self.attempt and self.lease is not None and epoch == self.lease.epoch

    def _acquire(self, *, is_repeat: bool = False) -> list[Command]:
        self.phase = Phase.WAITING
        plan = self.plan
        avoid = self.avoided_epochs[-MAX_AVOIDED:]
        provider, model = cut(plan.provider, MAX_NAME), cut(plan.model, MAX_NAME)
        names = (plan.span_id, self.attempt, provider, model)
        return [AskBroker(Acquire(*names, plan.priority, avoid, plan.is_traced, is_repeat))]

    def _avoid_worker(self) -> None:
        """Have later attempts of this run avoid the worker of its lease."""
        if self.lease is not None:
            self.avoided_epochs.append(self.lease.epoch)

    def _try_again(self) -> list[Command]:
        """Ask for a lease for another attempt, from the beginning. No event of the run has arrived."""
        release = AskBroker(self._release("worker_lost"))
        self.lease = None
        self.attempt += 1
        self._terminal = None
        self.credit.restart()
        return [release, *self._acquire()]

    def _release(self, otherwise: ClientOutcome) -> Release:
        """Return the Release of this attempt. ``otherwise`` is how the attempt ended, if its worker did not say so."""
        if self._terminal is not None:
            return release_of(self._terminal)
        return Release(self.plan.span_id, self.attempt, otherwise if self.lease is not None else "withdrawn")

    def _abort_message(self, mode: AbortMode) -> Command:
        return TellWorker(Abort(self.plan.span_id, self.attempt, mode))

    def _end(self, ending: Ending) -> list[Command]:
        has_asked = self.phase is not Phase.NEW
        self.phase = Phase.ENDED
        self.ending = ending
        if has_asked:
            return [AskBroker(self._release(client_outcome(ending))), RunEnded()]
        return [RunEnded()]
