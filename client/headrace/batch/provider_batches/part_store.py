"""PartStore: keeps the parts of a job in its journal, each change at once."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from headrace.batch.journal.job_files import JOURNAL
from headrace.batch.journal.tables import connect_to_read
from headrace.batch.provider_batches.part import Part
from headrace.batch.provider_batches.part_commands import Forget, Save
from headrace.errors import JournalError

_TABLE = "CREATE TABLE IF NOT EXISTS provider_parts (number INTEGER PRIMARY KEY, part BLOB NOT NULL)"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Part).decode


class PartJournal(Protocol):
    """What the parts need of a journal."""

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Return a context in which several changes become one."""


class PartStore:
    """The parts in a journal."""

    def __init__(self, journal: PartJournal) -> None:
        self._journal = journal
        with journal.transaction() as connection:
            connection.execute(_TABLE)

    def load(self) -> list[Part]:
        """Return all parts. Raises JournalError if another version of Headrace has written them."""
        with self._journal.transaction() as connection:
            return _parts(connection)

    def change(self, changes: Sequence[Save | Forget]) -> None:
        """Keep parts, each in place of what was kept of it; or keep them no longer. All at once."""
        with self._journal.transaction() as connection:
            for change in changes:
                part = change.part
                if isinstance(change, Save):
                    connection.execute(
                        "INSERT OR REPLACE INTO provider_parts VALUES (?, ?)", (part.number, _encode(part))
                    )
                else:
                    connection.execute("DELETE FROM provider_parts WHERE number = ?", (part.number,))


class NoJournal:
    """In place of a journal, for a job that has none: the parts are lost with the process."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Return the connection."""
        yield self._connection


def stored_parts(directory: Path) -> list[Part]:
    """Return the parts of a job in a directory, also while the job runs. None of them if there is no job, or if its journal is damaged.

    Raises JournalError if the journal cannot be read.
    """
    path = directory / JOURNAL
    if not path.exists():
        return []
    try:
        with contextlib.closing(connect_to_read(path, any_version=True)) as connection:
            return _parts(connection)
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return []
        raise JournalError(str(path), f"the journal cannot be read: {error}") from None
    except sqlite3.DatabaseError:
        return []  # it is damaged: who opens the journal says so


def _parts(connection: sqlite3.Connection) -> list[Part]:
    stored = connection.execute("SELECT part FROM provider_parts ORDER BY number").fetchall()
    try:
        return [_decode(part) for (part,) in stored]
    except (msgspec.MsgspecError, RecursionError) as error:
        path = connection.execute("PRAGMA database_list").fetchone()[2]
        reason = (
            f"its batches at a provider cannot be read ({error}): another version of Headrace has written them; use that "
            "version until they are over"
        )
        raise JournalError(path, reason) from None
