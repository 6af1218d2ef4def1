"""Opens one database file of spans, and writes spans to it in transactions. A better record of a run replaces the one before."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from headrace.files.private_files import open_private
from headrace.spans.data_directory import is_writable_file
from headrace.spans.span import Span
from headrace.spans.span_database import (
    COLUMNS,
    DAMAGE,
    QUEUE_REASON,
    SCHEMA,
    SCHEMA_VERSION,
    from_row,
    stored_text,
    to_row,
)
from headrace_engine.spans.storage.ranking import merged

Cost = Callable[[Span], float | None]
Spans = Mapping[str, Sequence[Span]]
"""Id of a run → its spans, in the order of their arrival."""

_SIDE_FILES = ("-wal", "-shm")
_SQLITE = b"SQLite format 3\0"
_MARKS = f"({', '.join('?' * len(COLUMNS))})"
_INTO = f"INTO spans ({', '.join(COLUMNS)}) VALUES {_MARKS}"
_INSERT = f"INSERT OR IGNORE {_INTO}"
_REPLACE = f"INSERT OR REPLACE {_INTO}"
_ROWS_AT_ONCE = 32
"""Rows of one statement. That takes a tenth less time than a statement for each row. SQLite takes at most 32,766 values."""
_INSERT_MANY = ", ".join([_INSERT, *[_MARKS] * (_ROWS_AT_ONCE - 1)])
_SETUP = f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;"
_BUSY_TIMEOUT = 5.0
"""Seconds to wait while a sink records its progress."""
_CLOSE_TIMEOUT_MS = 100
_JOURNAL_BYTES = 64 * 1024 * 1024
_CHECKPOINT_PAGES = 4000
"""The journal may grow to 16 MiB. Each commit changes the pages of the indexes: a larger journal moves them to the file less often."""
_CACHE_KIB = 4 * 1024
_IDS_PER_QUERY = 500

_UNSTORABLE = (TypeError, ValueError, OverflowError, RecursionError, sqlite3.IntegrityError, sqlite3.DataError)
"""Exceptions for a value that no database can hold, such as 2**64 tokens."""


class UnstorableError(Exception):
    """One of several spans has a value that the database cannot hold. No span was written."""


class SpanDatabase:
    """An open database file. Methods raise sqlite3.Error, and then undo their transaction."""

    def __init__(self, path: Path, durability: Literal["normal", "full"]) -> None:
        self.path = path
        self.is_ours = False
        """Whether Headrace made the file, in this or in another version."""
        if not os.path.lexists(path):
            _make(path)
        self._connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT, isolation_level=None)
        try:
            self.version = self._prepare(durability)
            self.inode = _own_inode(path)
            self.last_seq = self._last_sequence() if self.is_usable else 0
            self.newest = self._newest() if self.is_usable else 0.0
        except BaseException:
            self._connection.close()
            raise

    @property
    def is_usable(self) -> bool:
        """Whether the table has the schema of this version."""
        return self.version == SCHEMA_VERSION

    def size(self) -> int:
        """Return the bytes of the database, with its journal."""
        return int(self._value("PRAGMA page_count") * self._value("PRAGMA page_size"))

    def put(self, spans: Spans, cost: Cost) -> int:
        """Write spans. Return how many of their runs had no row before.

        Raises UnstorableError if one of them cannot be stored.
        """
        try:
            rows = [to_row(span := reduce(merged, of_run), cost(span)) for of_run in spans.values()]
            self._connection.execute("BEGIN IMMEDIATE")
            inserted = self._write(spans, rows, cost)
            last_seq = self._last_sequence()
            self._connection.execute("COMMIT")
        except _UNSTORABLE as error:
            raise UnstorableError(str(error)) from error
        finally:
            self._roll_back()
        self.last_seq = last_seq
        self.newest = max([self.newest, *(span.started_at for of_run in spans.values() for span in of_run)])
        return inserted

    def known(self, span_ids: Collection[str]) -> set[str]:
        """Return the ids that have a row in this file."""
        return {row[0] for row in self._select("span_id", list(span_ids))} if self.is_usable else set()

    def is_delivered(self, sinks: Collection[str]) -> bool:
        """Return whether all sinks have taken all rows."""
        taken = (
            dict(self._connection.execute("SELECT sink, seq FROM cursors WHERE typeof(seq) = 'integer'"))
            if self.is_usable
            else {}
        )
        return self.is_usable and all(taken.get(sink, 0) >= self.last_seq for sink in sinks)

    def close(self) -> None:
        """Move the journal's pages to the file, unless a reader prevents it, and close."""
        with contextlib.suppress(sqlite3.Error):
            if self.is_ours:
                self._connection.execute(f"PRAGMA busy_timeout = {_CLOSE_TIMEOUT_MS}")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _prepare(self, durability: Literal["normal", "full"]) -> int:
        connection = self._connection
        connection.row_factory = sqlite3.Row
        connection.text_factory = stored_text
        version = int(self._value("PRAGMA user_version"))
        columns = {row["name"] for row in connection.execute("PRAGMA table_info(spans)")}
        is_empty = not self._value("SELECT count(*) FROM sqlite_master")
        self.is_ours = {"span_id", "rank"} <= columns or (version == 0 and is_empty)
        if not self.is_ours:
            return 0  # a file of another program: do not change it
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        if version == 0:
            connection.executescript(_SETUP)
            version = int(self._value("PRAGMA user_version"))
        elif version == SCHEMA_VERSION and "queue_reason" not in columns:
            connection.execute(f"ALTER TABLE spans ADD COLUMN {QUEUE_REASON}")
        return version

    def _write(self, spans: Spans, rows: Sequence[tuple[Any, ...]], cost: Cost) -> int:
        before = self._last_sequence()
        whole = len(rows) - len(rows) % _ROWS_AT_ONCE
        inserted = 0
        for start in range(0, whole, _ROWS_AT_ONCE):
            values = list(itertools.chain.from_iterable(rows[start : start + _ROWS_AT_ONCE]))
            inserted += self._connection.execute(_INSERT_MANY, values).rowcount
        if whole < len(rows):
            inserted += self._connection.executemany(_INSERT, rows[whole:]).rowcount
        if inserted < len(rows):
            query = "SELECT span_id FROM spans WHERE seq > ?"
            written = {row[0] for row in self._connection.execute(query, (before,))}
            self._merge({name: of_run for name, of_run in spans.items() if name not in written}, cost)
        return inserted

    def _merge(self, spans: Spans, cost: Cost) -> None:
        """Write spans of runs that have a row already."""
        found = {row["span_id"]: _readable(row) for row in self._select("*", list(spans))}
        changed = []
        for name, of_run in spans.items():
            if name not in found:
                raise UnstorableError(f"no row, and none can be made, for {name}")
            kept = found[name]
            result = reduce(merged, of_run if kept is None else [kept, *of_run])
            if result is not kept:
                changed.append(to_row(result, cost(result)))
        self._connection.executemany(_REPLACE, changed)

    def _select(self, columns: str, span_ids: Sequence[str]) -> list[sqlite3.Row]:
        rows: list[sqlite3.Row] = []
        for start in range(0, len(span_ids), _IDS_PER_QUERY):
            some = span_ids[start : start + _IDS_PER_QUERY]
            query = f"SELECT {columns} FROM spans WHERE span_id IN ({', '.join('?' * len(some))})"  # noqa: S608 - no values
            rows.extend(self._connection.execute(query, some))
        return rows

    def _last_sequence(self) -> int:
        return int(self._value("SELECT coalesce(max(seq), 0) FROM spans"))

    def _newest(self) -> float:
        newest = self._value("SELECT coalesce(max(started_at), 0.0) FROM spans")
        if not isinstance(newest, float):  # another program wrote a text: SQLite sorts it after all numbers
            newest = self._value("SELECT coalesce(max(started_at), 0.0) FROM spans WHERE typeof(started_at) = 'real'")
        return float(newest)

    def _value(self, query: str) -> Any:
        return self._connection.execute(query).fetchone()[0]

    def _roll_back(self) -> None:
        """Undo the open transaction, if there is one."""
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _make(path: Path) -> None:
    """Make a database file. It gets its name after its table was made."""
    unseen = path.with_name(f"{path.name}.new")
    if _was_begun(unseen):
        remove(unseen)
    elif os.path.lexists(unseen):
        move_aside(unseen)
    # Make the file here: SQLite would use the umask for its mode. Its side files get the mode of this file.
    os.close(open_private(unseen, os.O_RDWR | os.O_CREAT | os.O_EXCL))
    with contextlib.closing(sqlite3.connect(unseen, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SETUP)
    unseen.rename(path)


def _was_begun(path: Path) -> bool:
    """Return whether a file is a database that a killed engine had begun to make, and belongs to this user."""
    if not is_writable_file(path):
        return False
    with contextlib.closing(os.fdopen(open_private(path, os.O_RDONLY), "rb")) as file:
        return file.read(len(_SQLITE)) in (b"", _SQLITE)


def _own_inode(path: Path) -> int:
    """Return the file's inode number. Raises PermissionError if the file belongs to another user."""
    if not is_writable_file(path):
        raise PermissionError(errno.EPERM, "it belongs to another user", os.fspath(path))
    return path.stat().st_ino


def _readable(row: sqlite3.Row) -> Span | None:
    """Return the span in a row, or None if another program wrote something else there."""
    try:
        return from_row(row).span
    except DAMAGE:
        return None


def move_aside(path: Path) -> Path:
    """Rename a damaged database and its side files, so that no process opens it as a database. Return the new path."""
    target = path.with_name(f"{path.name}.corrupt")
    number = 0
    while any(os.path.lexists(target.with_name(target.name + suffix)) for suffix in ("", *_SIDE_FILES)):
        number += 1
        target = path.with_name(f"{path.name}.corrupt.{number}")
    path.rename(target)
    for suffix in _SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(target.with_name(target.name + suffix))
    return target


def remove(path: Path, folder: int | None = None) -> None:
    """Remove a database and its side files. ``folder``: the descriptor of their directory, if it is open."""
    for suffix in ("", *_SIDE_FILES):
        with contextlib.suppress(FileNotFoundError):
            name = path.name + suffix
            os.unlink(path.with_name(name) if folder is None else name, dir_fd=folder)
