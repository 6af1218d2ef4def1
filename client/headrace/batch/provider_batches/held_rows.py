"""HeldRows: which rows an earlier start of the job has left in its parts. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from headrace.batch.provider_batches.part import Part, RowRange


class HeldRows:
    """The rows of parts, as ranges: a million rows take little memory."""

    def __init__(self) -> None:
        self._ranges: dict[int, list[RowRange]] = {}
        self._lost: set[int] = set()

    def hold(self, part: Part, ranges: list[RowRange]) -> None:
        """A part has the rows in ``ranges``, which are sorted."""
        self._ranges[part.number] = ranges

    def has(self, number: int) -> bool:
        """Return whether a row is in one of the parts."""
        if not self._ranges or number in self._lost:
            return False
        return any(_is_in(ranges, number) for ranges in self._ranges.values())

    def lose(self, numbers: Iterable[int]) -> None:
        """Rows are in no part any more."""
        self._lost.update(numbers)

    def forget(self, part: Part) -> None:
        """A part is over."""
        self._ranges.pop(part.number, None)


def _is_in(ranges: list[RowRange], number: int) -> bool:
    place = bisect_right(ranges, (number, float("inf")))
    return place > 0 and ranges[place - 1][1] >= number
