"""The session of a run that may get a hedge: a second attempt, if the first one has sent nothing in time. Pure.

Rules of this file, beside those of ``session.py``:

1. A run gets one hedge at most, beside its first attempt.
2. The first event, or the end of a whole answer, decides which attempt is the run's. The other one is stopped: it is beaten.
3. If the first attempt fails or loses its worker, a hedge that is on a worker takes its place. Without one, the run goes
   on as any other run.
4. A hedge that fails is forgotten. It is told to the broker, and counts as a worker death where its worker died.
"""

from __future__ import annotations

from headrace.runs.endings import Ending, failure
from headrace.runs.failed_attempts import FailedAttempts
from headrace.runs.hedge import Hedge
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import MAX_WORKER_DEATHS, Phase, Session
from headrace.runs.session_commands import AskBroker, Command, HedgeEnded, TellWorker, WakeAt
from headrace.wire.messages import Abort, AbortMode, Chunk, Failed, Finished, Grant, Refuse, Release, Terminal


class HedgedSession(Session):
    """One run with a hedge. The messages of both attempts come here; their ids tell them apart."""

    __slots__ = ("_began_at", "_hedge", "_hedge_at", "_highest_attempt")

    def __init__(self, plan: RunPlan) -> None:
        super().__init__(plan)
        self._hedge: Hedge | None = None
        # When the hedge begins, if no event has come. None: not now, or not any more.
        self._hedge_at: float | None = None
        self._highest_attempt = 1

    @property
    def next_deadline(self) -> float | None:
        """When :meth:`due` must be called next, on the caller's clock; ``None`` for never."""
        deadline = super().next_deadline
        if self._hedge_at is None or self.phase is not Phase.RUNNING:
            return deadline
        return self._hedge_at if deadline is None else min(self._hedge_at, deadline)

    def broker_changed(self, now: float) -> list[Command]:
        """The broker is a new one: ask it for a lease again, or tell it of the leases that the run has."""
        commands = super().broker_changed(now)
        return commands if self._hedge is None else commands + self._hedge.hold(now)

    def granted(self, grant: Grant, now: float) -> list[Command]:
        """A lease arrived."""
        hedge = self._hedge
        if hedge is not None and grant.span_id == hedge.span_id:
            return hedge.granted(grant, self.plan, self.credit, self.times, now)
        was_waiting = self.phase is Phase.WAITING
        commands = super().granted(grant, now)
        if was_waiting and self.phase is Phase.RUNNING and self.attempt == 1 and self.plan.hedge_after is not None:
            self._hedge_at = now + self.plan.hedge_after
            return [*commands, WakeAt(self._hedge_at)]
        return commands

    def refused(self, refusal: Refuse, now: float, address: str = "the engine") -> list[Command]:
        """The broker gives no lease. ``address`` is the engine's address, for the error's text."""
        hedge = self._hedge
        if hedge is None or refusal.span_id != hedge.span_id:
            return super().refused(refusal, now, address)
        self._hedge = None
        return [HedgeEnded(hedge.span_id)]

    def revoked(self, attempt: int, span_id: str | None = None) -> list[Command]:
        """The broker has ended a lease, because the worker did not know the run."""
        if self._hedge is not None and span_id == self._hedge.span_id:
            return self._drop_hedge()
        return super().revoked(attempt, span_id)

    def chunk(self, epoch: int, chunk: Chunk) -> list[Command]:
        """Events arrived. The other attempt is beaten."""
        hedge = self._hedge
        if hedge is None:
            return super().chunk(epoch, chunk)
        if self.phase is not Phase.RUNNING:
            return []
        if chunk.span_id == hedge.span_id:
            if not hedge.is_from(epoch, chunk.attempt):
                return []
            return [*self._beaten(hedge), *super().chunk(epoch, chunk)]
        if not self._is_current(epoch, chunk.attempt):
            return []
        return [*self._drop_hedge(), *super().chunk(epoch, chunk)]

    def ended(self, epoch: int, terminal: Terminal, now: float) -> list[Command]:
        """The terminal message of an attempt arrived."""
        hedge = self._hedge
        if hedge is None or terminal.span_id != hedge.span_id:
            return super().ended(epoch, terminal, now)
        if self.phase is not Phase.RUNNING or not hedge.is_from(epoch, terminal.attempt):
            return []
        if isinstance(terminal, Finished):
            return [*self._beaten(hedge), *super().ended(epoch, terminal, now)]
        self._hedge = None
        return hedge.ended(terminal, "client_failed")

    def stop(self, now: float, mode: AbortMode | None = None) -> list[Command]:
        """Have the workers stop: the caller aborted, or the run was given up."""
        commands = super().stop(now, mode)
        return [*commands, *self._drop_hedge()] if self._hedge is not None else commands

    def worker_lost(self, reason: str, now: float, span_id: str | None = None) -> list[Command]:
        """The worker of an attempt is gone."""
        hedge = self._hedge
        if hedge is None or span_id != hedge.span_id:
            return super().worker_lost(reason, now, span_id)
        self._hedge = None
        if hedge.lease is not None and (self.lease is None or self.lease.epoch != hedge.lease.epoch):
            self.deaths += 1  # if both were on one worker, that is one death
        return hedge.ended(None, "worker_lost")

    def due(self, now: float) -> list[Command]:
        """Time has passed."""
        if self._hedge_at is None or now < self._hedge_at or self.phase is not Phase.RUNNING:
            return super().due(now)
        self._hedge_at = None
        if self.events or self.times.left(now) == 0.0:
            return super().due(now)
        self._highest_attempt = self.attempt + 1
        self._hedge = Hedge(self.plan, self._highest_attempt)
        return self._hedge.ask()

    def _failed_at_provider(self, failed: Failed, now: float) -> list[Command]:
        hedge = self._hedge
        if hedge is None or hedge.lease is None or self.events:
            return super()._failed_at_provider(failed, now)
        self._note_failure(failure(self.plan, self.events, failed), now)
        return [AskBroker(self._release("client_failed")), *self._use(hedge, hedge.lease)]

    def _try_again(self, now: float) -> list[Command]:
        hedge = self._hedge
        if hedge is None or hedge.lease is None or self.deaths >= MAX_WORKER_DEATHS:
            return super()._try_again(now)
        return [AskBroker(self._release("worker_lost")), *self._use(hedge, hedge.lease)]

    def _back_off(self, until: float, failures: FailedAttempts) -> list[Command]:
        return [*self._drop_hedge(), *super()._back_off(until, failures)]

    def _next_attempt(self, now: float, *, is_provider_retry: bool = False) -> list[Command]:
        dropped = self._drop_hedge()
        self.attempt = max(self.attempt, self._highest_attempt)  # no two attempts have one number
        return [*dropped, *super()._next_attempt(now, is_provider_retry=is_provider_retry)]

    def _end(self, ending: Ending) -> list[Command]:
        dropped = self._drop_hedge()
        if self.span_id != self.plan.span_id:
            dropped.append(HedgeEnded(self.span_id))
        return [*dropped, *super()._end(ending)]

    def _drop_hedge(self) -> list[Command]:
        """Stop the hedge, if there is one."""
        hedge, self._hedge, self._hedge_at = self._hedge, None, None
        return [] if hedge is None else hedge.drop()

    def _beaten(self, hedge: Hedge) -> list[Command]:
        """The hedge was faster: stop the first attempt."""
        if hedge.lease is None:
            return []
        stop = TellWorker(Abort(self.span_id, self.attempt, "close", is_beaten=True), former=self.lease)
        release = AskBroker(Release(self.span_id, self.attempt, "aborted"))
        return [stop, release, *self._use(hedge, hedge.lease)]

    def _use(self, hedge: Hedge, lease: Grant) -> list[Command]:
        """Let the hedge take the place of the first attempt, which has ended or was stopped."""
        self._hedge = self._hedge_at = None
        self.span_id, self.attempt, self.lease, self._question = hedge.span_id, hedge.attempt, lease, hedge.question
        self.times.granted_at = hedge.granted_at
        self._terminal = None
        self._worker_told_end = self._is_revoked = False
        self._silence = None
        return []
