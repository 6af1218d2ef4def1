"""MovedRows: which numbers the rows of earlier parts have now, if the rows of the input have changed their places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from headrace.batch.provider_batches.part import Part, RowRanges
from headrace.batch.provider_batches.row_files import rows_of
from headrace.wire.batch_frames import StoredRow


class RowNumbers(Protocol):
    """What a journal says of the numbers of rows."""

    def input_version(self) -> int:
        """Return a number that grows whenever rows got other numbers."""

    def number_of(self, row_id: str) -> int | None:
        """Return the number that a row has now, None if there is no such row."""


class MovedRows:
    """The numbers of rows now. Most inputs never change: then it keeps nothing.

    ``version``: of the input now. Raises JournalError if the rows of a part are gone.
    """

    def __init__(self, parts: Iterable[Part], numbers: RowNumbers | None) -> None:
        self.version = 0 if numbers is None else numbers.input_version()
        self._moved: dict[int, dict[int, int]] = {}
        """Part → number of a row in the part → its number now. 0: the input has no such row any more."""
        for part in parts:
            if numbers is not None and part.input_version != self.version:
                self._moved[part.number] = {row.number: numbers.number_of(row.id) or 0 for row in rows_of(part)}

    def now(self, part: Part, row: StoredRow) -> StoredRow:
        """Return a row of a part with the number that it has now."""
        moved = self._moved.get(part.number)
        return row if moved is None else msgspec.structs.replace(row, number=moved.get(row.number, 0))

    def numbers(self, part: Part, numbers: Sequence[int]) -> Sequence[int]:
        """Return the numbers that rows of a part have now."""
        moved = self._moved.get(part.number)
        return numbers if moved is None else [moved.get(number, 0) for number in numbers]

    def ranges(self, part: Part) -> list[tuple[int, int]]:
        """Return the numbers that the rows of a part have now, as ranges."""
        moved = self._moved.get(part.number)
        if moved is None:
            return sorted(part.ranges)
        found = RowRanges()
        for number in sorted(moved.values()):
            found.add(number)
        return found.ranges
