"""One run seen from its client: lease, sequence, credit, abort, and the one writer of its outcome. Pure.

Rules of this file:

1. Everything that changes a run's phase lives here.
2. A run gets exactly one outcome, which never changes.
3. Events are taken in sequence only, from the attempt and the worker epoch that hold the lease.
4. A run of which nothing arrived may run again on another worker; any other ends with its worker.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from headrace.answers.assembly import joined_text
from headrace.arguments.moved_places import MovedPlaces, place_as_given
from headrace.arguments.run_arguments import Priority
from headrace.errors import (
    EngineUnavailableError,
    HeadraceError,
    PoisonRunError,
    RemoteProtocolError,
    RunTimeoutError,
    WorkerLostError,
)
from headrace.types import RunEvent, Usage
from headrace.wire.bounds import MAX_AVOIDED, MAX_NAME, cut
from headrace.wire.messages import (
    NOT_BEGUN,
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
    Refuse,
    Release,
    Run,
    RunState,
    Terminal,
)
from headrace.wire.settlement import ClientOutcome, release_of
from headrace.wire.typed_errors import failure_error, refusal_error

ABORT_GRACE = 0.2
"""Seconds that an aborted run waits for the worker's last word on usage."""
DRAIN_GRACE = 60.0
"""The same with ``on_abort="drain"``."""
DEADLINE_GRACE = 5.0
"""Seconds that a run waits beyond its total timeout for the worker to say so."""
QUERY_AFTER = 15.0
"""Seconds without any event of a run, after which its worker is asked whether it has it; asked again as often."""
QUERY_TIMEOUT = 10.0
"""Seconds for the answer. A worker whose loop is stuck is found sooner, by its missing heartbeats."""
MAX_WORKER_DEATHS = 2


class Phase(enum.Enum):
    """Where a run is."""

    NEW = "new"
    WAITING = "waiting"  # for a lease
    RUNNING = "running"  # on a worker
    ABORTING = "aborting"  # on a worker, which has been told
    ENDED = "ended"


class AskBroker(msgspec.Struct, frozen=True, gc=False):
    """Send to the broker."""

    message: Acquire | Hold | Release


class TellWorker(msgspec.Struct, frozen=True, gc=False):
    """Send to the worker of the lease; of that one, which is the run's no more, where it is named."""

    message: Run | Credit | Abort | Query
    former: Grant | None = None


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The outcome is there."""


Command = AskBroker | TellWorker | Ended
Outcome = Finished | Aborted | HeadraceError

_NOTHING: list[Command] = []


class RunPlan(msgspec.Struct, frozen=True):
    """What a session needs to know of its run. ``total_timeout`` in seconds, ``None`` for the worker's default.

    ``moved``: see :mod:`headrace.arguments.moved_places`.
    """

    span_id: str
    provider: str
    model: str
    request: bytes
    streams: bool
    api_key: str | None = None
    base_url: str | None = None
    moved: MovedPlaces = {}
    priority: Priority = "interactive"
    on_abort: AbortMode = "close"
    total_timeout: float | None = None
    is_traced: bool = True

    def __repr__(self) -> str:
        return f"RunPlan(span_id={self.span_id!r}, provider={self.provider!r}, model={self.model!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown: no key."""
        return [("span_id", self.span_id)]


