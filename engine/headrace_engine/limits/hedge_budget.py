"""The hedge budget of a pool: how many second attempts, beside first ones that go on, may be sent. Pure."""

from __future__ import annotations

from headrace_engine.limits.recent_count import RecentCount

WINDOW = 60.0
"""Seconds."""
ONE_IN = 20
"""One hedge for so many first attempts: 5 %."""
_SLOT = 1.0


class HedgeBudget:
    """At most 5 % of the first attempts of the last minute. A pool with few runs may hedge each 20th.

    A new budget allows one hedge: what was sent before it was made is not known.
    """

    def __init__(self) -> None:
        self._firsts = RecentCount(WINDOW, _SLOT)
        self._hedges = RecentCount(WINDOW, _SLOT)
        self._since_last = ONE_IN

    def first(self, now: float) -> None:
        """A run is granted that is no hedge."""
        self._firsts.add(now)
        self._since_last += 1

    def take(self, now: float) -> bool:
        """A run wants a second attempt. Return whether it may have one; if so, it counts."""
        hedges = (self._hedges.at_most(now) + 1) * ONE_IN
        if hedges > self._firsts.at_least(now) and self._since_last < ONE_IN:
            return False
        self._hedges.add(now)
        self._since_last = 0
        return True
