"""Finds the spans that one sink has not sent yet, and records its progress in each database file of a slot. For the sink's thread only.

The progress is written to the database file after the sink has taken the spans. Spans that the sink will never take stay in the store
with a mark. If the progress cannot be written, as on a full disk, it is lost when the process ends: then spans are sent again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from headrace.spans.data_directory import database_files
from headrace.spans.span import Span
from headrace.spans.span_database import (
    SET_ASIDE,
    DamagedRow,
    StoredSpan,
    open_for_reading,
    read_after,
    set_aside_count,
)
from headrace_engine.spans.sinks.answer_policy import SpanSetAside
from headrace_engine.spans.sinks.settle_time import SettleTime

logger = logging.getLogger(__name__)

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of one batch. Receivers refuse larger requests; the smallest known limit is 4 MiB."""
MAX_COUNTED = 10_000
"""Waiting spans are counted up to this number. Beyond it the count is the difference of row numbers."""
_BUSY_TIMEOUT = 5.0
_PLACE = "INSERT INTO cursors (sink, seq) VALUES (?, ?) ON CONFLICT (sink) DO UPDATE SET seq = excluded.seq"


class UnsentBatch(msgspec.Struct, frozen=True):
    """Spans of one file, in the order in which they were written."""

    path: Path
    spans: list[StoredSpan]


class SetAsideMark(msgspec.Struct, frozen=True):
    """The mark of a span that is set aside: its id, its row number, and the reason."""

    span_id: str
    seq: int
    reason: str


class UnsentSpans:
    """The files of a slot, and the progress of one sink in each file."""

    def __init__(self, slot: Path, sink: str) -> None:
        self._slot = slot
        self._sink = sink
        self._files: dict[Path, _FileProgress] = {}

    def next(self, limit: int, now: float, *, is_last: bool) -> UnsentBatch | None:
        """Return up to ``limit`` spans of the oldest file with unsent spans. ``is_last``: do not wait for better records."""
        self._look()
        for path, file in self._files.items():
            try:
                spans = file.read(limit, now, is_last=is_last)
            except sqlite3.Error as error:
                file.failed("read spans", error)
                continue
            if spans:
                return UnsentBatch(path, spans)
        return None

    def taken(self, batch: UnsentBatch, count: int, aside: Sequence[SpanSetAside] = ()) -> None:
        """The first ``count`` spans of a batch are done. Mark the spans in ``aside``."""
        if count and (file := self._files.get(batch.path)) is not None:
            some = batch.spans[:count]
            marks = [SetAsideMark(some[each.index].span.span_id, some[each.index].seq, each.reason) for each in aside]
            file.move(some[-1].seq, marks, [stored.span.span_id for stored in some])

    def aside(self) -> int:
        """Return how many spans of these files are set aside."""
        return sum(file.aside for file in self._files.values())

    def take_damaged(self) -> list[SetAsideMark]:
        """Return the rows that could not be read since the last call. They are marked and skipped."""
        return [mark for file in self._files.values() for mark in file.take_damaged()]

    def count(self) -> int:
        """Return how many spans wait."""
        self._look()
        return sum(file.count() for file in self._files.values())

    def due(self) -> float | None:
        """Return when the next spans that wait for better records can be sent, or None."""
        return min((file.settling.due for file in self._files.values() if file.settling.due is not None), default=None)

    def places(self) -> dict[Path, int]:
        """Return file → the last row that is done."""
        return {path: file.place for path, file in self._files.items()}

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _look(self) -> None:
        """Open new files, and close removed files."""
        known, self._files = self._files, {}
        for path in database_files(self._slot):
            # A damaged file is moved aside, and a new file may get its name.
            if path in known and known[path].is_still_there():
                self._files[path] = known.pop(path)
            elif (file := _open(path, self._sink)) is not None:
                self._files[path] = file
        for file in known.values():
            file.close()


