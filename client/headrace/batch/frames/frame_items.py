"""FrameItems: the records of a frame, or the texts of a series, as a sequence that a batch job reads some at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

_CHUNK = 1000


class FrameItems(Sequence[Any]):
    """Items of a frame. ``slice_of``: returns the items from one place to another, as plain values."""

    def __init__(self, count: int, slice_of: Callable[[int, int], list[Any]]) -> None:
        self._count = count
        self._slice_of = slice_of
        self._chunk: list[Any] = []
        self._begin = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        """Return an item. Items near to the last one are there already."""
        if not 0 <= place < self._count:
            raise IndexError(place)
        if not self._begin <= place < self._begin + len(self._chunk):
            self._begin = place - place % _CHUNK
            self._chunk = self._slice_of(self._begin, min(self._begin + _CHUNK, self._count))
        return self._chunk[place - self._begin]
