"""Journal: keeps which rows of a batch job are recorded, in SQLite, and appends the records to the job's files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from headrace.batch.journal.job_files import JobFiles
from headrace.batch.journal.job_records import JobTotals, RowRecord, ScanResult, StoredRecord
from headrace.batch.row import BadRow, Row


class Journal:
    """The journal of one job, open and locked. Used by one thread at a time.

    The order of work: :meth:`open`, :meth:`scan`, then :meth:`waiting_numbers` and :meth:`record` until no row waits,
    :meth:`finish`, :meth:`close`. A kill at any moment is harmless: the next start goes on.
    """

    files: JobFiles

    @classmethod
    def open(
        cls,
        files: JobFiles,
        *,
        settings: Mapping[str, str] | None = None,
        changed: bool = False,
        force: bool = False,
        retry_failed: bool = False,
    ) -> Journal:
        """Open or make the journal of a job, lock it, and repair what a killed process left.

        ``settings``: what the job was asked for, as names and values for people (input, model, template); no keys. They
        only explain a change. ``changed``: if the input is not as before, run the changed and new rows, and remove the
        records of changed and missing rows. ``force``: begin anew; the old records are removed by :meth:`scan`, as soon
        as the new input is known to be good. ``retry_failed``: rows that failed wait again.

        Raises JobLockedError, OutputConflictError (an output that is not this job's), JournalError.
        """
        raise NotImplementedError

    def scan(self, rows: Iterable[Row | BadRow], bad_row_line: Callable[[BadRow], bytes]) -> ScanResult:
        """Take in all rows of the input, in order, and compare them with the rows that the journal knows.

        Memory is bounded for any number of rows. ``bad_row_line``: makes the record of a BadRow. A BadRow that has no
        record is recorded as failed at once, after all rows are known.

        Raises DuplicateRowsError, ChangedInputError, RecordWriteError, JournalError: then the journal is as before.
        What ``rows`` raises is raised, and the journal is as before.
        """
        raise NotImplementedError

    def waiting_numbers(self) -> Iterator[int]:
        """Iterate the numbers of the rows without a record, in order. Rows may be recorded meanwhile. Memory is bounded."""
        raise NotImplementedError

    def numbers(self) -> Iterator[int]:
        """Iterate the numbers of all rows, in order. Memory is bounded."""
        raise NotImplementedError

    def done_with_hash(self, row_hash: bytes) -> int | None:
        """Return the number of a row with this hash whose record is a success, None if there is none.

        The first call makes an index, so that a job without it pays nothing.
        """
        raise NotImplementedError

    def record(self, records: Sequence[RowRecord]) -> None:
        """Write the final records of rows: when this returns, they are on the disk, and the rows count as done.

        One call for many rows costs little more than one for a single row. Raises RecordWriteError, for example if the
        disk is full: then no row of this call counts as done, the files are as before, and the call may be repeated.
        Raises ValueError if a row has a record already, or is not known.
        """
        raise NotImplementedError

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Return a context in which several changes become one: all of them are kept, or none.

        The context's value is the connection, with a transaction begun. :meth:`record` may be called inside. Tables of
        other modules may be made and changed with it; they must not be named ``job``, ``rows``, ``records`` or
        ``activity``. If the block raises, the tables and the files are as before. Contexts may not be nested.
        """
        raise NotImplementedError

    def totals(self) -> JobTotals:
        """Return the figures of the job. Counted once; cheap afterwards."""
        raise NotImplementedError

    def errors_by_kind(self) -> dict[str, int]:
        """Return kind of error → how many rows have it as their record."""
        raise NotImplementedError

    def stored(self, *, is_ordered: bool = False) -> Iterator[StoredRecord]:
        """Iterate all records: in the order in which they were written, or ``is_ordered`` in the order of the rows."""
        raise NotImplementedError

    def stored_record(self, number: int) -> StoredRecord | None:
        """Return the record of a row, None if it has none."""
        raise NotImplementedError

    def fact(self, key: str) -> str | None:
        """Return a text that :meth:`set_fact` has kept, None if there is none."""
        raise NotImplementedError

    def set_fact(self, key: str, value: str) -> None:
        """Keep a text with the job, such as the job's id."""
        raise NotImplementedError

    def finish(self) -> None:
        """Write the output from the records if it is a file of its own (ordered or compressed). It appears whole, or not at all.

        May be called at each end of a job, also if rows still wait. Raises RecordWriteError.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close the files and give up the lock. May be called twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the journal."""
        self.close()
