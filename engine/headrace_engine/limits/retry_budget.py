"""The retry budget of a pool: how many retries after a failure of the provider may be sent, so that no retry storm begins. Pure."""

from __future__ import annotations

from headrace_engine.limits.recent_count import RecentCount

WINDOW = 10.0
"""Seconds."""
SHARE = 0.2
"""Retries for each first attempt of the window."""
FLOOR = 10.0
"""Retries in each second that are always allowed: a pool with few runs may retry them all."""
_SLOT = 0.5


class RetryBudget:
    """In any 10 seconds there are at most 100 retries, and 20 % of the first attempts of these seconds."""

    def __init__(self) -> None:
        self._firsts = RecentCount(WINDOW, _SLOT)
        self._retries = RecentCount(WINDOW, _SLOT)
        self.total = 0
        """Retries that were allowed, since this budget was made."""

    def first(self, now: float) -> None:
        """A run is granted that is no retry."""
        self._firsts.add(now)

    def take(self, now: float) -> bool:
        """A run wants to be tried again. Return whether it may; if so, it counts."""
        allowed = FLOOR * WINDOW + SHARE * self._firsts.at_least(now)
        if self._retries.at_most(now) + 1 > allowed:
            return False
        self._retries.add(now)
        self.total += 1
        return True
