"""One timer for all runs that have the same time limits and began in turn: the oldest of them runs out first.

A timer for each run would cost more than all else that a short run does with time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol


class EndingRun(Protocol):
    """A run that is told when one of its time limits may have passed."""

    def time_is_over(self) -> None:
        """Look at the clocks: a time limit of the run has passed."""


MAX_GROUPS = 16
"""Different limits at most whose runs share timers. A run with yet another limit needs a timer of its own."""
_LONGEST = 2048.0
RemoveDeadline = Callable[[EndingRun, None], object]
"""Takes a run's deadline away: called with the run and None."""


def early_delay(delay: float) -> float | None:
    """Return the longest power of two of seconds that is no longer than ``delay``, or None if that is less than a second.

    Runs with any deadlines share timers in this way: each looks at its clocks early, and again later. 500 open streams with timers of
    their own would need 500 bytes more for each.
    """
    return None if delay < 1.0 else 2.0 ** (math.frexp(min(delay, _LONGEST))[1] - 1)


class Loop(Protocol):
    """The event loop's timers. Times are in seconds."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object:
        """Call ``callback`` after ``delay``."""


class SharedDeadlines:
    """The deadlines of runs, each a fixed time after the run began. ``clock`` returns monotonic seconds."""

    def __init__(self, loop: Loop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._groups: dict[float, _Group] = {}

    def add(self, run: EndingRun, began: float, limit: float) -> RemoveDeadline | None:
        """Call the run's ``time_is_over`` ``limit`` seconds after it began, unless its deadline is taken away before.

        Return None, and call nothing, if runs with too many other limits share timers now.
        """
        group = self._groups.get(limit) or self._new_group(limit)
        if group is None:
            return None
        group.add(run, began + limit)
        return group.remove

    def _new_group(self, limit: float) -> _Group | None:
        for other in [limit for limit, group in self._groups.items() if group.is_empty]:
            del self._groups[other]
        if len(self._groups) >= MAX_GROUPS:
            return None
        group = self._groups[limit] = _Group(self._loop, self._clock)
        return group


class _Group:
    """Runs with one limit, in the order of their deadlines."""

    __slots__ = ("_clock", "_has_timer", "_loop", "_runs", "remove")

    def __init__(self, loop: Loop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._runs: dict[EndingRun, float] = {}
        self._has_timer = False
        self.remove: RemoveDeadline = self._runs.pop

    @property
    def is_empty(self) -> bool:
        return not self._runs and not self._has_timer

    def add(self, run: EndingRun, deadline: float) -> None:
        self._runs[run] = deadline
        if not self._has_timer:
            self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        self._has_timer = True
        self._loop.call_later(max(deadline - self._clock(), 0.0) + 0.001, self._due)

    def _due(self) -> None:
        self._has_timer = False
        now = self._clock()
        while self._runs:
            run, deadline = next(iter(self._runs.items()))
            if deadline > now:
                self._wait(deadline)
                return
            del self._runs[run]
            run.time_is_over()
