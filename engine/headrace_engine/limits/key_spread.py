"""The gate before runs that may use any of several keys of a provider: each run goes with the key that has the most left. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from headrace.wire.engine_status import PoolStatus
from headrace.wire.messages import Acquire, Release, ResponseReport
from headrace_engine.limits.account import PoolName
from headrace_engine.limits.gate import GateWait, Priority, Refusal, Ticket
from headrace_engine.limits.hedge_budget import HedgeBudget
from headrace_engine.limits.key_ring import KeyRing
from headrace_engine.limits.pool import Pool, RunTicket, count_attempt
from headrace_engine.limits.retry_budget import RetryBudget

ANY_KEY = "any"
"""Stands in the status for the key of runs that may use any."""


class KeySpread:
    """One model family of one provider with several keys. ``pool_of`` returns the pool of a key.

    A ticket is the pool's own: its run answers to the pool.
    """

    def __init__(self, name: PoolName, ring: KeyRing, pool_of: Callable[[str], Pool], now: float) -> None:
        self.key: Hashable = name
        self.name = name
        self.retries = RetryBudget()
        self.hedges = HedgeBudget()
        self.used_at = now
        self.granted_total = 0
        self._ring = ring
        self._pool_of = pool_of

    @property
    def version(self) -> int:
        """Another number than before, if a run may go earlier than :meth:`wait` said."""
        return self._ring.version + max((self._pool_of(key).version for key in self._ring.keys), default=0)

    def wait(self, priority: Priority, question: Acquire, now: float) -> GateWait | None:
        """Return why a run may not go with any key; None if it may with one."""
        self.used_at = now
        first: GateWait | None = None
        for pool in self._pools(now):
            wait = pool.wait(priority, question, now)
            if wait is None:
                return None
            if first is None or (wait.until is not None and (first.until is None or wait.until < first.until)):
                first = wait
        back_at = self._ring.back_at(now)
        if first is not None and back_at is not None and (first.until is None or back_at < first.until):
            return GateWait(first.word, back_at)
        return first

    def enter(self, question: Acquire, now: float, epoch: int = 0) -> RunTicket:
        """Take the run's share of the key that has the most left, of those that the worker has."""
        pools = [self._pool_of(key) for key in self._ring.usable_on(epoch, now) or ("",)]
        free = [pool for pool in pools if pool.wait(question.priority, question, now) is None]
        best = max(free or pools, key=lambda pool: (pool.share_left(now), -pool.running, -pool.granted_total))
        self.used_at = now
        count_attempt(question, self.retries, self.hedges, now)
        self.granted_total += 1
        return best.enter(question, now)

    def late_refusal(self, question: Acquire, now: float) -> Refusal | None:
        """Return why a run that has waited gets no lease after all."""
        return self._pools(now)[0].late_refusal(question, now)

    def adopt(self, question: Acquire, key: str, now: float, went_at: float | None = None) -> RunTicket:
        """Count a run that has its lease already, with this key; with any key if it is not known."""
        self.used_at = now
        pool = self._pool_of(key) if key in self._ring.keys else self._pools(now)[0]
        return pool.adopt(question, now, went_at)

    def answered(self, ticket: Ticket, report: ResponseReport, now: float) -> None:
        """The head of the response has come."""
        ticket.gate.answered(ticket, report, now)

    def leave(self, ticket: Ticket, release: Release | None, now: float) -> None:
        """The run's lease has ended."""
        ticket.gate.leave(ticket, release, now)

    def expected_wait(self, question: Acquire, ahead: int, now: float) -> float:
        """Return the seconds that a run will wait: the keys share those that are ahead."""
        pools = self._pools(now)
        return min(pool.expected_wait(question, ahead // len(pools), now) for pool in pools)

    def may_hedge(self, question: Acquire, now: float) -> bool:
        """Return whether a key allows a second attempt."""
        return any(pool.may_hedge(question, now) for pool in self._pools(now))

    def status(self, waiting: int) -> PoolStatus:
        """Return the runs that wait for any key, for the engine's status."""
        name = self.name
        running = sum(self._pool_of(key).running for key in self._ring.keys)
        return PoolStatus(
            name.provider,
            name.family,
            ANY_KEY,
            running=running,
            waiting=waiting,
            retries_total=self.retries.total,
            granted_total=self.granted_total,
        )

    def _pools(self, now: float) -> list[Pool]:
        return [self._pool_of(key) for key in self._ring.usable(now) or ("",)]
