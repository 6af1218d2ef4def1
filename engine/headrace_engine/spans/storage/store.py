"""Stores the spans of one slot in its database files: one row for each run. It is the only writer of these files.

When :meth:`Store.write` returns, the spans are committed. A run's row stays in the file that had it first. A write that fails raises
StoreError and may be repeated at any time: a span that is stored already changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from headrace.settings.settings import SpansConfig
from headrace.spans.span import Span
from headrace.spans.value_bounds import encodable
from headrace_engine.spans.storage.database import Cost, SpanDatabase, Spans, UnstorableError
from headrace_engine.spans.storage.database_files import DamagedError, SpanFiles
from headrace_engine.spans.storage.ranking import grouped

logger = logging.getLogger(__name__)

_SAME_RUN = 60.0
"""Seconds by which the records of one run may differ about the time when the run was asked for."""
NOT_STORABLE = "cannot be stored"
_NO_SPACE = 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


class StoreError(Exception):
    """The store cannot be written now. ``is_full``: because the disk is full."""

    def __init__(self, reason: str, *, is_full: bool = False) -> None:
        super().__init__(reason)
        self.is_full = is_full


class WriteCounts(msgspec.Struct, frozen=True):
    """The result of a write. ``new``: runs that had no row before. ``unstorable``: spans that no database can hold."""

    new: int = 0
    unstorable: int = 0


class Store:
    """The spans of one slot. Methods raise StoreError. ``now`` is the time of the wall clock: there is a new file each day."""

    def __init__(self, slot: Path, config: SpansConfig, cost: Cost) -> None:
        self._slot = slot
        self._cost = cost
        self._files = SpanFiles(slot, config)

    @property
    def damaged(self) -> list[Path]:
        """The new names of files that could not be read and were moved aside."""
        return self._files.damaged

    def write(self, spans: Sequence[Span], now: float) -> WriteCounts:
        """Commit spans."""
        with self._errors():
            self._files.look()
            new = unstorable = 0
            for path, some in self._by_file(grouped(spans), now).items():
                done = self._put(path, some, now)
                new, unstorable = new + done.new, unstorable + done.unstorable
            return WriteCounts(new, unstorable)

    def marks(self) -> dict[Path, int]:
        """Return file → the number of its last row."""
        with self._errors():
            self._files.look()
            return {path: known.last_seq for path, known in self._files.known.items()}

    def retire(self, now: float, sinks: Collection[str]) -> None:
        """Remove files that are older than ``retention_days`` if no sink needs them; after twice that time in any case."""
        with self._errors():
            self._files.look()
            self._files.retire(now, sinks)

    def check(self) -> None:
        """Notice files that were removed. Later spans are written to new files."""
        with self._errors():
            self._files.check()

    def close(self) -> None:
        """Close the files; may be called twice."""
        self._files.close()

    def _by_file(self, spans: Spans, now: float) -> dict[Path, Spans]:
        """Return file → spans: the file that has a row of their run already, else the current file.

        A file is asked only for runs that are not newer than all runs in it. These are few, except in the first minutes of a new file.
        """
        current = self._files.current(now)
        left = dict(spans)
        result: dict[Path, Spans] = {}
        for path, known in list(self._files.known.items()):
            latest = known.newest + _SAME_RUN
            if path != current and (
                names := [name for name, (first, *_) in left.items() if first.started_at <= latest]
            ):
                with contextlib.suppress(DamagedError):
                    if found := self._files.use(path, partial(SpanDatabase.known, span_ids=names)):
                        result[path] = {name: left.pop(name) for name in names if name in found}
        return {**result, current: left} if left else result

    def _put(self, path: Path, spans: Spans, now: float) -> WriteCounts:
        try:
            return self._files.use(path, partial(self._put_in, spans))
        except DamagedError:
            again = self._files.current(now)
        try:
            return self._files.use(again, partial(self._put_in, spans))
        except DamagedError as error:
            raise StoreError(f"one file after another is damaged: {error}") from error

    def _put_in(self, spans: Spans, database: SpanDatabase) -> WriteCounts:
        try:
            return WriteCounts(database.put(spans, self._cost))
        except UnstorableError:
            pass  # write the spans one by one: a span that cannot be stored must not affect the others
        new = unstorable = 0
        for name, of_run in spans.items():
            # First with mended values, then without free texts: each run must have a row.
            for form in (_as_it_is, encodable, _bare):
                try:
                    new += database.put({name: [form(span) for span in of_run]}, self._cost)
                    break
                except UnstorableError as error:
                    reason = type(error.__cause__ or error).__name__
                    logger.warning("span cannot be stored as it is", extra={"span_id": name, "reason": reason})
            else:
                unstorable += len(of_run)
        return WriteCounts(new, unstorable)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of the disk and of SQLite into StoreError. After an error all files are opened again."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self._files.close()
            raise StoreError(str(error), is_full=self._is_full(error)) from error

    def _is_full(self, error: Exception) -> bool:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL or getattr(error, "errno", 0) in _FULL:
            return True
        # If SQLite reports an I/O error or cannot open a file, the disk may be full too.
        try:
            space = os.statvfs(self._slot)
        except OSError:
            return False
        return space.f_bavail * space.f_frsize < _NO_SPACE


def _as_it_is(span: Span) -> Span:
    return span


def _bare(span: Span) -> Span:
    """Return a span without content, options, and texts of unbounded length."""
    whole: Span = encodable(span)
    return msgspec.structs.replace(
        whole, content=b"", content_note=NOT_STORABLE, parameters={}, tags=[], attempts=[], error=None
    )