class Session:
    """One run. Methods take what happened and return what to do; nothing else is touched."""

    __slots__ = (
        "_abort_deadline",
        "_asked_at",
        "_character_limit",
        "_deadline",
        "_has_workers_word",
        "_heard",
        "_heard_at",
        "_is_revoked",
        "_sequence_limit",
        "_started_at",
        "_stopped",
        "_terminal",
        "_was_granted",
        "attempt",
        "avoided_epochs",
        "deaths",
        "events",
        "lease",
        "outcome",
        "phase",
        "plan",
        "queue_seconds",
    )

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.phase = Phase.NEW
        self.attempt = 1
        self.deaths = 0
        # Workers on which the run must not be tried again.
        self.avoided_epochs: list[int] = []
        self.lease: Grant | None = None
        self.events: list[RunEvent] = []
        self.outcome: Outcome | None = None
        # From the start to the lease that the run has, or had last.
        self.queue_seconds = 0.0
        self._sequence_limit = WINDOW_EVENTS
        self._character_limit = WINDOW_CHARACTERS
        # Not yet running: how long to wait is the connection's matter until the run has a deadline of its own.
        self._deadline: float | None = None
        self._abort_deadline: float | None = None
        self._started_at = 0.0
        # A worker may know of the run; a worker has said how it ended.
        self._was_granted = False
        self._has_workers_word = False
        # What a worker said that had begun the run and was stopped before anything had arrived: the outcome, if no
        # other worker takes the run.
        self._stopped: Failed | None = None
        # The worker's terminal message for this attempt: it goes to the broker with the Release.
        self._terminal: Terminal | None = None
        # How many events there were when silence was last looked for, since when, and whether the worker was asked.
        self._heard = 0
        self._heard_at: float | None = None
        self._asked_at: float | None = None
        # The broker has ended the lease; the worker is asked whether it has the run all the same.
        self._is_revoked = False

    @property
    def next_deadline(self) -> float | None:
        """When :meth:`due` has something to say next, on the caller's clock; ``None`` for never."""
        return self._abort_deadline if self.phase is Phase.ABORTING else self._deadline

    @property
    def wants_span(self) -> bool:
        """Whether this side is to say what became of the run, which has ended: a worker had it, and has not said."""
        return self.plan.is_traced and self._was_granted and not self._has_workers_word

    def start(self, now: float) -> list[Command]:
        """Ask for a lease."""
        self._started_at = now
        if self.plan.total_timeout is not None:
            self._deadline = now + self.plan.total_timeout + DEADLINE_GRACE
        return self._acquire()

    def asked_again(self) -> list[Command]:
        """The broker is a new one: repeat a waiting run's question, tell of a running one's lease."""
        if self.phase is Phase.WAITING:
            return self._acquire(is_repeat=True)
        if self.lease is not None and self.phase in (Phase.RUNNING, Phase.ABORTING):
            return [AskBroker(Hold(self.plan.span_id, self.attempt, self.lease.epoch))]
        return _NOTHING

    def granted(self, grant: Grant, now: float) -> list[Command]:
        """A lease arrived."""
        if self.phase is not Phase.WAITING or grant.attempt != self.attempt:
            # Stale: whoever stopped waiting has said so to the broker.
            return _NOTHING
        self.phase = Phase.RUNNING
        self.lease = grant
        self._was_granted = True
        self._is_revoked = False
        self.queue_seconds = now - self._started_at
        self._heard_at = self._asked_at = None
        return [
            TellWorker(
                Run(
                    span_id=self.plan.span_id,
                    attempt=self.attempt,
                    epoch=grant.epoch,
                    request=self.plan.request,
                    sequence_limit=self._sequence_limit,
                    character_limit=self._character_limit,
                    api_key=self.plan.api_key,
                    queued=self.queue_seconds,
                    base_url=self.plan.base_url,
                )
            )
        ]

    def refused(self, refusal: Refuse, address: str = "the engine") -> list[Command]:
        """The broker gives no lease. ``address`` is the engine's, as errors name it."""
        if self.phase is not Phase.WAITING or refusal.attempt != self.attempt:
            return _NOTHING
        if refusal.kind == "stopping" and self._stopped is not None:
            return self._end(self._stopped_error(self._stopped))
        return self._end(refusal_error(self.plan.span_id, refusal, address))

    def revoked(self, attempt: int) -> list[Command]:
        """The broker has ended the lease, since the worker did not know the run: it may by now, and is asked."""
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
        if self.phase not in (Phase.RUNNING, Phase.ABORTING) or not self._is_current(epoch, terminal.attempt):
            return _NOTHING
        self._terminal = terminal
        # A worker on its way out says nothing of a run that it did not begin.
        self._has_workers_word = (
            not isinstance(terminal, Failed) or terminal.kind != "worker_stopping" or terminal.sequence > 0
        )
        if self.phase is Phase.ABORTING:
            return self._end(Aborted(self.plan.span_id, self.attempt, terminal.sequence, terminal.usage))
        match terminal:
            case Finished():
                return self._end(self._checked(terminal))
            case Failed(kind="worker_stopping") if not self.events:
                if terminal.code != NOT_BEGUN:
                    self._stopped = terminal
                self._avoid_worker()  # it is on its way out
                return self._try_again()
            case Failed():
                text = joined_text(self.events) + terminal.partial_text
                return self._end(failure_error(self._with_place(terminal), self.plan.provider, text))
            case Aborted():
                return self._end(terminal)

    def _with_place(self, failed: Failed) -> Failed:
        """Return the failure with the place to blame as the caller gave it, not as the request has it."""
        if failed.argument is None:
            return failed
        return msgspec.structs.replace(failed, argument=place_as_given(failed.argument, self.plan.moved))

    def aborted(self, now: float, mode: AbortMode | None = None) -> list[Command]:
        """The caller wants no more. Safe in every phase, any number of times."""
        match self.phase:
            case Phase.NEW | Phase.WAITING:
                return self._end(Aborted(self.plan.span_id, self.attempt, 0, Usage()))
            case Phase.RUNNING:
                mode = mode or self.plan.on_abort
                self.phase = Phase.ABORTING
                self._abort_deadline = now + (ABORT_GRACE if mode == "close" else DRAIN_GRACE)
                return [self._abort_message(mode)]
            case _:
                return _NOTHING

    def taken(self, sequence: int, characters: int) -> list[Command]:
        """The reader has taken so many events, so many characters: give credit once half the window is used."""
        if self.phase is not Phase.RUNNING:
            return _NOTHING
        sequence_limit = sequence + WINDOW_EVENTS
        character_limit = characters + WINDOW_CHARACTERS
        if (
            sequence_limit - self._sequence_limit < WINDOW_EVENTS // 2
            and character_limit - self._character_limit < WINDOW_CHARACTERS // 2
        ):
            return _NOTHING
        self._sequence_limit = sequence_limit
        self._character_limit = character_limit
        return [TellWorker(Credit(self.plan.span_id, self.attempt, sequence_limit, character_limit))]

    def worker_lost(self, reason: str) -> list[Command]:
        """The worker of the lease is gone."""
        if self.phase is Phase.ABORTING:
            return self._end(Aborted(self.plan.span_id, self.attempt, len(self.events), Usage()))
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

    def listen(self, now: float) -> list[Command]:
        """Time has passed on a worker that answers queries: after silence ask it, after none of an answer give it up."""
        if self.phase is not Phase.RUNNING:
            return _NOTHING
        if self._heard_at is None or len(self.events) != self._heard:
            self._heard, self._heard_at, self._asked_at = len(self.events), now, None
        elif self._asked_at is not None:
            if now >= self._asked_at + QUERY_TIMEOUT:
                reason = f"the worker did not say within {QUERY_TIMEOUT:g} s whether it has the run"
                # It may have it still, and be heard again.
                abort = TellWorker(Abort(self.plan.span_id, self.attempt, "close"), self.lease)
                return [abort, *self.worker_lost(reason)]
        elif now >= self._heard_at + QUERY_AFTER:
            self._asked_at = now
            return [TellWorker(Query(self.plan.span_id, self.attempt))]
        return _NOTHING

    def run_state(self, epoch: int, state: RunState) -> list[Command]:
        """The worker answered a query."""
        if self.phase is not Phase.RUNNING or not self._is_current(epoch, state.attempt):
            return _NOTHING
        if not state.is_running:
            return self.worker_lost("the worker does not have the run")
        self._heard_at, self._asked_at = self._asked_at, None
        if self._is_revoked and self.lease is not None:
            self._is_revoked = False
            return [AskBroker(Hold(self.plan.span_id, self.attempt, self.lease.epoch))]
        return _NOTHING

    def failed(self, error: HeadraceError) -> list[Command]:
        """The connection gives the run up (no engine, closed client)."""
        if self.phase in (Phase.RUNNING, Phase.ABORTING):
            return [self._abort_message("close"), *self._end(error)]
        if isinstance(error, EngineUnavailableError) and self._stopped is not None and self.phase is Phase.WAITING:
            return self._end(self._stopped_error(self._stopped))
        return _NOTHING if self.phase is Phase.ENDED else self._end(error)

    def due(self, now: float) -> list[Command]:
        """Time has passed."""
        deadline = self.next_deadline
        if deadline is None or now < deadline:
            return _NOTHING
        match self.phase:
            case Phase.ABORTING:
                return self._end(Aborted(self.plan.span_id, self.attempt, len(self.events), Usage()))
            case Phase.WAITING | Phase.RUNNING:
                limit = self.plan.total_timeout or 0.0
                reason = f"not finished within {limit:g} s (total timeout), and the worker did not say so"
                error = RunTimeoutError(self.plan.span_id, reason, joined_text(self.events), "total", limit)
                return self.failed(error)
            case _:
                return _NOTHING

    def _stopped_error(self, stopped: Failed) -> HeadraceError:
        """Return the error of a run that was stopped with its worker, and that nobody else takes: the engine ends."""
        return failure_error(stopped, self.plan.provider, stopped.partial_text)

    def _checked(self, finished: Finished) -> Outcome:
        if not self.plan.streams:
            return finished
        length = len(joined_text(self.events))
        if finished.sequence == len(self.events) and finished.text_length == length:
            return finished
        return RemoteProtocolError(
            f"run {self.plan.span_id}: {len(self.events)} events with {length} characters arrived, "
            f"the worker sent {finished.sequence} with {finished.text_length}"
        )

    def _is_current(self, epoch: int, attempt: int) -> bool:
        return attempt == self.attempt and self.lease is not None and epoch == self.lease.epoch

    def _acquire(self, *, is_repeat: bool = False) -> list[Command]:
        self.phase = Phase.WAITING
        plan = self.plan
        avoid = self.avoided_epochs[-MAX_AVOIDED:]
        provider, model = cut(plan.provider, MAX_NAME), cut(plan.model, MAX_NAME)
        names = (plan.span_id, self.attempt, provider, model)
        return [AskBroker(Acquire(*names, plan.priority, avoid, plan.is_traced, is_repeat))]

    def _avoid_worker(self) -> None:
        """Have further attempts of this run avoid the worker of its lease."""
        if self.lease is not None:
            self.avoided_epochs.append(self.lease.epoch)

    def _try_again(self) -> list[Command]:
        """Ask for a lease for another attempt, from the beginning. Nothing of the run has arrived."""
        release = AskBroker(self._release("worker_lost"))
        self.lease = None
        self.attempt += 1
        self._terminal = None
        self._sequence_limit = WINDOW_EVENTS
        self._character_limit = WINDOW_CHARACTERS
        return [release, *self._acquire()]

    def _release(self, otherwise: ClientOutcome) -> Release:
        """Return the Release of this attempt; ``otherwise`` says how it ended if its worker did not."""
        if self._terminal is not None:
            return release_of(self._terminal)
        return Release(self.plan.span_id, self.attempt, otherwise if self.lease is not None else "withdrawn")

    def _abort_message(self, mode: AbortMode) -> Command:
        return TellWorker(Abort(self.plan.span_id, self.attempt, mode))

    def _end(self, outcome: Outcome) -> list[Command]:
        was_leased = self.phase is not Phase.NEW
        self.phase = Phase.ENDED
        self.outcome = outcome
        if was_leased:
            return [AskBroker(self._release(_ended_as(outcome))), Ended()]
        return [Ended()]


def _ended_as(outcome: Outcome) -> ClientOutcome:
    """Return how a run ended of which its worker said nothing."""
    if isinstance(outcome, Aborted):
        return "aborted"
    return "worker_lost" if isinstance(outcome, WorkerLostError | PoisonRunError) else "client_failed"
