"""Providers that count their limits in three ways, and a pool's runs against them, on a virtual clock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Protocol

from headrace.wire.messages import LimitKind, SaidLimit
from headrace_engine.limits.gate import Priority
from headrace_engine.limits.rate_limits import RateLimits, Reservation
from headrace_engine.limits.token_estimates import TokenEstimates


class Provider(Protocol):
    """One key's limit of one kind. ``limit`` may be changed at any time."""

    limit: int

    def arrive(self, amount: int, now: float) -> tuple[bool, int, float]:
        """A request arrives. Return whether it is taken, what is left, and the seconds until the limit is whole again."""


class StrictWindow:
    """Takes no more than the limit in any 60 seconds."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._taken: deque[tuple[float, int]] = deque()
        self._total = 0

    def arrive(self, amount: int, now: float) -> tuple[bool, int, float]:
        while self._taken and self._taken[0][0] <= now - 60:
            self._total -= self._taken.popleft()[1]
        is_taken = self._total + amount <= self.limit
        if is_taken:
            self._taken.append((now, amount))
            self._total += amount
        return is_taken, max(self.limit - self._total, 0), self._taken[-1][0] + 60 - now if self._taken else 0.0


class FixedWindow:
    """Counts from each full minute anew."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._minute = 0
        self._total = 0

    def arrive(self, amount: int, now: float) -> tuple[bool, int, float]:
        if int(now / 60) != self._minute:
            self._minute, self._total = int(now / 60), 0
        is_taken = self._total + amount <= self.limit
        if is_taken:
            self._total += amount
        return is_taken, max(self.limit - self._total, 0), 60 - now % 60


class Bucket:
    """A bucket that fills all the time, and holds a minute's limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._level = float(limit)
        self._at = 0.0

    def arrive(self, amount: int, now: float) -> tuple[bool, int, float]:
        self._level = min(self._level + (now - self._at) * self.limit / 60, float(self.limit))
        self._at = now
        is_taken = self._level >= amount
        if is_taken:
            self._level -= amount
        return is_taken, int(self._level), (self.limit - self._level) * 60 / self.limit


class Traffic:
    """Runs of one pool that always has more of them, against providers of some kinds of limits, and what became of them.

    ``arrivals``: time, tokens and whether the provider took the request. ``waits``: seconds that each run of an open
    stream waited for its grant.
    """

    def __init__(
        self,
        limits: RateLimits,
        providers: dict[LimitKind, Provider],
        *,
        seed: int = 1,
        start: float = 1000.0,
        concurrency: int = 400,
        first_chunk: tuple[float, float] = (0.3, 2.0),
        duration: tuple[float, float] = (0.5, 4.0),
        tokens: Callable[[Random], tuple[int, int]] = lambda _: (100, 100),
        says: bool = True,
        priority: Priority = "interactive",
    ) -> None:
        self.limits = limits
        self.estimates = TokenEstimates()
        self.now = start
        self.arrivals: list[tuple[float, int, bool]] = []
        self.grants: list[float] = []
        self.waits: list[float] = []
        self._providers = providers
        self._random = Random(seed)
        self._free = self._concurrency = concurrency
        self._first_chunk = first_chunk
        self._duration = duration
        self._tokens = tokens
        self._says = says
        self._priority: Priority = priority
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._woken_at = -1.0
        self._lone: deque[float] = deque()

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), action))

    def others(self, rate: Callable[[float], float], seed: int = 7) -> None:
        """Another program sends requests with the same key, so many per second at each time."""
        random = Random(seed)

        def send() -> None:
            for kind, provider in self._providers.items():
                provider.arrive(1 if kind == "requests" else 200, self.now)
            self.at(self.now + random.expovariate(max(rate(self.now), 0.01)), send)

        self.at(self.now, send)

    def interactive(self, rate: float, seed: int = 9) -> None:
        """Interactive runs come beside the others, so many per second."""
        random = Random(seed)

        def come() -> None:
            self._lone.append(self.now)
            self._grant()
            self.at(self.now + random.expovariate(rate), come)

        self.at(self.now, come)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        self.at(self.now, self._grant)
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = until

    def _grant(self) -> None:
        while self._lone or self._free > 0:
            cost = self.estimates.cost(100, 0, whole_output=False, running=self._concurrency - self._free)
            until = self.limits.wait(cost, "interactive" if self._lone else self._priority, self.now)
            if until is not None:
                assert until > self.now
                self._wake(until)
                return
            is_lone = bool(self._lone)
            if is_lone:
                self.waits.append(self.now - self._lone.popleft())
            else:
                self._free -= 1
            self.grants.append(self.now)
            self._send(self.limits.take(cost, self.now), is_lone)

    def _wake(self, until: float) -> None:
        if self._woken_at <= self.now or until < self._woken_at:
            self._woken_at = until
            self.at(until, self._grant)

    def _send(self, reservation: Reservation, is_lone: bool) -> None:
        real = self._tokens(self._random)
        self.at(self.now + self._random.uniform(0.0, 0.99), lambda: self._arrive(reservation, real, is_lone))

    def _arrive(self, reservation: Reservation, real: tuple[int, int], is_lone: bool) -> None:
        said: list[SaidLimit] = []
        is_taken = True
        for kind, provider in self._providers.items():
            taken, left, reset = provider.arrive(1 if kind == "requests" else sum(real), self.now)
            is_taken = is_taken and taken
            said.append(SaidLimit(kind, provider.limit, left, reset))
        self.arrivals.append((self.now, sum(real), is_taken))
        head = self.now + (self._random.uniform(*self._first_chunk) if is_taken else 0.05)
        if self._says:
            self.at(head, lambda: self.limits.said(said, reservation, self.now, is_refused=not is_taken))
        end = head + (self._random.uniform(*self._duration) if is_taken else 0.0)
        self.at(end, lambda: self._end(reservation, real if is_taken else None, is_lone))

    def _end(self, reservation: Reservation, real: tuple[int, int] | None, is_lone: bool) -> None:
        if real is None:
            self.limits.refund_tokens(reservation, self.now)
        else:
            self.estimates.learn(100, *real)
            self.limits.settle(reservation, *real, self.now)
        if not is_lone:
            self._free += 1
        self._grant()

    # What became of it.

    def refused(self, since: float = 0.0) -> float:
        """Return which part of the requests the provider refused."""
        found = [is_taken for at, _, is_taken in self.arrivals if at >= since]
        return found.count(False) / max(len(found), 1)

    def taken(self, since: float, until: float) -> tuple[int, int]:
        """Return requests and tokens that the provider took in this time."""
        found = [tokens for at, tokens, is_taken in self.arrivals if is_taken and since <= at < until]
        return len(found), sum(found)

    def fullest_minute(self) -> tuple[int, int]:
        """Return the most requests, and the most tokens, that arrived in any 60 seconds."""
        window: deque[tuple[float, int]] = deque()
        most, most_tokens, total = 0, 0, 0
        for at, tokens, _ in sorted(self.arrivals):
            window.append((at, tokens))
            total += tokens
            while window[0][0] <= at - 60:
                total -= window.popleft()[1]
            most, most_tokens = max(most, len(window)), max(most_tokens, total)
        return most, most_tokens
