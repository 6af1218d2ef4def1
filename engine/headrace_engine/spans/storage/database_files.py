"""Manages the database files of one slot: finds them, opens them, chooses the file for new rows, removes damaged and old files."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from headrace.settings.settings import SpansConfig
from headrace.spans.data_directory import damaged_files, database_files, file_name, is_own_folder, is_writable_file
from headrace_engine.spans.storage.database import SpanDatabase, move_aside, remove

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MAX_OPEN = 4
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DamagedError(Exception):
    """A file cannot be read. It was moved aside; a new file may get its name."""


class SpanFileFacts(msgspec.Struct, frozen=True):
    """Facts about a file, open or not. ``last_seq``: the number of its last row. ``newest``: when its newest run was asked for."""

    last_seq: int
    newest: float


class SpanFiles:
    """The files. Methods raise sqlite3.Error and OSError."""

    def __init__(self, slot: Path, config: SpansConfig) -> None:
        self.known: dict[Path, SpanFileFacts] = {}
        self.damaged: list[Path] = []
        """The new names of files that could not be read."""
        self._slot = slot
        self._config = config
        self._current: Path | None = None
        # In the order of use: the file that was used last is the last.
        self._open: dict[Path, SpanDatabase] = {}
        self._has_looked = False
        # The status of the slot's directory, once it exists.
        self._place: os.stat_result | None = None

    def look(self) -> None:
        """Find the existing files. Only the first call does something."""
        if not self._has_looked:
            self._note_place()
            for path in self._writable():
                with contextlib.suppress(DamagedError):
                    self.use(path, SpanDatabase.size)
            self._has_looked = True

    def current(self, now: float) -> Path:
        """Return the file for new rows: the last file of the day, or a new file if that is full."""
        today = datetime.fromtimestamp(now, UTC).date()
        path = self._current
        if path is None or _day(path) != today:
            of_today = [known for known in self._writable() if _day(known) == today]
            path = of_today[-1] if of_today else self._slot / file_name(today.isoformat(), 0)
        while not self._has_room(path):
            path = self._slot / file_name(today.isoformat(), _number(path) + 1)
        self._current = path
        return path

    def use(self, path: Path, action: Callable[[SpanDatabase], T]) -> T:
        """Call ``action`` with an open file. The file is made if it does not exist. Raises DamagedError."""
        try:
            database = self._opened(path)
            try:
                return action(database)
            finally:
                self.known[path] = SpanFileFacts(database.last_seq, database.newest)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                raise
            self._set_aside(path)
            raise DamagedError(str(error)) from error

    def check(self) -> None:
        """Forget removed files: rows that are written to them would be lost."""
        for path in list(self.known):
            database = self._open.get(path)
            try:
                is_there = database is None or path.stat().st_ino == database.inode
            except OSError:
                is_there = False
            if not is_there or not path.exists():
                self._forget(path)

    def retire(self, now: float, sinks: Collection[str]) -> None:
        """Remove files that are older than ``retention_days`` if no sink needs them; after twice that time in any case.

        Nothing is removed while another directory is in the slot's place.
        """
        try:
            folder = os.open(self._slot, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            if self._place is not None and os.path.samestat(os.fstat(folder), self._place):
                self._retire(now, sinks, folder)
        finally:
            os.close(folder)

    def _retire(self, now: float, sinks: Collection[str], folder: int) -> None:
        limit = timedelta(days=self._config.retention_days)
        today = datetime.fromtimestamp(now, UTC)
        for path in [path for path in self.known if path != self._current]:
            age = today - datetime.combine(_day(path) + timedelta(days=1), datetime.min.time(), UTC)
            with contextlib.suppress(DamagedError):
                if age > limit and self.use(path, partial(_may_go, sinks=sinks, is_very_old=age > 2 * limit)):
                    self._forget(path)
                    remove(path, folder)
                    logger.info("span file removed", extra={"file": path.name})
        for path in damaged_files(self._slot):
            with contextlib.suppress(FileNotFoundError):
                changed = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mtime
                if now - changed > 2 * limit.total_seconds():
                    os.unlink(path.name, dir_fd=folder)

    def close(self) -> None:
        """Close all files. A file is opened again when it is used."""
        for database in self._open.values():
            database.close()
        self._open.clear()

    def _note_place(self) -> None:
        if self._place is None and is_own_folder(self._slot.parent) and is_own_folder(self._slot):
            self._place = self._slot.lstat()

    def _writable(self) -> list[Path]:
        """Return the files that belong to this user. Rows are written to no other file: its owner could read them."""
        return [path for path in database_files(self._slot) if is_writable_file(path)]

    def _has_room(self, path: Path) -> bool:
        limit = self._config.max_file_bytes
        if os.path.lexists(path) and not path.is_symlink() and not is_writable_file(path):
            return False
        try:
            return self.use(path, lambda database: database.is_usable and database.size() < limit)
        except DamagedError:
            return True

    def _opened(self, path: Path) -> SpanDatabase:
        database = self._open.pop(path, None)
        if database is None:
            self._slot.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._note_place()
            if path.is_symlink():
                self._set_aside(path)  # SQLite would follow the link
            database = SpanDatabase(path, self._config.durability)
        self._open[path] = database
        while len(self._open) > _MAX_OPEN:
            unused = next(other for other in self._open if other not in (path, self._current))
            self._open.pop(unused).close()
        return database

    def _set_aside(self, path: Path) -> None:
        self._forget(path)
        target = move_aside(path)
        self.damaged.append(target)
        logger.error("damaged span file was moved aside", extra={"file": path.name, "target": target.name})

    def _forget(self, path: Path) -> None:
        if (database := self._open.pop(path, None)) is not None:
            database.close()
        self.known.pop(path, None)
        if self._current == path:
            self._current = None


def _may_go(database: SpanDatabase, sinks: Collection[str], *, is_very_old: bool) -> bool:
    """Return whether an old file may be removed: Headrace made it, and no sink needs it."""
    return database.is_ours and (is_very_old or database.is_delivered(sinks))


def _day(path: Path) -> date:
    """Return the day in a file's name. A name without a day counts as very old."""
    try:
        return date.fromisoformat(path.name.removeprefix("spans-").partition(".")[0])
    except ValueError:
        return date(1970, 1, 1)


def _number(path: Path) -> int:
    number = path.name.removesuffix(".db").partition(".")[2]
    return int(number) if number.isdigit() else 0
