"""Reads the results of a batch job from Python back from its journal, and brings all results into the order of the input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from headrace.batch.driver.options import BatchOptions
from headrace.batch.driver.recorder import EndedRow
from headrace.batch.driver.selection import Selection
from headrace.batch.from_python.batch_result import BatchResult, ResultOrigin
from headrace.batch.journal.job_records import StoredRecord
from headrace.batch.journal.journal import Journal
from headrace.batch.records.record_reading import read_result
from headrace.batch.row import BadRow
from headrace.errors import HeadraceError, InvalidRequestError
from headrace.runs.typed_answer import with_parsed
from headrace.types import RunEmbeddingResult, RunLocalResult

GROUP = 256
"""Results that are passed on together."""
MOST_KEPT = 4096
"""Results in memory that wait for an earlier row. Further ones are read back from the journal."""


class RecordedResults:
    """Results that are in the journal. ``options``: of the job, whose ``response_type`` reads the answers."""

    def __init__(self, journal: Journal, options: BatchOptions) -> None:
        self._journal = journal
        self._response_type = options.response_type

    def all_in(self, selection: Selection) -> Iterator[list[BatchResult[Any]]]:
        """Yield all of the selection in groups, in the order of the input. To be exhausted before the job records more."""
        found: list[BatchResult[Any]] = []
        for stored in self._journal.stored():
            if stored.number in selection:
                found.append(self._result(stored))
                if len(found) == GROUP:
                    yield found
                    found = []
        yield found

    def numbers(self, selection: Selection) -> Iterator[int]:
        """Iterate the numbers of the rows of the selection, in order, with a record or without."""
        return selection.among(self._journal.numbers())

    def of(self, number: int) -> BatchResult[Any] | None:
        """Return the result of a row, None if it has no record."""
        stored = self._journal.stored_record(number)
        return None if stored is None else self._result(stored)

    def _result(self, stored: StoredRecord) -> BatchResult[Any]:
        result: Any = read_result(stored.line)
        if self._response_type is not None and isinstance(result, RunLocalResult):
            result = with_parsed(result, self._response_type)
        return _made(stored.id, stored.number, result, "journal")


class ResultsInOrder:
    """The results of a job with a journal in the order of the input: those of earlier starts, and those of this one.

    ``add`` takes the rows of this start, in any order, after they are recorded. ``next_group`` never waits. Memory is
    bounded: see MOST_KEPT.
    """

    def __init__(self, recorded: RecordedResults, selection: Selection) -> None:
        self._recorded = recorded
        self._numbers = recorded.numbers(selection)
        self._next = next(self._numbers, None)
        self._kept: dict[int, EndedRow] = {}

    def add(self, rows: list[EndedRow]) -> None:
        """Take rows that are recorded."""
        for row in rows:
            is_passed = self._next is None or row.number < self._next
            if not is_passed and len(self._kept) < MOST_KEPT:
                self._kept[row.number] = row

    def next_group(self, *, is_last: bool = False) -> list[BatchResult[Any]]:
        """Return the next results, up to the first row that has not ended; an empty list if there are none.

        ``is_last``: no further rows end, so rows without a record are left out.
        """
        found: list[BatchResult[Any]] = []
        while self._next is not None and len(found) < GROUP:
            kept = self._kept.pop(self._next, None)
            result = self._recorded.of(self._next) if kept is None else result_of(kept)
            if result is not None:
                found.append(result)
            elif not is_last:
                break
            self._next = next(self._numbers, None)
        return found


def result_of(row: EndedRow) -> BatchResult[Any]:
    """Return the result of a row that has ended now."""
    finished = row.finished
    if isinstance(finished, BadRow):
        error = InvalidRequestError(finished.problem, finished.argument)
        return BatchResult(id=finished.id, number=finished.number, error=error)
    return _made(finished.row.id, finished.row.number, finished.result, row.origin)


def _made(name: str, number: int, result: object, origin: ResultOrigin) -> BatchResult[Any]:
    if isinstance(result, HeadraceError):
        return BatchResult(id=name, number=number, error=result, origin=origin)
    known = cast("RunLocalResult[Any] | RunEmbeddingResult", result)
    return BatchResult(id=name, number=number, result=known, origin=origin)
