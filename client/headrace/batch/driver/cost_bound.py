"""CostBound: how many more rows a batch job may start before it would cost more than ``max_cost``. Pure."""

from __future__ import annotations

import math

_FIRST_ROWS = 16
"""Rows that run at most while nothing is known about the cost of a row."""
_MANY = 1e9


class CostBound:
    """The bound of a job's cost, in US dollars.

    ``spent``: what earlier starts of the job have spent, for ``rows`` rows.
    """

    def __init__(self, max_cost: float, spent: float = 0.0, rows: int = 0) -> None:
        self._max_cost = max_cost
        self._spent = spent
        self._rows = rows
        self._estimated = 0.0
        """What the rows under way are estimated to cost, in this start of the job."""

    def add(self, cost: float) -> None:
        """A row has ended, and cost so much."""
        self._spent += cost
        self._rows += 1

    def admits(self, estimate: float | None) -> bool:
        """Return whether a row may start that is estimated to cost so much; None: that is not known.

        Once rows have ended, their mean counts instead: see :meth:`room`.
        """
        left = self._max_cost - self._spent
        if estimate is None:
            return True
        if self._rows:
            return left > 0.0
        if self._estimated + estimate > left:
            return False
        self._estimated += estimate
        return True

    @property
    def is_reached(self) -> bool:
        """Whether no further row may start, even if nothing runs."""
        return self.room(0) <= 0

    def room(self, running: int) -> int:
        """Return how many rows may be started while ``running`` rows run. Each of them counts as the mean of the ended rows."""
        if not running:
            self._estimated = 0.0
        left = self._max_cost - self._spent
        if left <= 0.0:
            return 0
        if not self._rows:
            return max(0, _FIRST_ROWS - running)
        mean = self._spent / self._rows
        if mean <= 0.0:
            return _FIRST_ROWS
        return max(0, math.floor(min(left / mean, _MANY)) - running)
