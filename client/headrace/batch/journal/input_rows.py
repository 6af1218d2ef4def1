"""Takes the rows of the input into the journal of a batch job, and compares them with the rows that it knew. Memory is bounded."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import NoReturn

import msgspec

from headrace.batch.journal.job_records import RowRecord
from headrace.batch.journal.tables import CREATE_RECORDS, CREATE_ROW_INDEX, CREATE_ROWS
from headrace.batch.records.record_lines import error_code
from headrace.batch.row import BadRow, Row
from headrace.errors import ChangedInputError, DuplicateRowsError

_CHUNK = 1000
"""Rows that are taken in at once."""
_EXAMPLES = 5
_DUPLICATES = 10
_Known = tuple[int, str, bytes]
"""A row as the table has it: number, id, hash."""


class InputReadError(Exception):
    """The iterator of the input has raised ``error``."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Differences(msgspec.Struct, frozen=True):
    """How the rows of the input differ from the rows that the journal knew."""

    is_first: bool = False
    changed: int = 0
    new: int = 0
    missing: int = 0


class InputRows:
    """Takes in the rows, in a transaction. ``bad_row_line``: makes the record of a BadRow.

    The records of bad rows wait in a temporary table, until all rows are known.
    """

    def __init__(self, connection: sqlite3.Connection, bad_row_line: Callable[[BadRow], bytes]) -> None:
        self.bad = 0
        self._connection = connection
        self._bad_row_line = bad_row_line
        connection.execute(
            "CREATE TEMP TABLE IF NOT EXISTS bad (number INTEGER PRIMARY KEY, line BLOB NOT NULL, kind TEXT NOT NULL)"
        )
        connection.execute("DELETE FROM bad")

    def take_in(self, rows: Iterable[Row | BadRow]) -> bool:
        """Read all rows into the table ``rows``. Return whether the rows known before are in the table ``old_rows``.

        They are not if nothing has changed. Raises DuplicateRowsError, ValueError if a number is there twice.
        """
        chunks = self._chunks(rows)
        equal, rest = self._equal(chunks)
        if rest is None:
            return False
        execute = self._connection.execute
        execute("DROP INDEX row_ids")
        execute("DROP INDEX IF EXISTS row_hashes")
        execute("ALTER TABLE rows RENAME TO old_rows")
        execute(CREATE_ROWS)
        execute("INSERT INTO rows SELECT * FROM old_rows WHERE number <= ?", (equal,))
        self._insert(rest)
        for chunk in chunks:
            self._insert(chunk)
        try:
            execute(CREATE_ROW_INDEX)
        except sqlite3.IntegrityError:
            _raise_duplicates(self._connection)
        return True

    def bad_records(self) -> Iterator[list[RowRecord]]:
        """Iterate the records of bad rows that have none yet, in groups. They may be recorded meanwhile."""
        last = 0
        while chunk := self._connection.execute(
            "SELECT number, line, kind FROM bad WHERE number > ?"
            " AND NOT EXISTS (SELECT 1 FROM records WHERE records.number = bad.number) ORDER BY number LIMIT ?",
            (last, _CHUNK),
        ).fetchall():
            last = chunk[-1][0]
            yield [RowRecord(number, line, kind) for number, line, kind in chunk]

    def _chunks(self, rows: Iterable[Row | BadRow]) -> Iterator[list[_Known]]:
        source = iter(rows)
        while taken := _taken(source):
            bad = [row for row in taken if isinstance(row, BadRow)]
            if bad:
                self._keep(bad)
                yield [(row.number, row.id, _bad_hash(row) if isinstance(row, BadRow) else row.hash) for row in taken]
            else:
                yield [(row.number, row.id, row.hash) for row in taken]  # type: ignore[union-attr]

    def _keep(self, bad: list[BadRow]) -> None:
        self.bad += len(bad)
        values = [(row.number, self._bad_row_line(row), error_code(row)) for row in bad]
        self._connection.executemany("INSERT INTO bad VALUES (?, ?, ?)", values)

    def _equal(self, chunks: Iterator[list[_Known]]) -> tuple[int, list[_Known] | None]:
        """Read as long as all is as before. Return the last number, and the first chunk that differs, None if none does."""
        cursor = self._connection.execute("SELECT number, id, hash FROM rows ORDER BY number")
        last = 0
        try:
            for chunk in chunks:
                if cursor.fetchmany(len(chunk)) != chunk:
                    return last, chunk
                last = chunk[-1][0]
            return last, None if cursor.fetchone() is None else []
        finally:
            cursor.close()

    def _insert(self, chunk: list[_Known]) -> None:
        try:
            self._connection.executemany("INSERT INTO rows VALUES (?, ?, ?)", chunk)
        except sqlite3.IntegrityError:
            raise ValueError(f"rows {chunk[0][0]} to {chunk[-1][0]}: a number is there twice") from None


