"""InputOrder: gives rows back in the order of the input, although they end in any order. Pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class InputOrder(Generic[T]):
    """Ended rows that wait for earlier rows of the input."""

    def __init__(self) -> None:
        self._numbers: deque[int] = deque()
        self._ended: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def begin(self, number: int) -> None:
        """A row was read: the next one of the input. Does nothing for a row that runs again."""
        if not self._numbers or number > self._numbers[-1]:
            self._numbers.append(number)

    def end(self, number: int, row: T) -> None:
        """A row has ended."""
        self._ended[number] = row

    def released(self) -> list[T]:
        """Return the ended rows before which no row of the input is missing."""
        rows: list[T] = []
        while self._numbers and self._numbers[0] in self._ended:
            rows.append(self._ended.pop(self._numbers.popleft()))
        return rows

    def rest(self) -> list[T]:
        """Return the ended rows that still wait, in order: the rows before them will not end."""
        rows = [self._ended[number] for number in sorted(self._ended)]
        self._numbers.clear()
        self._ended.clear()
        return rows
