"""A hedge: a second attempt of a run, which begins if the first one has sent nothing in time. The faster one counts. Pure.

To the broker and to its worker a hedge is a run with an id of its own. The session decides what becomes of it: it is
dropped when the first attempt has an event, or takes the place of the first attempt when it is faster, or alone.
"""

from __future__ import annotations

from collections import deque

from headrace.runs.attempt_messages import acquire_of, hold_of, run_of
from headrace.runs.reader_credit import ReaderCredit
from headrace.runs.run_plan import RunPlan
from headrace.runs.run_times import RunTimes
from headrace.runs.session_commands import AskBroker, Command, HedgeBegan, HedgeEnded, TellWorker
from headrace.wire.messages import Abort, Acquire, Grant, Release, Terminal
from headrace.wire.settlement import ClientOutcome, release_of

_KEPT = 200
"""First chunks whose times are kept for each model."""
_LEAST = 20
"""First chunks that must have come before their times say anything."""
_SLOW = 0.95


class SlowFirstChunks:
    """How long the last first chunks of one model took, in seconds. Any thread may read it, one thread adds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_KEPT)

    def add(self, seconds: float) -> None:
        """A first chunk came, so long after its run was given to a worker."""
        self._times.append(seconds)

    def slow(self) -> float | None:
        """Return the time in which 95 % of them came; None while too few have come."""
        if len(self._times) < _LEAST:
            return None
        return sorted(self._times)[int(len(self._times) * _SLOW)]


class Hedge:
    """One second attempt: asked for, then perhaps on a worker."""

    __slots__ = ("attempt", "granted_at", "lease", "question", "span_id")

    def __init__(self, plan: RunPlan, attempt: int) -> None:
        self.span_id = f"{plan.span_id}:h{attempt}"
        """The id of this attempt, to the broker and to its worker."""
        self.attempt = attempt
        self.lease: Grant | None = None
        self.granted_at = 0.0
        self.question: Acquire = acquire_of(plan, self.span_id, attempt, [], 0.0, is_hedge=True)

    def ask(self) -> list[Command]:
        """Ask for its lease. A hedge does not wait: the broker answers at once."""
        return [HedgeBegan(self.span_id), AskBroker(self.question)]

    def granted(self, grant: Grant, plan: RunPlan, credit: ReaderCredit, times: RunTimes, now: float) -> list[Command]:
        """It has its lease: begin."""
        if self.lease is not None or grant.attempt != self.attempt:
            return []
        self.lease = grant
        self.granted_at = now
        return [TellWorker(run_of(plan, grant, credit, now - times.started_at, times.left(now)), lease=grant)]

    def is_from(self, epoch: int, attempt: int) -> bool:
        """Return whether a message comes from its worker."""
        return self.lease is not None and epoch == self.lease.epoch and attempt == self.attempt

    def hold(self, now: float) -> list[Command]:
        """Tell a new broker of its lease."""
        if self.lease is None:
            return []
        return [AskBroker(hold_of(self.attempt, self.lease, self.question, now - self.granted_at))]

    def drop(self) -> list[Command]:
        """Stop it: another attempt was faster, or the run is over."""
        if self.lease is None:
            return [AskBroker(Release(self.span_id, self.attempt, "withdrawn")), HedgeEnded(self.span_id)]
        stop = TellWorker(Abort(self.span_id, self.attempt, "close", is_beaten=True), former=self.lease)
        return [stop, AskBroker(Release(self.span_id, self.attempt, "aborted")), HedgeEnded(self.span_id)]

    def ended(self, terminal: Terminal | None, otherwise: ClientOutcome) -> list[Command]:
        """It has failed, and the first attempt goes on. ``otherwise``: how it ended, if its worker did not say so."""
        release = Release(self.span_id, self.attempt, otherwise) if terminal is None else release_of(terminal)
        return [AskBroker(release), HedgeEnded(self.span_id)]
