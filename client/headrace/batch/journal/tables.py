"""The SQLite file of a batch job's journal: its tables, and how it is opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from headrace.files.private_files import open_private

VERSION = 1
RESULTS_FILE = 0
ERRORS_FILE = 1
BOTH_FILES = (RESULTS_FILE, ERRORS_FILE)
"""The values of the column ``file``."""
_BUSY_TIMEOUT = 10.0
"""Seconds to wait for a process that reads the status."""
_CACHE_KIB = 4096

CREATE_ROWS = "CREATE TABLE rows (number INTEGER PRIMARY KEY, id TEXT NOT NULL, hash BLOB NOT NULL)"
CREATE_ROW_INDEX = "CREATE UNIQUE INDEX row_ids ON rows (id)"
"""Made after all rows are there, which takes half the time. It refuses ids that two rows have."""
CREATE_RECORDS = (
    "CREATE TABLE records (number INTEGER PRIMARY KEY, file INTEGER NOT NULL, offset INTEGER NOT NULL,"
    " length INTEGER NOT NULL, kind TEXT, cost REAL NOT NULL, input_tokens INTEGER NOT NULL,"
    " output_tokens INTEGER NOT NULL)"
)
"""The final records: at most one for a row, because the number is the key."""
_TABLES = (
    CREATE_ROWS,
    CREATE_ROW_INDEX,
    CREATE_RECORDS,
    # How long each file is, and whether a new file waits to take its place.
    "CREATE TABLE files (file INTEGER PRIMARY KEY, length INTEGER NOT NULL, is_replaced INTEGER NOT NULL)",
    "INSERT INTO files VALUES (0, 0, 0), (1, 0, 0)",
    # Rows recorded in 10 s, and the time of the last one.
    "CREATE TABLE activity (slot INTEGER PRIMARY KEY, rows INTEGER NOT NULL, last REAL NOT NULL)",
    "CREATE TABLE job (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)


PUT = "INSERT INTO job VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
"""Sets a key of the table ``job``."""
OWN_TABLES = ("rows", "records", "files", "activity", "job")
"""The names that tables of other modules must not have; nor ``old_rows``, ``old_records``, ``moved`` and ``bad``."""


class OtherVersionError(Exception):
    """Another version of Headrace has made the file."""


def connect(path: Path) -> sqlite3.Connection:
    """Open or make the journal, for this user alone. Raises sqlite3.Error, OSError, OtherVersionError."""
    os.close(open_private(path, os.O_RDWR | os.O_CREAT))
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path, *, any_version: bool = False) -> sqlite3.Connection:
    """Open a journal that exists, for reading. Raises sqlite3.Error, and OtherVersionError unless ``any_version``."""
    # With mode=ro SQLite cannot read what a killed process has left in the write-ahead log.
    for mode in ("rw", "ro"):
        address = f"file:{_quoted(path)}?mode={mode}"
        connection = sqlite3.connect(address, uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None)
        try:
            connection.execute("PRAGMA query_only = 1")
            _check_version(connection, any_version=any_version)
        except sqlite3.OperationalError:
            connection.close()
            if mode == "ro":
                raise
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise AssertionError("the second mode returns or raises")


def remove(path: Path) -> None:
    """Remove a journal, with the files that SQLite keeps beside it."""
    for end in ("-wal", "-shm", ""):
        path.with_name(path.name + end).unlink(missing_ok=True)


def is_own_table(name: str) -> bool:
    """Return whether a table is the journal's own, or SQLite's."""
    return name in OWN_TABLES or name.startswith("sqlite_")


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    else:
        _check_version(connection)


def _check_version(connection: sqlite3.Connection, *, any_version: bool = False) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != VERSION and not any_version:
        raise OtherVersionError(f"it has version {version}, and this Headrace reads version {VERSION}")


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
