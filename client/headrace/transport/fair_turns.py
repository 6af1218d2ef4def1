"""Fair turns: processes take turns to be served, and so do the connections of one process. Pure.

A process with many connections gets no more turns than a process with one connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairTurns(Generic[T]):
    """The items that wait for a turn, by process."""

    def __init__(self) -> None:
        # In the order of the processes' next turns.
        self._processes: dict[Hashable, deque[T]] = {}

    def __bool__(self) -> bool:
        return bool(self._processes)

    def put(self, process: Hashable, item: T) -> None:
        """Add an item of a process, behind the other items of that process."""
        waiting = self._processes.get(process)
        if waiting is None:
            self._processes[process] = deque((item,))
        else:
            waiting.append(item)

    def take(self) -> T | None:
        """Remove and return the item that has the next turn; None if no item waits."""
        for process, waiting in self._processes.items():
            item = waiting.popleft()
            del self._processes[process]
            if waiting:
                self._processes[process] = waiting  # to the end
            return item
        return None
