"""Counts events within the last so many seconds, in slots of time: a sliding window in little memory. Pure."""

from __future__ import annotations

from collections import deque
from math import ceil, floor


class RecentCount:
    """How many events there were within the last ``seconds``.

    Events are kept in slots of ``slot`` seconds, so that a count is exact but for the oldest slot. ``now`` never goes back.
    """

    def __init__(self, seconds: float, slot: float) -> None:
        self._span = seconds / slot
        self._slot = slot
        # The number of each slot that has events, and how many.
        self._slots: deque[list[int]] = deque()
        self._total = 0

    def add(self, now: float, count: int = 1) -> None:
        """Events happen now."""
        index = floor(now / self._slot)
        if self._slots and self._slots[-1][0] >= index:
            self._slots[-1][1] += count
        else:
            self._slots.append([index, count])
        self._total += count

    def at_most(self, now: float) -> int:
        """Return the number of events within the window. Those of its oldest slot all count."""
        oldest = floor(now / self._slot - self._span)
        while self._slots and self._slots[0][0] < oldest:
            self._total -= self._slots.popleft()[1]
        return self._total

    def at_least(self, now: float) -> int:
        """Return the number of events within the window. Those of a slot that began before the window do not count."""
        total = self.at_most(now)
        if self._slots and self._slots[0][0] < ceil(now / self._slot - self._span):
            total -= self._slots[0][1]
        return total

    def clear(self) -> None:
        """Forget all events."""
        self._slots.clear()
        self._total = 0
