"""Providers for a simulated day: they count what reaches them, and answer as their limits and their health allow.

They know nothing of Headrace: what they count is held against what it promises.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from headrace.wire.messages import SaidLimit

MINUTE = 60.0
DAY = 24 * 3600.0


@dataclass
class Answer:
    """``seconds``: from the request's arrival to the head, and from the head to the end."""

    status: int
    seconds: tuple[float, float]
    limits: list[SaidLimit] = field(default_factory=list)
    retry_after: float | None = None


@dataclass
class Provider:
    """``requests_per_minute``: by time of the day at which each figure begins to count, for each key."""

    name: str
    model: str
    requests_per_minute: list[tuple[float, int]] = field(default_factory=list)
    concurrency: int | None = None
    tells_limits: bool = False
    tells_retry_after: bool = True
    outages: list[tuple[float, float]] = field(default_factory=list)
    failing_share: float = 0.0
    refused_keys: dict[str, tuple[float, float]] = field(default_factory=dict)
    received: dict[str, list[float]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    in_outage: int = 0
    running: int = 0

    def limit_at(self, now: float) -> int | None:
        return next((limit for since, limit in reversed(self.requests_per_minute) if since <= now), None)

    def receive(self, key: str, now: float, random: Random) -> Answer:
        answer = self._answer(key, now, random)
        self.statuses[answer.status] += 1
        return answer

    def _answer(self, key: str, now: float, random: Random) -> Answer:
        received = self.received.setdefault(key, [])
        insort(received, now)
        quick = (random.uniform(0.02, 0.3), 0.0)
        if any(begin <= now < end for begin, end in self.outages):
            self.in_outage += 1
            return Answer(503, quick)
        begin, end = self.refused_keys.get(key, (0.0, 0.0))
        if begin <= now < end:
            return Answer(401, quick)
        limit = self.limit_at(now)
        used = len(received) - bisect_right(received, now - MINUTE)
        if limit is not None and used > limit:
            # So many must leave the window before there is room for one more.
            until = received[-limit] + MINUTE
            return Answer(429, quick, self._said(limit, 0), until - now if self.tells_retry_after else None)
        if random.random() < self.failing_share:
            return Answer(500, quick)
        if self.concurrency is not None and self.running >= self.concurrency:
            return Answer(529, quick)
        self.running += 1
        said = [] if limit is None else self._said(limit, limit - used)
        return Answer(200, (random.uniform(0.2, 1.0), random.uniform(0.5, 10.0)), said)

    def _said(self, limit: int, remaining: int) -> list[SaidLimit]:
        return [SaidLimit("requests", limit, remaining, MINUTE)] if self.tells_limits else []

    def largest_minute(self, key: str, begin: float = 0.0, end: float = 2 * DAY) -> int:
        """Return the most requests that came within any minute of this time."""
        times = [at for at in self.received.get(key, []) if begin <= at < end]
        return max((bisect_right(times, at + MINUTE - 1e-9) - index for index, at in enumerate(times)), default=0)
