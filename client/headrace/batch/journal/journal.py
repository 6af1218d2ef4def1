"""Journal: keeps which rows of a batch job are recorded, in SQLite, and appends the records to the job's files.

A record is first on the disk and then in the table. So a kill between the two leaves a record that the table does not know:
the next start takes it over. The table never knows a record that the disk does not have.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from time import time
from types import TracebackType
from typing import Self

import msgspec

from headrace.batch.journal.figures import count_activity, count_errors, count_totals
from headrace.batch.journal.input_rows import (
    Differences,
    InputReadError,
    InputRows,
    differences,
    keep_records,
    raise_changed,
)
from headrace.batch.journal.job_files import JOURNAL, JobFiles
from headrace.batch.journal.job_records import ChosenRows, JobTotals, RowRecord, ScanResult, StoredRecord
from headrace.batch.journal.opening import CHOSEN, FACT, STARTED_AT, JobOptions, OpenedJob, open_job
from headrace.batch.journal.output_writing import write_output
from headrace.batch.journal.record_file import NewFile
from headrace.batch.journal.rewriting import finish_rewriting, known_lengths, write_kept
from headrace.batch.journal.tables import BOTH_FILES, ERRORS_FILE, PUT, RESULTS_FILE, is_own_table
from headrace.batch.row import BadRow, Row
from headrace.errors import JournalError, RecordWriteError

_INPUT_VERSION = "input_version"
_CHUNK = 1000
_INSERT = (
    "INSERT INTO records SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE EXISTS (SELECT 1 FROM rows WHERE number = ?1)"
)
_STORED = (
    "SELECT records.number, rows.id, records.file, records.offset, records.length"
    " FROM records JOIN rows ON rows.number = records.number"
)


class Journal:
    """The journal of one job, open and locked. Used by one thread at a time.

    The order of work: :meth:`open`, :meth:`scan`, then :meth:`waiting_numbers` and :meth:`record` until no row waits,
    :meth:`finish`, :meth:`close`. A kill at any moment is harmless: the next start goes on.
    """

    def __init__(self, job: OpenedJob) -> None:
        """Take an opened job. Programs use :meth:`open`."""
        self.files = job.files
        self._job = job
        self._connection = job.connection
        self._totals: JobTotals | None = None
        self._is_writing = False
        self._failure: BaseException | None = None
        self._unwritten: list[RowRecord] = []
        """The records of the open transaction."""
        self._is_broken = False
        self._has_hash_index = False
        self._is_new_start = job.options.force

    @classmethod
    def open(
        cls,
        files: JobFiles,
        *,
        source: str | os.PathLike[str] | None = None,
        settings: Mapping[str, str] | None = None,
        changed: bool = False,
        force: bool = False,
        retry_failed: bool = False,
    ) -> Self:
        """Open or make the journal of a job, lock it, and repair what a killed process left.

        ``source``: the file of rows, which is refused as an output, with ``force`` too; None if the rows are in no file.
        ``settings``: what the job was asked for, as names and values for people (input, model, template); no keys. They
        only explain a change. ``changed``: if the input is not as before, run the changed and new rows, and remove the
        records of changed and missing rows. ``force``: begin anew; the old records are removed by :meth:`scan`, as soon
        as the new input is known to be good. ``retry_failed``: rows that failed wait again; their records are removed by
        :meth:`scan`.

        Raises JobLockedError, OutputConflictError (an output that is the input, or not this job's), JournalError, and
        ConfigurationError if a library for the output is missing.
        """
        options = JobOptions(dict(settings or {}), changed=changed, force=force, retry_failed=retry_failed)
        return cls(open_job(files, options, time(), source))

    def scan(self, rows: Iterable[Row | BadRow], bad_row_line: Callable[[BadRow], bytes]) -> ScanResult:
        """Take in all rows of the input, in order, and compare them with the rows that the journal knows.

        Memory is bounded for any number of rows. ``bad_row_line``: makes the record of a BadRow. A BadRow that has no
        record is recorded as failed at once, after all rows are known. Rows that have only moved are not changed.

        Raises DuplicateRowsError, ChangedInputError, RecordWriteError, JournalError: then the journal is as before.
        What ``rows`` raises is raised, and the journal is as before.
        """
        self._has_hash_index = False
        source = InputRows(self._connection, bad_row_line)
        new_files: list[NewFile] = []
        try:
            with self._explained(), self.transaction():
                if self._is_new_start:
                    self._forget_all()
                found = self._compared(source.take_in(rows))
                if self._job.options.retry_failed:
                    self._connection.execute("DELETE FROM records WHERE file = ?", (ERRORS_FILE,))
                new_files = self._rewritten()
                self._job.keep_names()
        except BaseException as error:
            for file in new_files:
                file.discard()
            if isinstance(error, InputReadError):
                raise error.error from None
            raise
        self._settle_files()
        self._is_new_start = False
        for group in source.bad_records():
            self.record(group)
        return ScanResult(
            self.totals(), found.is_first, source.bad, found.changed, found.new, found.missing, self._job.adopted
        )

    def waiting_numbers(self) -> Iterator[int]:
        """Iterate the numbers of the rows without a record, in order. Rows may be recorded meanwhile. Memory is bounded."""
        return self._each_number(
            "SELECT number FROM rows WHERE number > ?"
            " AND NOT EXISTS (SELECT 1 FROM records WHERE records.number = rows.number) ORDER BY number LIMIT ?"
        )

    def numbers(self) -> Iterator[int]:
        """Iterate the numbers of all rows, in order. Memory is bounded."""
        return self._each_number("SELECT number FROM rows WHERE number > ? ORDER BY number LIMIT ?")

    def failed_numbers(self) -> Iterator[int]:
        """Iterate the numbers of the rows whose record is a failure, in order. Memory is bounded."""
        return self._each_number(
            "SELECT number FROM records WHERE file = ? AND number > ? ORDER BY number LIMIT ?", ERRORS_FILE
        )

    def _each_number(self, query: str, *values: int) -> Iterator[int]:
        """Iterate the numbers that ``query`` finds. After ``values`` it takes the last number before, and how many to find."""
        last = 0
        while chunk := self._connection.execute(query, (*values, last, _CHUNK)).fetchall():
            last = chunk[-1][0]
            for (number,) in chunk:
                yield number

    def done_with_hash(self, row_hash: bytes) -> int | None:
        """Return the number of a row with this hash whose record is a success, None if there is none.

        The first call makes an index, so that a job without it pays nothing.
        """
        if not self._has_hash_index:
            with self._explained():
                self._connection.execute("CREATE INDEX IF NOT EXISTS row_hashes ON rows (hash)")
            self._has_hash_index = True
        found = self._connection.execute(
            "SELECT rows.number FROM rows JOIN records ON records.number = rows.number"
            " WHERE rows.hash = ? AND records.file = ? LIMIT 1",
            (row_hash, RESULTS_FILE),
        ).fetchone()
        return None if found is None else int(found[0])

    def record(self, records: Sequence[RowRecord]) -> None:
        """Write the final records of rows: when this returns, they are on the disk, and the rows count as done.

        One call for many rows costs little more than one for a single row. Raises RecordWriteError, for example if the
        disk is full: then no row of this call counts as done, the files are as before, and the call may be repeated.
        Raises ValueError if a row has a record already, or is not known.
        """
        if not records:
            return
        if self._is_writing:
            self._append_in_block(records)
            return
        with self.transaction():
            self._append_in_block(records)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Return a context in which several changes become one: all of them are on the disk after it, or none.

        The context's value is the connection, with a transaction begun. :meth:`record` may be called inside. Tables of
        other modules may be made and changed with it; ``tables.OWN_TABLES`` has the names that are taken. Such tables
        should have the ids of rows: a row's number may change with the input. ``force`` removes these tables. If the
        block raises, the tables and the files are as before. Contexts may not be nested.
        """
        self._check_usable()
        if self._is_writing:
            raise RuntimeError("a transaction of this journal is open already")
        lengths = {number: file.length for number, file in self._job.record_files.items()}
        self._is_writing, self._failure = True, None
        self._unwritten = []
        try:
            with self._explained():
                self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._commit()
        except BaseException:
            self._undo(lengths)
            raise
        finally:
            self._is_writing, self._failure = False, None
            self._unwritten = []

    def input_version(self) -> int:
        """Return a number that grows with each scan that changed the rows: also if they have only got other numbers.

        Tables of other modules with numbers of rows hold for the version that they were written with.
        """
        found = self._connection.execute("SELECT value FROM job WHERE key = ?", (_INPUT_VERSION,)).fetchone()
        return 0 if found is None else int(found[0])

    def totals(self) -> JobTotals:
        """Return the figures of the job. Counted once; cheap afterwards."""
        if self._totals is None:
            self._totals = count_totals(self._connection)
        return self._totals

    def errors_by_kind(self, numbers: Container[int] | None = None) -> dict[str, int]:
        """Return kind of error → how many rows have it as their record, the most frequent first.

        ``numbers``: count only these rows; None: all.
        """
        return count_errors(self._connection, numbers)

    def stored(self) -> Iterator[StoredRecord]:
        """Iterate all records, in the order of the rows. Rows may be recorded meanwhile. Memory is bounded."""
        last = 0
        while chunk := self._connection.execute(
            f"{_STORED} WHERE records.number > ? ORDER BY records.number LIMIT ?", (last, _CHUNK)
        ).fetchall():
            last = chunk[-1][0]
            for found in chunk:
                yield self._read(*found)

    def stored_record(self, number: int) -> StoredRecord | None:
        """Return the record of a row, None if it has none."""
        found = self._connection.execute(f"{_STORED} WHERE records.number = ?", (number,)).fetchone()
        return None if found is None else self._read(*found)

    def number_of(self, row_id: str) -> int | None:
        """Return the number that the row with this id has now, None if there is no such row."""
        found = self._connection.execute("SELECT number FROM rows WHERE id = ?", (row_id,)).fetchone()
        return None if found is None else int(found[0])

    def fact(self, key: str) -> str | None:
        """Return a text that :meth:`set_fact` has kept, None if there is none."""
        found = self._connection.execute("SELECT value FROM job WHERE key = ?", (FACT + key,)).fetchone()
        return None if found is None else str(found[0])

    def set_fact(self, key: str, value: str) -> None:
        """Keep a text with the job, such as the job's id. ``force`` removes it."""
        with self._explained():
            self._connection.execute(PUT, (FACT + key, value))

    def keep_chosen(self, chosen: ChosenRows | None) -> None:
        """Keep which rows this start runs, for the status. None: all. Raises RecordWriteError."""
        value = "" if chosen is None else msgspec.json.encode(chosen).decode()
        if value != (self.fact(CHOSEN) or ""):
            self.set_fact(CHOSEN, value)

    def finish(self) -> None:
        """Write the output from the records if it is a file of its own (ordered or compressed). It appears whole, or not at all.

        May be called at each end of a job, also if rows still wait. Raises RecordWriteError.
        """
        if self.files.output is None:
            return
        results = self._job.record_files[RESULTS_FILE]
        try:
            write_output(self._connection, results, self.files.output, is_ordered=self.files.is_ordered)
        except (OSError, sqlite3.Error) as error:
            raise RecordWriteError(str(self.files.output), _reason(error)) from error

    def close(self) -> None:
        """Close the files and give up the lock. Removes the file of errors if it is empty. May be called twice."""
        self._job.close()

    def __enter__(self) -> Self:
        """Return the journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the journal."""
        self.close()

    def results_since(self, position: int) -> Iterator[bytes]:
        """Iterate the bytes of the records of successes that were written behind ``position``, in the order of writing."""
        results = self._job.record_files[RESULTS_FILE]
        return results.pieces(position, results.length)

    def results_in_order(self, after: int, *, is_last: bool) -> Iterator[tuple[int, bytes]]:
        """Iterate the successes of the rows behind the number ``after``, up to the first row without a record.

        Yields the number of each row with a record, and the line; an empty line for a failure. ``is_last``: rows without
        a record are passed over.
        """
        results = self._job.record_files[RESULTS_FILE]
        while chunk := self._connection.execute(
            "SELECT rows.number, file, offset, length FROM rows LEFT JOIN records ON records.number = rows.number"
            " WHERE rows.number > ? ORDER BY rows.number LIMIT ?",
            (after, _CHUNK),
        ).fetchall():
            for number, file, offset, length in chunk:
                if file is None and not is_last:
                    return
                yield number, results.read(offset, length) if file == RESULTS_FILE else b""
                after = number

    def _compared(self, has_old_rows: bool) -> Differences:
        """Compare the rows with the rows before, and keep the records that still hold."""
        if not has_old_rows:
            return Differences(is_first=self._is_new_start)
        found = differences(self._connection)
        if (found.changed or found.new or found.missing) and not self._job.options.changed:
            raise_changed(self._connection, found, str(self.files.directory), self._job.changed_settings())
        if not found.is_first:
            keep_records(self._connection)
        self._connection.execute("DROP TABLE old_rows")
        self._connection.execute(PUT, (_INPUT_VERSION, str(self.input_version() + 1)))
        return found

    def _forget_all(self) -> None:
        tables = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:
            if not is_own_table(name):
                self._connection.execute(f'DROP TABLE "{name}"')
        self._connection.execute("DELETE FROM rows")
        self._connection.execute("DELETE FROM records")
        self._connection.execute("DELETE FROM activity")
        self._connection.execute("DELETE FROM job WHERE key NOT IN (?, ?)", (STARTED_AT, _INPUT_VERSION))

    def _rewritten(self) -> list[NewFile]:
        """Write new files where the table has fewer records than a file."""
        found = self._connection.execute("SELECT file, sum(length) FROM records GROUP BY file")
        kept = {int(file): int(length) for file, length in found}
        files = self._job.record_files
        return [
            write_kept(self._connection, number, files[number])
            for number in BOTH_FILES
            if files[number].size != kept.get(number, 0)
        ]

    def _settle_files(self) -> None:
        self._totals = None
        try:
            with self._explained():
                finish_rewriting(self._connection, self._job.record_files)
        except BaseException:
            self._is_broken = True
            raise

    def _commit(self) -> None:
        if self._failure is not None:
            raise self._failure
        with self._explained():
            self._connection.execute("COMMIT")

    def _append_in_block(self, records: Sequence[RowRecord]) -> None:
        try:
            with self._explained():
                self._append(records)
        except BaseException as error:
            self._failure = error  # a block that goes on must not keep a part of this
            raise

    def _append(self, records: Sequence[RowRecord]) -> None:
        self._unwritten += records
        files = self._job.record_files
        ends = [files[number].length for number in BOTH_FILES]
        lines: tuple[list[bytes], list[bytes]] = ([], [])
        values = []
        for record in records:
            line, kind = record.line, record.error_kind
            file = ERRORS_FILE if kind else RESULTS_FILE
            size = len(line)
            values.append(
                (
                    record.number,
                    file,
                    ends[file],
                    size,
                    kind or None,
                    record.cost,
                    record.input_tokens,
                    record.output_tokens,
                )
            )
            ends[file] += size
            lines[file].append(line)
        try:
            inserted = self._connection.executemany(_INSERT, values).rowcount
        except sqlite3.IntegrityError:
            raise ValueError(f"one of the rows {_numbers(records)} has a record already") from None
        if inserted != len(values):
            raise ValueError(f"one of the rows {_numbers(records)} is not known")
        for number in BOTH_FILES:
            if lines[number]:
                files[number].append(lines[number])
                files[number].sync()
                self._connection.execute("UPDATE files SET length = ? WHERE file = ?", (ends[number], number))
        count_activity(self._connection, len(records), time())
        self._count(records, len(lines[ERRORS_FILE]))

    def _count(self, records: Sequence[RowRecord], failed: int) -> None:
        if (before := self._totals) is None:
            return
        self._totals = JobTotals(
            before.rows,
            before.done + len(records) - failed,
            before.failed + failed,
            before.cost + sum([record.cost for record in records]),
            before.input_tokens + sum([record.input_tokens for record in records]),
            before.output_tokens + sum([record.output_tokens for record in records]),
        )

    def _undo(self, lengths: Mapping[int, int]) -> None:
        """End a transaction that failed, and cut the files back, unless it was committed in its last instant."""
        self._totals = None
        files = self._job.record_files
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            elif known_lengths(self._connection) == {number: file.length for number, file in files.items()}:
                return
            for number, length in lengths.items():
                files[number].cut(length)
        except (OSError, sqlite3.Error):
            self._is_broken = True

    def _read(self, number: int, name: str, file: int, offset: int, length: int) -> StoredRecord:
        line = self._job.record_files[file].read(offset, length)
        return StoredRecord(number, name, line, is_failure=file == ERRORS_FILE)

    def _check_usable(self) -> None:
        if self._is_broken:
            reason = "an error left it in the middle of a change; start the job again, which repairs it"
            raise JournalError(str(self.files.directory), reason)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error of the disk or of SQLite into RecordWriteError."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            path = getattr(error, "filename", None) or self.files.directory / JOURNAL
            missing = sum(len(record.line) for record in self._unwritten)
            raise RecordWriteError(os.fspath(path), _reason(error), len(self._unwritten), missing) from error


def _reason(error: OSError | sqlite3.Error) -> str:
    if isinstance(error, sqlite3.Error):
        return f"SQLite says: {error}"
    return error.strerror or str(error)


def _numbers(records: Sequence[RowRecord]) -> str:
    numbers = [record.number for record in records]
    return f"{min(numbers)} to {max(numbers)}"
