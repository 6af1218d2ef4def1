"""Part: the rows of a job that go to a provider as one batch, and how far that batch is. Pure.

A part is kept in the job's journal from the moment in which it is complete until all its rows are recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from headrace.wire.batch_messages import BatchEnd, BatchGroup, RowsFile

PartState = Literal["ready", "submitting", "running", "ended"]
"""``ready``: it can be sent. ``submitting``: it is being sent, or may have arrived: before it is sent again, the provider's
batches are searched for it. ``running``: the provider has it. ``ended``: its results can be fetched."""

RowRange = tuple[int, int]
"""The first and the last of some rows with consecutive numbers."""


class Part(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One part of a job.

    ``number``: unique in the job. ``token``: marks its batch at the provider, and its rows in the results; a part that is
    sent again after a refusal gets a new one. ``ranges``: the numbers of its rows, in the order of its file.
    ``size``: bytes. ``submitted_at``: seconds since 1970, when it was sent last.
    ``is_certain``: whether ``batch_id`` is known to be this part's batch: see BatchesFound. ``not_ours``: batches that
    turned out not to be. ``is_cancelled``: the job cancelled it. ``refusals``: how often the provider had no room
    for it. ``blames``: how often it was sent again without rows that the provider refused.
    ``lost``: how often it was sent without an answer, and was not in the provider's list. ``input_version``: that of the journal, when the part was made: the rows' numbers are of this version.
    """

    number: int
    token: str
    group: BatchGroup
    rows: RowsFile
    ranges: list[RowRange]
    size: int
    state: PartState = "ready"
    file_id: str = ""
    batch_id: str = ""
    is_certain: bool = True
    not_ours: list[str] = []
    submitted_at: float = 0.0
    end: BatchEnd = ""
    results: list[str] = []
    is_cancelled: bool = False
    refusals: int = 0
    blames: int = 0
    lost: int = 0
    input_version: int = 0

    @property
    def row_count(self) -> int:
        """How many rows the part still has."""
        return self.rows.count - len(self.rows.skipped)

    def numbers(self) -> Iterator[int]:
        """Iterate the numbers of the part's rows, in the order of its file, without those that are left out."""
        skipped = frozenset(self.rows.skipped)
        for first, last in self.ranges:
            for number in range(first, last + 1):
                if number not in skipped:
                    yield number

    def numbers_at(self, lines: Iterable[int]) -> list[int]:
        """Return the numbers of the rows in these lines of the uploaded file, from 1. Lines that the file does not have are left out."""
        wanted = {line for line in lines if line >= 1}
        return [number for line, number in enumerate(self.numbers(), 1) if line in wanted]

    def without(self, numbers: Iterable[int]) -> Part:
        """Return the part without some of its rows."""
        skipped = sorted({*self.rows.skipped, *numbers})
        return msgspec.structs.replace(self, rows=msgspec.structs.replace(self.rows, skipped=skipped))


class RowRanges:
    """Collects row numbers as ranges. In the order of the rows, a million numbers are one range."""

    def __init__(self) -> None:
        self.ranges: list[RowRange] = []
        self.count = 0

    def add(self, number: int) -> None:
        """Add a number."""
        self.count += 1
        if self.ranges and self.ranges[-1][1] == number - 1:
            self.ranges[-1] = (self.ranges[-1][0], number)
        else:
            self.ranges.append((number, number))
