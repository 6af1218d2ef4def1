"""PartMerge: hands out the rows of a part that has ended: asks for their answers to be read, and finds those that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import msgspec

from headrace.batch.provider_batches.moved_rows import MovedRows
from headrace.batch.provider_batches.part import Part
from headrace.batch.provider_batches.row_files import rows_of
from headrace.batch.provider_batches.row_results import span_id_of, unanswered
from headrace.wire.batch_frames import StoredRow
from headrace.wire.batch_messages import ProviderAnswer, RowToRead
from headrace.wire.run_messages import Failed

_MOST_BYTES = 4 * 1024 * 1024
"""Bytes of answers that are read together."""


class Answers(Protocol):
    """The answers of a part."""

    def of(self, number: int) -> list[ProviderAnswer]:
        """Return the answers to a row."""

    def close(self) -> None:
        """Give up what they need."""


class AnswersOfPart:
    """Answers that are in memory: those of a background run, or none."""

    def __init__(self, answers: Mapping[int, list[ProviderAnswer]]) -> None:
        self._answers = answers

    def of(self, number: int) -> list[ProviderAnswer]:
        """Return the answers to a row."""
        return self._answers.get(number, [])

    def close(self) -> None:
        """Do nothing."""


class MergeGroup(msgspec.Struct, frozen=True):
    """The next rows of a part: those with answers to be read, those that failed, and those that are given back."""

    to_read: list[tuple[StoredRow, RowToRead]]
    failed: list[tuple[StoredRow, Failed]]
    given_back: list[StoredRow]


class PartMerge:
    """The rows of one part, group by group. ``left``: how many are not handed out yet; 0 after :attr:`is_over`.

    ``failed``: why there are no answers, None if they were fetched. ``is_wanted``: whether a row has no record yet.
    ``unrecorded``: numbers of rows that were handed out, and are not recorded.
    """

    def __init__(
        self,
        part: Part,
        answers: Answers,
        failed: Failed | None,
        is_wanted: Callable[[int], bool],
        moved: MovedRows,
    ) -> None:
        self.part = part
        self.left = part.row_count
        self.is_over = False
        self.unrecorded: set[int] = set()
        self._answers = answers
        self._failed = failed
        self._is_wanted = is_wanted
        self._moved = moved
        self._rows: Iterator[StoredRow] = rows_of(part)

    def next(self, count: int) -> MergeGroup:
        """Return a group of so many rows at most. Raises JournalError if the rows of the part are gone."""
        group = MergeGroup([], [], [])
        size = 0
        while count > 0 and size < _MOST_BYTES:
            stored = next(self._rows, None)
            if stored is None:
                self._end()
                break
            self.left -= 1
            now = self._moved.now(self.part, stored)
            if not now.number or not self._is_wanted(now.number):
                continue
            count -= 1
            size += self._add(stored, now, group)
        return group

    def _add(self, sent: StoredRow, stored: StoredRow, group: MergeGroup) -> int:
        """Add a row. ``sent``: as it was sent; ``stored``: with its number of now."""
        part = self.part
        answers = self._answers.of(sent.number)
        outcome = next((answer.outcome for answer in answers if answer.outcome != "answered"), "")
        if answers and not outcome:
            row = RowToRead(stored.number, span_id_of(part, sent.number), stored.request, answers)
            self.unrecorded.add(stored.number)
            group.to_read.append((stored, row))
            return sum(len(answer.body) for answer in answers) + len(stored.request)
        if part.is_cancelled and (outcome == "cancelled" or (not outcome and self._failed is None)):
            group.given_back.append(stored)
            return 0
        self.unrecorded.add(stored.number)
        group.failed.append((stored, self._failed or unanswered(part, outcome or part.end)))
        return 0

    def _end(self) -> None:
        self.is_over = True
        self.left = 0
        self._answers.close()