def differences(connection: sqlite3.Connection) -> Differences:
    """Compare the tables ``rows`` and ``old_rows`` by their ids."""
    before, now = connection.execute("SELECT (SELECT count(*) FROM old_rows), (SELECT count(*) FROM rows)").fetchone()
    if not before:
        return Differences(is_first=True)
    kept, changed = connection.execute(
        "SELECT count(*), coalesce(sum(rows.hash <> old_rows.hash), 0) FROM old_rows JOIN rows ON rows.id = old_rows.id"
    ).fetchone()
    return Differences(changed=changed, new=now - kept, missing=before - kept)


def raise_changed(
    connection: sqlite3.Connection, found: Differences, directory: str, settings: Mapping[str, tuple[str, str]]
) -> NoReturn:
    """Raise ChangedInputError, with the first rows that differ. ``settings``: name → value before, value now."""
    queries = {
        "changed": "SELECT rows.id, rows.number FROM old_rows JOIN rows ON rows.id = old_rows.id WHERE rows.hash <> old_rows.hash",
        "new": "SELECT id, number FROM rows WHERE id NOT IN (SELECT id FROM old_rows)",
        "missing": "SELECT id, number FROM old_rows WHERE id NOT IN (SELECT id FROM rows)",
    }
    counts = {"changed": found.changed, "new": found.new, "missing": found.missing}
    examples = tuple(
        (what, str(name), int(number))
        for what, query in queries.items()
        if counts[what]
        for name, number in connection.execute(f"{query} ORDER BY 2 LIMIT {_EXAMPLES}")
    )
    different = tuple((name, before, now) for name, (before, now) in settings.items())
    raise ChangedInputError(directory, found.changed, found.new, found.missing, examples, different)


def keep_records(connection: sqlite3.Connection) -> None:
    """Give the records the numbers that their rows have now, and remove the records of changed and missing rows."""
    connection.execute("ALTER TABLE records RENAME TO old_records")
    connection.execute(CREATE_RECORDS)
    connection.execute(
        "INSERT INTO records SELECT rows.number, file, offset, length, kind, cost, input_tokens, output_tokens"
        " FROM old_records JOIN old_rows ON old_rows.number = old_records.number"
        " JOIN rows ON rows.id = old_rows.id AND rows.hash = old_rows.hash ORDER BY rows.number"
    )
    connection.execute("DROP TABLE old_records")


def _taken(source: Iterator[Row | BadRow]) -> list[Row | BadRow]:
    try:
        return list(islice(source, _CHUNK))
    except Exception as error:
        raise InputReadError(error) from error


def _bad_hash(row: BadRow) -> bytes:
    return hashlib.blake2b(f"{row.argument}\n{row.problem}".encode(errors="backslashreplace"), digest_size=15).digest()


def _raise_duplicates(connection: sqlite3.Connection) -> NoReturn:
    connection.execute(
        "CREATE TEMP TABLE twice AS SELECT id, min(number) AS first FROM rows GROUP BY id HAVING count(*) > 1"
    )
    (count,) = connection.execute("SELECT count(*) FROM twice").fetchone()
    duplicates = []
    for (name,) in connection.execute("SELECT id FROM twice ORDER BY first LIMIT ?", (_DUPLICATES,)).fetchall():
        lines = connection.execute(
            "SELECT number FROM rows WHERE id = ? ORDER BY number LIMIT ?", (name, _DUPLICATES)
        ).fetchall()
        duplicates.append((str(name), tuple(int(number) for (number,) in lines)))
    raise DuplicateRowsError(count, tuple(duplicates)) from None
