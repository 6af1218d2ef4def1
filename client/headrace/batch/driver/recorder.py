"""Recorder: makes the records of ended rows durable, many at a time, before the rows count as done."""

from __future__ import annotations

import time

import msgspec

from headrace.batch.driver.answer_cache import Answer, AnswerCache
from headrace.batch.driver.job_counts import JobCounts
from headrace.batch.driver.known_answers import Origin
from headrace.batch.journal.job_records import RowRecord
from headrace.batch.journal.journal import Journal
from headrace.batch.records.record_lines import error_code, failure_line, success_line
from headrace.batch.row import BadRow, FinishedRow
from headrace.errors import ConfigurationError, HeadraceError, OutputValidationError, RecordWriteError
from headrace.types import Usage

COMMIT_AFTER = 0.2
"""Seconds that a record waits for others at most."""
COMMIT_ROWS = 512
"""Records that become durable together, about."""
_WRITE_AGAIN = 1.0
"""Seconds between two tries to write to a disk that was full."""


class EndedRow(msgspec.Struct, frozen=True):
    """A row of a job that has ended and is recorded. ``finished``: its result, or the BadRow that could not be run."""

    finished: FinishedRow | BadRow
    origin: Origin = "run"

    @property
    def number(self) -> int:
        """The row's number."""
        finished = self.finished
        return finished.number if isinstance(finished, BadRow) else finished.row.number


class Recorder:
    """The rows that have ended and are not recorded yet.

    ``journal`` None: nothing is kept, and each row counts as done at once. ``cache_error``: why answers are no longer put
    into ``cache``; the rows are recorded all the same.
    """

    def __init__(self, counts: JobCounts, journal: Journal | None, cache: AnswerCache | None) -> None:
        self._counts = counts
        self._journal = journal
        self._cache = cache
        self.cache_error: ConfigurationError | None = None
        self._rows: list[tuple[EndedRow, str]] = []
        self._numbers: set[int] = set()
        self._records: list[RowRecord] = []
        self._answers: list[tuple[bytes, Answer]] = []
        self._due = 0.0
        self._is_blocked = False
        """Whether the last try to write has failed."""

    def __len__(self) -> int:
        return len(self._rows)

    def has(self, number: int) -> bool:
        """Return whether a row is among them."""
        return number in self._numbers

    def add(self, finished: FinishedRow | BadRow, origin: Origin, now: float) -> None:
        """Take a row that has ended. ``now``: on the monotonic clock."""
        if not self._rows:
            self._due = now + COMMIT_AFTER
        result = None if isinstance(finished, BadRow) else finished.result
        if isinstance(finished, BadRow):
            code = error_code(finished)
        elif isinstance(result, HeadraceError):
            code = error_code(result)
        else:
            code = ""
            if self._cache is not None and result is not None and origin != "cache":
                self._answers.append((finished.row.hash, result))
        ended = EndedRow(finished, origin)
        self._rows.append((ended, code))
        self._numbers.add(ended.number)
        if self._journal is not None:
            self._records.append(_record(finished, code, origin))

    def is_due(self, now: float) -> bool:
        """Whether the records should be written now."""
        if not self._rows:
            return False
        if self._journal is None or now >= self._due:
            return True
        return len(self._rows) >= COMMIT_ROWS and not self._is_blocked

    def time_left(self, now: float, most: float) -> float:
        """Return the seconds until the records should be written, at most ``most``."""
        return max(0.0, min(self._due - now, most)) if self._rows else most

    def write(self, now: float) -> list[EndedRow]:
        """Make all records durable, and return their rows. Raises RecordWriteError: then they are kept for another try."""
        if self._journal is not None and self._records:
            try:
                self._journal.record(self._records)
            except RecordWriteError:
                self._due = now + _WRITE_AGAIN
                self._is_blocked = True
                raise
            self._is_blocked = False
        if self._cache is not None and self.cache_error is None:
            try:
                self._cache.add(self._answers)
            except ConfigurationError as error:
                self.cache_error = error
        self._answers = []
        rows, self._rows, self._records = self._rows, [], []
        self._numbers.clear()
        ended = self._counts.ended
        for row, code in rows:
            ended(row.origin, code)
        return [row for row, _ in rows]


def _record(finished: FinishedRow | BadRow, code: str, origin: Origin) -> RowRecord:
    if isinstance(finished, BadRow):
        return RowRecord(finished.number, failure_line(finished), code)
    result = finished.result
    number = finished.row.number
    if isinstance(result, HeadraceError):
        line = failure_line(finished.row, result)
        if isinstance(result, OutputValidationError) and origin == "run":
            used = result.usage or Usage()
            return RowRecord(number, line, code, result.cost or 0.0, used.input_tokens, used.output_tokens)
        return RowRecord(number, line, code)
    line = success_line(finished, time.time())
    if origin != "run":
        return RowRecord(number, line)  # no tokens were used
    usage = result.usage
    return RowRecord(number, line, "", result.cost or 0.0, usage.input_tokens, usage.output_tokens)
