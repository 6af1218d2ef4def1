"""One pool: the runs of one key and one model family, and all the limits that stand before them. Pure.

A run needs room in its pool and in its account: the limits of the settings over all models of the key. A run that
leaves tells the pool how its provider is: see :mod:`headrace_engine.limits.signs`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Protocol, cast

import msgspec

from headrace.settings.limit_settings import LimitConfig
from headrace.wire.engine_status import PoolStatus
from headrace.wire.messages import Acquire, Release, ResponseReport
from headrace_engine.limits import signs
from headrace_engine.limits.account import Account, PoolName, shown_key
from headrace_engine.limits.blocking import Blocking, BlockingState
from headrace_engine.limits.breaker import Breaker, BreakerState
from headrace_engine.limits.concurrency import Concurrency, ConcurrencyState
from headrace_engine.limits.gate import Draw, GateWait, KeyRefused, Priority, Refusal, Ticket
from headrace_engine.limits.hedge_budget import HedgeBudget
from headrace_engine.limits.rate_limits import RateLimits, Reservation
from headrace_engine.limits.retry_budget import RetryBudget
from headrace_engine.limits.shared_limits import SharedLimits
from headrace_engine.limits.token_estimates import Cost, TokenEstimates, counted_tokens, counts_whole_output

IDLE_AFTER = 600.0
"""Seconds without a run after which a pool is forgotten."""
TOLD_FOR = 24 * 3600.0
"""The same for a pool whose limits headers have told."""
CROWDED_AFTER = 62.0
"""The same where there is no place for other pools: no limit per minute counts a run for longer."""
_NEEDED_FOR_HEDGE = 0.2
"""A hedge is allowed only while more than this part of each limit is left."""
_MEAN_WEIGHT = 0.05
"""Weight of a new run in the mean duration of runs."""


class Spending(Protocol):
    """Limits of how much money runs may cost."""

    def refusal(self, question: Acquire, now: float) -> Refusal | None:
        """Return why a run gets no lease; ``None`` if it may ask for one."""

    def granted(self, question: Acquire, now: float) -> object:
        """Reserve what a run will cost. Return what :meth:`ended` needs."""

    def ended(self, charge: object, release: Release | None, now: float) -> None:
        """A run has ended: ``charge`` is what :meth:`granted` returned. ``release`` is None if its client or worker went away."""


class Shared(msgspec.Struct):
    """What all pools of an engine share.

    ``limits``: those that other engines use too. ``facts``: see ``Gates.facts``. ``is_changed``: since the state was
    written last. ``forgotten``: from when to when an earlier broker granted runs that its state does not know of.
    """

    draw: Draw
    spending: Spending | None = None
    limits: SharedLimits | None = None
    forgotten: tuple[float, float] = (0.0, 0.0)
    facts: list[KeyRefused] = []
    is_changed: bool = False
    changes: int = 0
    """How often a pool or an account may have got room."""


class RunTicket(Ticket, kw_only=True):
    """The ticket of one run. ``went_at``: when it was granted. The reservations are None where it took nothing.

    ``is_probe``: the breaker let it go as a probe. ``is_judged``: the breaker knows how it fared. ``charge``: what
    ``Spending.granted`` returned.
    """

    question: Acquire
    went_at: float = float("-inf")
    taken: Reservation | None = None
    taken_of_account: Reservation | None = None
    is_probe: bool = False
    is_judged: bool = False
    charge: object = None


class SavedPool(msgspec.Struct, frozen=True):
    """What a new broker must know of a pool. ``rates`` and ``estimates`` are plain objects."""

    name: PoolName
    rates: Any
    estimates: Any
    concurrency: ConcurrencyState | None = None
    breaker: BreakerState | None = None
    blocking: BlockingState | None = None


class Pool:
    """The gate before the runs of one pool."""

    def __init__(
        self, name: PoolName, account: Account, configured: LimitConfig | None, api: str, shared: Shared, now: float
    ) -> None:
        self.key: Hashable = name
        self.name = name
        self.account = account
        self.configured = configured
        self.retries = RetryBudget()
        self.hedges = HedgeBudget()
        self.used_at = now
        self.granted_total = 0
        self.rate_limited_total = 0
        self._version = 0
        self._api = api
        self._shared = shared
        self.rates = RateLimits(configured, now)
        self._estimates = TokenEstimates()
        self._concurrency = Concurrency(None if configured is None else configured.max_concurrency)
        self._breaker = Breaker(shared.draw)
        self._blocking = Blocking(shared.draw)
        self._mean_seconds = 0.0

    @property
    def running(self) -> int:
        """Runs that have a ticket."""
        return self._concurrency.running

    # What the admission asks.

    @property
    def version(self) -> int:
        return max(self._version, self.account.version)

    def wait(self, priority: Priority, question: Acquire, now: float) -> GateWait | None:
        self.used_at = now
        if (until := self._breaker.until(now)) is not None:
            return GateWait("breaker", until)
        if (until := self._blocking.until(now)) is not None:
            return GateWait("blocked", until)
        if not self._concurrency.has_room(priority, now):
            return GateWait("limit", self._concurrency.forgotten_at())
        if not self.account.concurrency.has_room(priority, now):
            return GateWait("limit", None)
        if not (self.rates.is_known or self.account.rates.is_known):
            return None
        cost = self._cost(question)
        untils = [rates.wait(cost, priority, now) for rates in (self.rates, self.account.rates)]
        latest = max((until for until in untils if until is not None), default=None)
        return None if latest is None else GateWait("limit", latest)

    def enter(self, question: Acquire, now: float, epoch: int = 0) -> RunTicket:  # noqa: ARG002 - as all gates
        self._change(now)
        self.granted_total += 1
        count_attempt(question, self.retries, self.hedges, now)
        cost = self._cost(question)
        is_probe = self._breaker.enter(now)
        self._blocking.enter(now)
        self._concurrency.enter()
        self.account.concurrency.enter()
        spending = self._shared.spending
        return RunTicket(
            self,
            key=self.name.key if len(self.account.ring.keys) > 1 else "",
            reports=is_probe or self._breaker.is_watching(now),
            question=question,
            went_at=now,
            taken=self.rates.take(cost, now),
            taken_of_account=self.account.rates.take(cost, now) if self.account.is_limited else None,
            is_probe=is_probe,
            charge=None if spending is None else spending.granted(question, now),
        )

    def late_refusal(self, question: Acquire, now: float) -> Refusal | None:
        spending = self._shared.spending
        return None if spending is None else spending.refusal(question, now)

    def adopt(self, question: Acquire, now: float, went_at: float | None = None) -> RunTicket:
        """Count a run that has its lease already.

        It takes nothing from the rates, because it has done so already; unless an earlier broker granted it and ended
        before that was kept. ``went_at``: when it did.
        """
        self._change(now)
        self._blocking.resume(now, now if went_at is None else min(went_at, now))
        self._concurrency.enter()
        self.account.concurrency.enter()
        spending = self._shared.spending
        first, last = self._shared.forgotten
        is_forgotten = went_at is not None and first < went_at <= last
        cost = self._cost(question)
        return RunTicket(
            self,
            question=question,
            taken=self.rates.take(cost, now) if is_forgotten else None,
            taken_of_account=self.account.rates.take(cost, now) if is_forgotten and self.account.is_limited else None,
            charge=None if spending is None else spending.granted(question, now),
        )

    def answered(self, ticket: Ticket, report: ResponseReport, now: float) -> None:
        self._change(now)
        self._note_room()
        run = cast("RunTicket", ticket)
        if report.limits:
            is_refused = report.status == signs.TOO_MANY_REQUESTS
            self.rates.said(report.limits, run.taken, now, is_refused=is_refused)
            # A limit for a day, which no minute is held against, is used up: as if the provider had said Retry-After.
            if (reset := signs.used_up_for(report)) is not None:
                self._blocking.refused(reset, run.went_at, self._known_rate(), now)
        if report.status < signs.SERVER_ERROR and not run.is_judged:
            self._judge_well(run, now)

    def leave(self, ticket: Ticket, release: Release | None, now: float) -> None:
        self._change(now)
        self._note_room()
        if self.account.is_limited:
            self.account.version = self._version
        run = cast("RunTicket", ticket)
        if release is not None:
            self._learn(run, release, now)
        if run.is_probe and not run.is_judged:
            self._breaker.lost(now)
        self._concurrency.leave(now, is_success=release is not None and release.outcome == "finished")
        self.account.concurrency.leave(now)
        if self._shared.spending is not None and run.charge is not None:
            self._shared.spending.ended(run.charge, release, now)

    def expected_wait(self, question: Acquire, ahead: int, now: float) -> float:
        cost = self._cost(question)
        waits = [rates.expected_wait(ahead, cost, now) for rates in (self.rates, self.account.rates)]
        if (until := self._breaker.until(now)) is not None:
            waits.append(until - now)
        waits.append(self._blocking.expected_wait(ahead, now))
        for concurrency in (self._concurrency, self.account.concurrency):
            limit = concurrency.limit
            if limit is not None and concurrency.running + ahead >= limit:
                waits.append((concurrency.running + ahead + 1 - limit) * self._mean_seconds / limit)
        return max(waits)

    # What the gates ask.

    def share_left(self, now: float) -> float:
        """Return the part of its scarcest limit that is left, from 0 to 1."""
        return min(
            self._concurrency.share_left,
            self.account.concurrency.share_left,
            self.rates.share_left(now),
            self.account.rates.share_left(now),
        )

    def may_hedge(self, question: Acquire, now: float) -> bool:
        """Return whether the provider is well, and far from each limit."""
        return (
            self._breaker.is_closed
            and self._blocking.rate(now) is None
            and self.share_left(now) > _NEEDED_FOR_HEDGE
            and self.wait("interactive", question, now) is None
        )

    def is_forgotten(self, now: float, *, is_crowded: bool) -> bool:
        """Return whether the pool need not be kept: nobody has used it for long, and it holds nothing.

        What headers said is kept for longer, unless there is no place for other pools: a burst after a quiet hour would
        go beyond a limit that nobody knows any more.
        """
        is_told = self.rates.is_known and self.configured is None
        return (
            is_idle(self.used_at, now, is_told=is_told, is_crowded=is_crowded)
            and self._concurrency.is_at_rest(now)
            and self._breaker.is_closed
            and self._blocking.is_at_rest(now)
        )

    def configure(self, configured: LimitConfig | None, now: float) -> None:
        """The limits of the settings are these from now on."""
        self.configured = configured
        self.rates.configure(configured, now)
        self._concurrency.configured = None if configured is None else configured.max_concurrency

    def forget_old(self, now: float) -> None:
        """Forget what headers said long ago. To be called now and then."""
        self._note_room()
        self.rates.forget_old(now)

    def status(self, own_key: str, waiting: int, now: float) -> PoolStatus:
        """Return the pool for the engine's status. ``own_key``: the engine's only key of the provider, if it has one."""
        name = self.name
        return PoolStatus(
            name.provider,
            name.family,
            shown_key(name.key, own_key),
            self.rates.levels(now),
            self.running,
            waiting,
            self._blocking.blocked_for(now),
            self._concurrency.limit,
            self._breaker.word,
            self.rate_limited_total,
            self.retries.total,
            self.granted_total,
            self.account.ring.why_not(name.key, now),
        )

    def state(self, now: float) -> SavedPool:
        """Return what a new broker must know of the pool."""
        return SavedPool(
            self.name,
            self.rates.to_state(now),
            self._estimates.to_state(),
            self._concurrency.state(),
            self._breaker.state(),
            self._blocking.state(now),
        )

    def restore(self, state: SavedPool, now: float) -> None:
        """Take over the state of an earlier broker. Raises ``msgspec.ValidationError`` if it cannot be used."""
        self.rates = RateLimits.from_state(state.rates, self.configured, now)
        self._estimates = TokenEstimates.from_state(state.estimates)
        self._concurrency.restore(state.concurrency, now)
        self._breaker.restore(state.breaker, now)
        self._blocking.restore(state.blocking, now)

    # What runs tell.

    def _cost(self, question: Acquire) -> Cost:
        return self._estimates.cost(
            question.input_tokens,
            question.max_output_tokens,
            whole_output=counts_whole_output(self._api),
            running=self.running,
        )

    def _learn(self, run: RunTicket, release: Release, now: float) -> None:
        """Learn from the end of a run."""
        if signs.is_refused(release):
            self.rate_limited_total += signs.is_rate_limited(release)
            self._blocking.refused(release.retry_after, run.went_at, self._known_rate(), now)
            if not (self.rates.is_known or self.account.rates.is_known):
                self._concurrency.overloaded(now)
            self.rates.refused(now)
            self.account.rates.refused(now)
        if signs.is_overload(release):
            self._concurrency.overloaded(now)
        if not run.is_judged:
            if signs.is_unavailable(release):
                run.is_judged = True
                self._breaker.failed(now, is_probe=run.is_probe)
            elif signs.is_answer(release):
                self._judge_well(run, now)
        if release.outcome == "finished":
            self._blocking.succeeded(run.went_at)
            self._learn_duration(now - run.went_at)
        self._learn_key(release, now)
        self._settle(run, release, now)

    def _learn_duration(self, seconds: float) -> None:
        if seconds < float("inf"):
            self._mean_seconds += (seconds - self._mean_seconds) * (_MEAN_WEIGHT if self._mean_seconds else 1.0)

    def _learn_key(self, release: Release, now: float) -> None:
        ring, key = self.account.ring, self.name.key
        if release.status_code == signs.UNAUTHORIZED and (fact := ring.refused(key)) is not None:
            self._shared.facts.append(fact)
        elif signs.is_used_up(release):
            ring.used_up(key, now)

    def _judge_well(self, run: RunTicket, now: float) -> None:
        run.is_judged = True
        if self._breaker.succeeded(now, is_probe=run.is_probe):
            self._blocking.released(self._known_rate(), now)

    def _settle(self, run: RunTicket, release: Release, now: float) -> None:
        """Take what the run really took from the rates, instead of what was estimated."""
        tokens = release.tokens
        for rates, taken in ((self.rates, run.taken), (self.account.rates, run.taken_of_account)):
            if taken is None:
                continue
            if tokens is not None:
                rates.settle(taken, *counted_tokens(tokens, self._api), now)
            elif signs.is_unserved(release):
                rates.refund_tokens(taken, now)
        if tokens is not None and tokens.source == "provider" and release.outcome == "finished":
            self._estimates.learn(run.question.input_tokens, *counted_tokens(tokens, self._api))

    def _known_rate(self) -> float | None:
        rates = (self.rates.rate_per_second(), self.account.rates.rate_per_second())
        return min((rate for rate in rates if rate is not None), default=None)

    def _note_room(self) -> None:
        """There may be room for runs that had none."""
        self._shared.changes += 1
        self._version = self._shared.changes

    def _change(self, now: float) -> None:
        self.used_at = now
        self._shared.is_changed = True


def is_idle(used_at: float, now: float, *, is_crowded: bool, is_told: bool = False) -> bool:
    """Return whether a gate was used so long ago that it need not be kept. ``is_crowded``: there is no place for others."""
    if is_crowded:
        return now - used_at >= CROWDED_AFTER
    return now - used_at >= (TOLD_FOR if is_told else IDLE_AFTER)


def count_attempt(question: Acquire, retries: RetryBudget, hedges: HedgeBudget, now: float) -> None:
    """Count a run that is granted in the budgets of further attempts."""
    if not question.is_provider_retry:
        retries.first(now)
    if not question.is_hedge:
        hedges.first(now)