class _FileProgress:
    """One database file. ``place`` is the last row that is done."""

    def __init__(self, path: Path, sink: str, reader: sqlite3.Connection) -> None:
        self._path = path
        self._sink = sink
        self._reader = reader
        self._inode = path.stat().st_ino
        self._writer: sqlite3.Connection | None = None
        self._has_failed = False
        self._is_unwritten = False
        self._marks: dict[SetAsideMark, None] = {}
        self._damaged: list[SetAsideMark] = []
        self._damaged_upto = 0
        self.settling = SettleTime()
        row = reader.execute("SELECT seq FROM cursors WHERE sink = ?", (sink,)).fetchone()
        self.place: int = row[0] if row is not None and isinstance(row[0], int) else 0
        self.aside = set_aside_count(reader, sink)

    def is_still_there(self) -> bool:
        """Return whether the file at the path is the one that was opened."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def read(self, limit: int, now: float, *, is_last: bool) -> list[StoredSpan]:
        while (spans := self._read(limit, now, is_last=is_last)) is None:
            pass
        return spans

    def _read(self, limit: int, now: float, *, is_last: bool) -> list[StoredSpan] | None:
        """Return the next spans. None: all the next rows were unreadable and are skipped; read again."""
        last = self._last()
        if last <= self.place:
            if self._is_unwritten:
                self.move(self.place)
            return []
        damaged: list[SetAsideMark] = []
        rows = _readable(read_after(self._reader, self.place, limit), damaged)
        spans = list(_within(rows if is_last else self.settling.ready(rows, last, now), MAX_BATCH_BYTES))
        self._noticed(damaged)
        if damaged and not spans:
            self.move(damaged[-1].seq, damaged)
            return None if self.settling.due is None else []
        if not spans and self.settling.due is None:
            # All rows up to here were replaced by newer rows.
            self.move(last)
        return spans

    def move(self, place: int, marks: Sequence[SetAsideMark] = (), taken: Sequence[str] = ()) -> None:
        """Record the progress: the last row that is done, and new marks. Remove the marks of spans that were ``taken``. May fail."""
        self.place = place
        self._marks |= dict.fromkeys(marks)
        self._is_unwritten = True
        try:
            self._write(place, taken)
        except sqlite3.Error as error:
            self.failed("write place", error)
        else:
            self._is_unwritten = self._has_failed = False

    def take_damaged(self) -> list[SetAsideMark]:
        damaged, self._damaged = self._damaged, []
        return damaged

    def _noticed(self, damaged: Sequence[SetAsideMark]) -> None:
        """Remember unreadable rows: the next :meth:`move` marks them, and :meth:`take_damaged` returns them once."""
        new = [mark for mark in damaged if mark.seq > self._damaged_upto]
        if new:
            self._damaged_upto = new[-1].seq
            self._damaged += new
            self._marks |= dict.fromkeys(new)

    def count(self) -> int:
        try:
            query = "SELECT COUNT(*) FROM (SELECT 1 FROM spans WHERE seq > ? LIMIT ?)"
            counted: int = self._reader.execute(query, (self.place, MAX_COUNTED)).fetchone()[0]
            return counted if counted < MAX_COUNTED else max(self._last() - self.place, counted)
        except sqlite3.Error:
            return 0

    def failed(self, action: str, error: Exception) -> None:
        """Log a failure once, not for each batch."""
        if not self._has_failed:
            logger.warning(
                "sink cannot use span file",
                extra={"sink": self._sink, "file": self._path.name, "action": action, "reason": str(error)},
            )
        self._has_failed = True

    def close(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()

    def _last(self) -> int:
        """Return the number of the last row that was ever written."""
        row = self._reader.execute("SELECT seq FROM sqlite_sequence WHERE name = 'spans'").fetchone()
        return 0 if row is None else row[0]

    def _write(self, place: int, taken: Sequence[str]) -> None:
        if self._writer is None:
            # Do not create the file: retention may have removed it.
            self._writer = sqlite3.connect(
                f"{self._path.as_uri()}?mode=rw", uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None
            )
            self._writer.execute("PRAGMA synchronous = NORMAL")
        writer, marks = self._writer, list(self._marks)
        ids = {mark.span_id for mark in marks}
        delivered = [span_id for span_id in taken if span_id not in ids] if self.aside else []
        try:
            writer.execute("BEGIN IMMEDIATE")
            if marks:
                writer.execute(SET_ASIDE)
                rows = [(self._sink, mark.span_id, mark.seq, mark.reason) for mark in marks]
                writer.executemany(
                    "INSERT OR REPLACE INTO set_aside (sink, span_id, seq, reason) VALUES (?, ?, ?, ?)", rows
                )
            if delivered:  # a better record of the run came, and the sink has taken it
                pairs = [(self._sink, span_id) for span_id in delivered]
                writer.executemany("DELETE FROM set_aside WHERE sink = ? AND span_id = ?", pairs)
            writer.execute(_PLACE, (self._sink, place))
            writer.execute("COMMIT")
        finally:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
        self._marks.clear()
        if marks or delivered:
            self.aside = set_aside_count(self._reader, self._sink)


def _readable(rows: Iterable[StoredSpan | DamagedRow], damaged: list[SetAsideMark]) -> Iterator[StoredSpan]:
    """Yield the spans. Add a mark to ``damaged`` for each row that cannot be read."""
    for row in rows:
        if isinstance(row, DamagedRow):
            damaged.append(SetAsideMark(row.span_id, row.seq, row.reason))
        else:
            yield row


def _open(path: Path, sink: str) -> _FileProgress | None:
    """Open a file, or return None if it cannot be read now: another process may be making or removing it."""
    try:
        reader = open_for_reading(path)
    except sqlite3.Error:
        return None
    try:
        return _FileProgress(path, sink, reader)
    except (sqlite3.Error, OSError):
        reader.close()
        return None


def _within(rows: Iterable[StoredSpan], most: int) -> Iterator[StoredSpan]:
    """Yield rows of about ``most`` bytes together, at least one row."""
    size = 0
    for row in rows:
        own = _size(row.span)
        size += own
        if size > most and size > own:
            return
        yield row


def _size(span: Span) -> int:
    """Return about how many bytes a span has: its content, and what else may be of any size."""
    options = sum(len(repr(value)) for value in span.parameters.values())
    texts = [span.error or "", span.model, *span.tags, *(attempt.reason for attempt in span.attempts)]
    return len(span.content) + options + sum(map(len, texts))
