"""Removes records from a job's files: writes the records that stay to a new file, which then takes the place of the old one.

A kill at any moment is harmless. The transaction that knows the new places of the records says too that the new file must
take its place; the next start sees to that if it has not happened.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice

from headrace.batch.journal.record_file import NewFile, RecordFile, new_path, take_place
from headrace.batch.journal.tables import BOTH_FILES

_MOVES = 1000
"""Records that are moved by one statement."""


def write_kept(connection: sqlite3.Connection, number: int, file: RecordFile) -> NewFile:
    """Write the records that the table has of a file to a new file, and their new places to the table.

    Needs a transaction. After its end: :func:`finish_rewriting`. Raises OSError, sqlite3.Error: then there is no new file.
    """
    new = NewFile(file.path, file.mode)
    try:
        connection.execute(
            "CREATE TEMP TABLE IF NOT EXISTS moved (number INTEGER PRIMARY KEY, offset INTEGER NOT NULL)"
        )
        connection.execute("DELETE FROM moved")
        length = 0
        for start, end in _ranges(connection, number):
            for piece in file.pieces(start, end):
                new.write(piece, length)
                length += len(piece)
        connection.execute(
            "UPDATE records SET offset = (SELECT moved.offset FROM moved WHERE moved.number = records.number)"
            " WHERE file = ?",
            (number,),
        )
        connection.execute("UPDATE files SET length = ?, is_replaced = 1 WHERE file = ?", (length, number))
        new.sync()
    except BaseException:
        new.discard()
        raise
    return new


def finish_rewriting(connection: sqlite3.Connection, files: dict[int, RecordFile]) -> None:
    """Let new files take their places, if the last transaction said so. ``files``: opened before; they are opened anew.

    Raises OSError, sqlite3.Error; then it may be called again.
    """
    replaced = [number for (number,) in connection.execute("SELECT file FROM files WHERE is_replaced")]
    for number in replaced:
        path = files[number].path
        if new_path(path).exists():
            take_place(path)
        files[number].close()
        files[number] = RecordFile(path)
    if replaced:
        connection.execute("UPDATE files SET is_replaced = 0")


def known_lengths(connection: sqlite3.Connection) -> dict[int, int]:
    """Return how long each file is, as the journal says."""
    found = {int(file): int(length) for file, length in connection.execute("SELECT file, length FROM files")}
    return {number: found[number] for number in BOTH_FILES}


def _ranges(connection: sqlite3.Connection, number: int) -> Iterator[tuple[int, int]]:
    """Iterate the ranges of the old file that stay, and note where each record goes."""
    cursor = connection.execute("SELECT number, offset, length FROM records WHERE file = ? ORDER BY offset", (number,))
    start = end = length = 0
    while chunk := list(islice(cursor, _MOVES)):
        moves = []
        for row, offset, size in chunk:
            if offset != end:
                if end > start:
                    yield start, end
                start = end = offset
            moves.append((row, length))
            end += size
            length += size
        connection.executemany("INSERT INTO moved VALUES (?, ?)", moves)
    if end > start:
        yield start, end
