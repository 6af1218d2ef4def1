"""Whose turn it is to be read: processes take turns, and the connections of one process among themselves. Pure.

However many connections one process has, another's waits for one turn of each process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Who waits to be read."""

    def __init__(self) -> None:
        # In the order of their turns.
        self._processes: dict[Hashable, deque[T]] = {}

    def __bool__(self) -> bool:
        return bool(self._processes)

    def put(self, process: Hashable, item: T) -> None:
        """Have ``item`` be given a turn, behind the others of its process."""
        waiting = self._processes.get(process)
        if waiting is None:
            self._processes[process] = deque((item,))
        else:
            waiting.append(item)

    def take(self) -> T | None:
        """Return who has the turn, or None."""
        for process, waiting in self._processes.items():
            item = waiting.popleft()
            del self._processes[process]
            if waiting:
                self._processes[process] = waiting  # to the end
            return item
        return None
