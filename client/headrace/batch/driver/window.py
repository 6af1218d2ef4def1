"""Window: how many rows a batch job gives the engine at once. It grows while that makes the job faster. Pure.

The job cannot know how many rows help: that depends on the provider, its limits, the workers, and the length of answers.
So it tries. It doubles the number while rows pass faster for it. It goes back if they do not. Rows that wait in the engine
all the time help nobody, and their time limits run: then the window shrinks to the rows that run, and one group.
"""

from __future__ import annotations

GROUP = 64
"""Rows that are started together at most."""
_FIRST = 64
"""Rows of the first window."""
_SHORT_ROUND = 0.25
"""Seconds after which the window may change, if a window full of rows has ended."""
_LONG_ROUND = 1.0
"""Seconds after which the window may change, even if answers take longer than that."""
_IS_FULL = 0.9
"""Share of the window that must have been used. Else the input, or the reader of the results, holds the job back."""
_IS_FASTER = 1.05
"""How much faster rows must pass for the larger window to stay."""
_FIRST_HOLD = 5.0
"""Seconds until a larger window is tried again, after it did not help."""
_LONGEST_HOLD = 60.0


class Window:
    """The number of rows that may be with the engine. ``most``: never more than this."""

    def __init__(self, most: int) -> None:
        self.size = min(most, _FIRST)
        self._most = most
        self._smaller = self.size
        """The size before the last growth."""
        self._has_grown = False
        self._rate = 0.0
        """Rows a second before the last growth; 0 while it is not known."""
        self._hold = _FIRST_HOLD
        self._held_until = 0.0
        self._began: float | None = None
        self._ended = 0
        self._fullest = 0
        self._standing = most

    def observe(self, now: float, ended: int, running: int, waiting: int) -> None:
        """Learn that ``ended`` rows have ended since the last call, and how many run and wait in the engine now."""
        if self._began is None:
            self._begin_round(now)
            return
        self._ended += ended
        self._fullest = max(self._fullest, running + waiting + ended)
        self._standing = min(self._standing, waiting)
        elapsed = now - self._began
        has_turned = self._ended >= self.size
        if elapsed >= _LONG_ROUND or (has_turned and elapsed >= _SHORT_ROUND):
            self._change(now, self._ended / elapsed if has_turned else 0.0)
            self._begin_round(now)

    def shrink(self, running: int) -> None:
        """Rows were refused because too many wait: keep those that run, and one group."""
        self._set(min(self.size, max(running, 1) + GROUP), has_grown=False)

    def _begin_round(self, now: float) -> None:
        self._began = now
        self._ended = self._fullest = 0
        self._standing = self._most

    def _change(self, now: float, rate: float) -> None:
        if self._standing > GROUP:
            self._set(self.size - (self._standing - GROUP), has_grown=False)
        elif self._standing or self._fullest < self.size * _IS_FULL:
            self._has_grown = False
        elif self._has_grown and 0.0 < rate < self._rate * _IS_FASTER:
            self._set(self._smaller, has_grown=False)
            self._held_until = now + self._hold
            self._hold = min(2 * self._hold, _LONGEST_HOLD)
        elif now >= self._held_until and self.size < self._most:
            if self._has_grown and rate:
                self._hold = _FIRST_HOLD  # it helped
            self._rate = rate
            self._smaller = self.size
            self._set(min(self._most, 2 * self.size), has_grown=True)

    def _set(self, size: int, *, has_grown: bool) -> None:
        self.size = max(1, size)
        self._has_grown = has_grown
