"""One database file of spans: opening it, and writing spans to it by the rank rule, in one transaction each time."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from headrace.files.private_files import open_private
from headrace.spans.data_directory import (
    COLUMNS,
    DAMAGE,
    SCHEMA,
    SCHEMA_VERSION,
    from_row,
    is_writable_file,
    stored_text,
    to_row,
)
from headrace.spans.span import Span
from headrace_engine.spans.storage.ranking import merged

Cost = Callable[[Span], float | None]
Spans = Mapping[str, Sequence[Span]]
"""Spans by the id of their run; those of one run in the order in which they came."""

_SIDE_FILES = ("-wal", "-shm")
_SQLITE = b"SQLite format 3\0"
_MARKS = ", ".join("?" * len(COLUMNS))
_INTO = f"INTO spans ({', '.join(COLUMNS)}) VALUES ({_MARKS})"
_INSERT = f"INSERT OR IGNORE {_INTO}"
_REPLACE = f"INSERT OR REPLACE {_INTO}"
_SETUP = f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;"
_BUSY_TIMEOUT = 5.0
"""Seconds to wait for a sink that notes how far it is."""
_CLOSE_TIMEOUT_MS = 100
_JOURNAL_BYTES = 64 * 1024 * 1024
_CHECKPOINT_PAGES = 4000
"""The journal grows to 16 MiB: pages of the indexes, which each commit touches, are moved to the file less often so."""
_CACHE_KIB = 4 * 1024
_IDS_PER_QUERY = 500

_UNSTORABLE = (TypeError, ValueError, OverflowError, RecursionError, sqlite3.IntegrityError, sqlite3.DataError)
"""What is raised for a value that no database holds, such as a count of 2**64 tokens."""


class UnstorableError(Exception):
    """A span among several has a value that the database cannot hold. Nothing was written."""


class SpanDatabase:
    """A file that is open. Methods raise sqlite3.Error; what was begun is then undone."""

    def __init__(self, path: Path, durability: Literal["normal", "full"]) -> None:
        self.path = path
        self.is_ours = False
        """Whether it is a database of Headrace's, of this or another version."""
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
        """Whether the table is of the form that this version writes."""
        return self.version == SCHEMA_VERSION

    def size(self) -> int:
        """Return the bytes of the database, those included that are in its journal yet."""
        return int(self._value("PRAGMA page_count") * self._value("PRAGMA page_size"))

    def put(self, spans: Spans, cost: Cost) -> int:
        """Write spans; return how many of their runs are new here.

        Raises UnstorableError where one of them cannot be held.
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
        """Return those of the ids that have a row here."""
        return {row[0] for row in self._select("span_id", list(span_ids))} if self.is_usable else set()

    def is_delivered(self, sinks: Collection[str]) -> bool:
        """Return whether each of the sinks has taken every row."""
        taken = (
            dict(self._connection.execute("SELECT sink, seq FROM cursors WHERE typeof(seq) = 'integer'"))
            if self.is_usable
            else {}
        )
        return self.is_usable and all(taken.get(sink, 0) >= self.last_seq for sink in sinks)

    def close(self) -> None:
        """Move what is in the journal to the file, unless a reader is in the way, and close."""
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
            return 0  # whoever made it, it stays as it is
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        if version == 0:
            connection.executescript(_SETUP)
            version = int(self._value("PRAGMA user_version"))
        return version

    def _write(self, spans: Spans, rows: Sequence[tuple[Any, ...]], cost: Cost) -> int:
        before = self._last_sequence()
        inserted = self._connection.executemany(_INSERT, rows).rowcount
        if inserted < len(rows):
            query = "SELECT span_id FROM spans WHERE seq > ?"
            written = {row[0] for row in self._connection.execute(query, (before,))}
            self._merge({name: of_run for name, of_run in spans.items() if name not in written}, cost)
        return inserted

    def _merge(self, spans: Spans, cost: Cost) -> None:
        """Write spans of runs that have a row."""
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
        if not isinstance(newest, float):  # somebody else wrote it, and it is the greatest of all by being no number
            newest = self._value("SELECT coalesce(max(started_at), 0.0) FROM spans WHERE typeof(started_at) = 'real'")
        return float(newest)

    def _value(self, query: str) -> Any:
        return self._connection.execute(query).fetchone()[0]

    def _roll_back(self) -> None:
        """Undo what is not committed, if anything is."""
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _make(path: Path) -> None:
    """Make a file that has its table before anybody can see it."""
    unseen = path.with_name(f"{path.name}.new")
    if _was_begun(unseen):
        remove(unseen)
    elif os.path.lexists(unseen):
        move_aside(unseen)
    # SQLite would make it as the umask says; its side files get the mode of this one.
    os.close(open_private(unseen, os.O_RDWR | os.O_CREAT | os.O_EXCL))
    with contextlib.closing(sqlite3.connect(unseen, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SETUP)
    unseen.rename(path)


def _was_begun(path: Path) -> bool:
    """Return whether a file is a database that an engine had begun to make when it was killed, and nobody else's."""
    if not is_writable_file(path):
        return False
    with contextlib.closing(os.fdopen(open_private(path, os.O_RDONLY), "rb")) as file:
        return file.read(len(_SQLITE)) in (b"", _SQLITE)


def _own_inode(path: Path) -> int:
    """Return the file's number; raises PermissionError where somebody else has put it there meanwhile."""
    if not is_writable_file(path):
        raise PermissionError(errno.EPERM, "it is another user's", os.fspath(path))
    return path.stat().st_ino


def _readable(row: sqlite3.Row) -> Span | None:
    """Return what a row says, or None where somebody else wrote something else there."""
    try:
        return from_row(row).span
    except DAMAGE:
        return None


def move_aside(path: Path) -> Path:
    """Give a damaged database a name that is no database's; return it. Nothing of it is lost that there is."""
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
    """Remove a database and its side files; from ``folder``, an open directory, where that is given."""
    for suffix in ("", *_SIDE_FILES):
        with contextlib.suppress(FileNotFoundError):
            name = path.name + suffix
            os.unlink(path.with_name(name) if folder is None else name, dir_fd=folder)
