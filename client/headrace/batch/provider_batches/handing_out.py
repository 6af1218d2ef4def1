"""HandingOut: the parts whose rows are being handed out: their answers are read in groups, and a part is over once all are recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from headrace.batch.provider_batches.merging import Answers, MergeGroup, PartMerge
from headrace.batch.provider_batches.moved_rows import MovedRows
from headrace.batch.provider_batches.part import Part
from headrace.wire.batch_frames import StoredRow
from headrace.wire.batch_messages import ReadAnswers
from headrace.wire.run_messages import Failed

_GROUP = 64
"""Rows whose answers are read together."""
_MOST_READING = 8
"""Groups of rows that are being read at once."""


class HandedOut(NamedTuple):
    """Some rows of a part. ``call``: has the answers of those that have one read; None if none of them has."""

    part: Part
    group: MergeGroup
    call: ReadAnswers | None


class HandingOut:
    """Parts that have ended, until all their rows are recorded. ``is_wanted``: whether a row has no record yet."""

    def __init__(self, is_wanted: Callable[[int], bool], moved: MovedRows, new_call: Callable[[], int]) -> None:
        self._is_wanted = is_wanted
        self._moved = moved
        self._new_call = new_call
        self._merges: dict[int, PartMerge] = {}
        self._reading: dict[int, tuple[PartMerge, list[StoredRow]]] = {}

    def __len__(self) -> int:
        return len(self._merges)

    def __contains__(self, part_number: int) -> bool:
        return part_number in self._merges

    def left_of(self, part_number: int) -> int:
        """Return how many rows of a part were not handed out yet."""
        merge = self._merges.get(part_number)
        return 0 if merge is None else merge.left

    @property
    def reading(self) -> int:
        """How many rows have answers that are being read."""
        return sum(len(rows) for _, rows in list(self._reading.values()))

    def add(self, part: Part, answers: Answers, failed: Failed | None) -> None:
        """Hand out the rows of a part. ``failed``: why there are no answers."""
        self._merges[part.number] = PartMerge(part, answers, failed, self._is_wanted, self._moved)

    def next(self) -> HandedOut | None:
        """Return further rows, None if there are none now."""
        if len(self._reading) >= _MOST_READING:
            return None
        merge = next((merge for merge in self._merges.values() if not merge.is_over), None)
        if merge is None:
            return None
        group = merge.next(_GROUP)
        call = None
        if group.to_read:
            call = ReadAnswers(self._new_call(), merge.part.group, [row for _, row in group.to_read])
            self._reading[call.call] = merge, [stored for stored, _ in group.to_read]
        return HandedOut(merge.part, group, call)

    def read(self, call: int) -> tuple[Part, list[StoredRow]]:
        """The answers of a call were read, or could not be. Return its rows and their part."""
        merge, rows = self._reading.pop(call)
        return merge.part, rows

    def has_handed_out(self, number: int) -> bool:
        """Return whether a row was handed out, and is not recorded."""
        return any(number in merge.unrecorded for merge in self._merges.values())

    def recorded(self, numbers: Iterable[int]) -> None:
        """Rows that were handed out are recorded, or are sent again: their parts no longer have them."""
        gone = set(numbers)
        for merge in self._merges.values():
            merge.unrecorded -= gone

    def over(self) -> list[int]:
        """Return the numbers of the parts whose rows are all recorded, and forget these parts."""
        over = [number for number, merge in self._merges.items() if merge.is_over and not merge.unrecorded]
        for number in over:
            del self._merges[number]
        return over
