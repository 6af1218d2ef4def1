"""Until when each waiting run may wait, where its client has said so: the earliest deadline first. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from headrace_engine.broker.waiting_run import WaitingRun

_KEPT = 64
"""So many entries of runs that no longer wait are kept without a look."""


class WaitDeadlines:
    """The deadlines. ``is_waiting`` says whether a run still waits: nobody has to tell that a run has stopped."""

    def __init__(self, is_waiting: Callable[[WaitingRun], bool]) -> None:
        self._is_waiting = is_waiting
        self._heap: list[tuple[float, int, WaitingRun]] = []
        self._added = 0

    def add(self, run: WaitingRun, seconds: float, waiting: int) -> None:
        """A run may wait for so many seconds. ``waiting``: how many runs wait in all."""
        self._added += 1
        heapq.heappush(self._heap, (run.since + seconds, self._added, run))
        if len(self._heap) > 2 * waiting + _KEPT:
            self._heap = [entry for entry in self._heap if self._is_waiting(entry[2])]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """Return the earliest deadline of a run that waits."""
        while self._heap and not self._is_waiting(self._heap[0][2]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[WaitingRun]:
        """Return the runs that wait and may not wait any longer. Each is returned once."""
        found = []
        while (deadline := self.next()) is not None and deadline <= now:
            found.append(heapq.heappop(self._heap)[2])
        return found
