"""Repairs the files of a batch job that was killed: takes over whole records that the journal does not know, and removes a torn end."""

from __future__ import annotations

import sqlite3

from headrace.batch.journal.record_file import RecordFile
from headrace.batch.journal.rewriting import known_lengths
from headrace.batch.journal.tables import ERRORS_FILE
from headrace.batch.records.record_reading import read_head
from headrace.errors import OutputConflictError

INSERT_RECORD = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


_ADVICE = "Put the file back as the job left it; or run all rows again, with --force (force=True)"
NOT_OF_A_JOB = (
    "there is such a file already, and no journal of a job that made it; choose another output, or overwrite it with "
    "--force (force=True)"
)
"""Why a file that exists cannot be an output."""
_UNKNOWN_KIND = "unknown"


def check_fit(connection: sqlite3.Connection, files: dict[int, RecordFile], *, may_lack: bool) -> None:
    """Check that the files have at least the records that the journal knows.

    ``may_lack``: records that are gone are forgotten instead, so that their rows run again. Needs a transaction then.
    Raises OutputConflictError, OSError, sqlite3.Error.
    """
    (is_new,) = connection.execute("SELECT NOT EXISTS (SELECT 1 FROM rows)").fetchone()
    for number, length in known_lengths(connection).items():
        file = files[number]
        if file.size < length and may_lack:
            _forget_behind(connection, number, file)
        elif file.size < length:
            reason = (
                f"it has {file.size} bytes, and the journal knows records up to byte {length}. Put the file back; or run "
                "the rows again that are gone, with --changed (changed=True); or run all rows again, with --force (force=True)"
            )
            raise OutputConflictError(str(file.path), reason)
        elif is_new and file.size:
            raise OutputConflictError(str(file.path), NOT_OF_A_JOB)
        elif length and file.read(length - 1, 1) != b"\n":
            raise OutputConflictError(str(file.path), f"it was changed: no record ends at byte {length}. {_ADVICE}")


def adopt(connection: sqlite3.Connection, files: dict[int, RecordFile]) -> int:
    """Take over the records behind the last one that the journal knows, remove a torn end, and return how many were taken.

    Needs a transaction. Raises OutputConflictError, OSError, sqlite3.Error.
    """
    lengths = known_lengths(connection)
    found = {number: _whole_records(connection, number, files[number], lengths[number]) for number in files}
    for number, records in found.items():
        connection.executemany(INSERT_RECORD, records)
        _end_after(files[number], lengths[number] + sum(record[3] for record in records))
        connection.execute("UPDATE files SET length = ? WHERE file = ?", (files[number].length, number))
    return sum(map(len, found.values()))


def _whole_records(
    connection: sqlite3.Connection, number: int, file: RecordFile, start: int
) -> list[tuple[int, int, int, int, str | None, float, int, int]]:
    """Return the records behind ``start`` as rows of the table. A record that lacks only its newline is whole."""
    found = []
    seen = set()
    for line in file.lines(start):
        head = read_head(line)
        if head is None:
            break
        row = _waiting_row(connection, head.id)
        if row is None or row in seen:
            reason = f"it has a record of the row {head.id!r} that this job has not written. {_ADVICE}"
            raise OutputConflictError(str(file.path), reason)
        seen.add(row)
        size = len(line) + (not line.endswith(b"\n"))
        kind = (head.error_code or _UNKNOWN_KIND) if number == ERRORS_FILE else None
        found.append((row, number, start, size, kind, head.cost or 0.0, head.input_tokens, head.output_tokens))
        start += size
    return found


def _waiting_row(connection: sqlite3.Connection, name: str) -> int | None:
    found = connection.execute(
        "SELECT number FROM rows WHERE id = ? AND NOT EXISTS (SELECT 1 FROM records WHERE records.number = rows.number)",
        (name,),
    ).fetchone()
    return None if found is None else int(found[0])


def _end_after(file: RecordFile, end: int) -> None:
    """Let the file end with its last whole record, durably: nobody has waited yet until that record was on the disk."""
    if file.size == end - 1:
        file.length = end - 1
        file.append([b"\n"])
    file.cut(end)
    file.is_changed = True
    file.sync()


def _forget_behind(connection: sqlite3.Connection, number: int, file: RecordFile) -> None:
    connection.execute("DELETE FROM records WHERE file = ? AND offset + length > ?", (number, file.size))
    connection.execute(
        "UPDATE files SET length = (SELECT coalesce(max(offset + length), 0) FROM records WHERE file = ?1) WHERE file = ?1",
        (number,),
    )
