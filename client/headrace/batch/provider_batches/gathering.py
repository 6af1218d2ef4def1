"""Gathering: puts encoded rows into parts: a part for each group of rows, until it is full; or a part for each row."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from pathlib import Path

from headrace.batch.provider_batches.part import Part, RowRanges
from headrace.batch.provider_batches.part_limits import OpenPart, PartLimits
from headrace.batch.provider_batches.row_files import ROWS_SUFFIX, RowsReader, RowsWriter
from headrace.wire.batch_frames import StoredRow
from headrace.wire.batch_messages import BatchApiName, BatchGroup, EncodedRow, RowsFile


class Gathering:
    """The parts that still take rows. ``directory``: for the files of rows. ``new_number``: of a part. ``input_version``: as in Part."""

    def __init__(
        self,
        directory: Path,
        limits: Mapping[BatchApiName, PartLimits],
        new_token: Callable[[], str],
        new_number: Callable[[], int],
        input_version: int = 0,
    ) -> None:
        self._directory = directory
        self._input_version = input_version
        self._limits = limits
        self._new_token = new_token
        self._new_number = new_number
        self._open: dict[BatchGroup, tuple[OpenPart, RowsWriter]] = {}
        self.rows = 0
        """Rows in parts that still take rows."""

    def add(self, stored: StoredRow, row: EncodedRow, group: BatchGroup) -> Part | None:
        """Put a row into the open part of its group. Return the part that was closed because the row did not fit."""
        closed = None
        if group in self._open and not self._open[group][0].has_room(row):
            closed = self._close(group)
        if group not in self._open:
            path = self._directory / f"{self._new_token()}{ROWS_SUFFIX}"
            self._open[group] = OpenPart(group, self._limits[group.api]), RowsWriter(path)
        part, writer = self._open[group]
        part.add(row)
        writer.write(stored)
        self.rows += 1
        return closed

    def close_all(self) -> list[Part]:
        """Close all parts, and return them."""
        return [self._close(group) for group in list(self._open)]

    def drop(self) -> None:
        """Forget all rows that are in no closed part."""
        for _, writer in self._open.values():
            writer.close(is_kept=False)
        self._open.clear()
        self.rows = 0

    def _close(self, group: BatchGroup) -> Part:
        part, writer = self._open.pop(group)
        writer.close()
        self.rows -= writer.count
        return Part(
            number=self._new_number(),
            token=self._new_token(),
            group=group,
            rows=RowsFile(str(writer.path), writer.count),
            ranges=part.numbers.ranges,
            size=part.size,
            input_version=self._input_version,
        )


class SingleRows:
    """Rows that are parts of their own: background runs. They wait in a file until they may be sent."""

    def __init__(
        self, directory: Path, new_token: Callable[[], str], new_number: Callable[[], int], input_version: int = 0
    ) -> None:
        self._directory = directory
        self._input_version = input_version
        self._new_token = new_token
        self._new_number = new_number
        self._writer: RowsWriter | None = None
        self._reader: RowsReader | None = None
        self._groups: list[BatchGroup] = []
        self._group_of = array("H")
        """Which group each row has, in the order of the file."""
        self._sent = 0

    @property
    def rows(self) -> int:
        """How many rows wait."""
        return len(self._group_of) - self._sent

    def add(self, stored: StoredRow, group: BatchGroup) -> None:
        """Add a row."""
        if self._writer is None:
            self._writer = RowsWriter(self._directory / f"{self._new_token()}{ROWS_SUFFIX}")
            self._reader = RowsReader(self._writer.path)
        if group not in self._groups:
            self._groups.append(group)
        self._group_of.append(self._groups.index(group))
        self._writer.write(stored)

    def next(self) -> Part:
        """Return the next row as a part. There must be one. Raises JournalError if its file is damaged."""
        assert self._writer is not None and self._reader is not None  # noqa: S101, PT018 - there is a row
        self._writer.flush()
        offset, stored = self._reader.next()
        group = self._groups[self._group_of[self._sent]]
        self._sent += 1
        numbers = RowRanges()
        numbers.add(stored.number)
        rows = RowsFile(str(self._writer.path), 1, offset)
        return Part(
            number=self._new_number(),
            token=self._new_token(),
            group=group,
            rows=rows,
            ranges=numbers.ranges,
            size=len(stored.request),
            input_version=self._input_version,
        )

    def drop(self) -> None:
        """Forget the rows that wait."""
        self._sent = len(self._group_of)

    def close(self) -> None:
        """Close the files. Parts keep the file of rows: it is removed when the last one is over."""
        if self._writer is not None and self._reader is not None:
            self._writer.close()
            self._reader.close()
