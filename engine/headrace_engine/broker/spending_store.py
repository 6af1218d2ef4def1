"""Keeps what was spent each day in ``spending.sqlite`` in the data directory. All engines of the user add to it.

No prompt and no name of a user is in it: users are short hashes. Each amount is added, never replaced, so engines need
not know of each other.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

from headrace.files.private_files import make_directories, open_private
from headrace.spans.data_directory import is_own_folder, is_writable_file
from headrace_engine.limits.spending import Amounts, Day, Spender

FILE = "spending.sqlite"
KEPT_DAYS = 62
_VERSION = 1
_BUSY_TIMEOUT = 2.0
"""Seconds to wait while another engine writes. The broker's thread waits, not the broker."""
_TABLE = (
    "CREATE TABLE IF NOT EXISTS spent (day TEXT NOT NULL, label TEXT NOT NULL, user TEXT NOT NULL,"
    " amount INTEGER NOT NULL, PRIMARY KEY (day, label, user)) WITHOUT ROWID"
)
_ADD = (
    "INSERT INTO spent (day, label, user, amount) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (day, label, user) DO UPDATE SET amount = amount + excluded.amount"
)
_OF_DAY = "SELECT label, user, amount FROM spent WHERE day = ? AND typeof(amount) = 'integer'"


class SpendingStore:
    """The file. Methods raise sqlite3.Error and OSError; nothing is added then, and the file is opened anew the next time."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._cleaned: Day = ""

    def exchange(self, amounts: Amounts, day: Day) -> Mapping[Spender, int]:
        """Add ``amounts``, and return the totals of ``day``: of all engines."""
        try:
            connection = self._opened()
            if not amounts and day == self._cleaned:
                return self._totals(connection, day)
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_ADD, [(*key, amount) for key, amount in amounts.items()])
            if day != self._cleaned:
                oldest = date.fromisoformat(day) - timedelta(days=KEPT_DAYS)
                connection.execute("DELETE FROM spent WHERE day < ?", (oldest.isoformat(),))
            totals = self._totals(connection, day)
            connection.execute("COMMIT")
        except BaseException:
            self.close()
            raise
        self._cleaned = day
        return totals

    def close(self) -> None:
        """Close the file. What was not committed is undone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _totals(self, connection: sqlite3.Connection, day: Day) -> dict[Spender, int]:
        return {(str(label), str(user)): int(amount) for label, user, amount in connection.execute(_OF_DAY, (day,))}

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                if os.stat(self.path).st_ino == self._inode:
                    return self._connection
            self.close()  # somebody has removed or replaced the file: what is written to it would be lost
        self._make()
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        self._connection = connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise OSError(f"{self.path} is of another version of Headrace")
        if version == 0:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")
        self._inode = os.stat(self.path).st_ino
        return connection

    def _make(self) -> None:
        """Make the file, for this user alone, if it does not exist. SQLite gives its other files the same mode."""
        make_directories(self.path.parent)
        if not is_own_folder(self.path.parent):
            raise OSError(f"{self.path.parent} belongs to another user")
        os.close(open_private(self.path, os.O_RDWR | os.O_CREAT))
        if not is_writable_file(self.path):
            raise OSError(f"{self.path} belongs to another user")
