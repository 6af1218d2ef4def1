"""Reads the span databases in all slots of a data directory as one store, while engines may write to them."""

from __future__ import annotations

import contextlib
import heapq
import resource
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise, repeat
from operator import itemgetter
from pathlib import Path
from typing import Any

from headrace.spans.data_directory import database_files, slots
from headrace.spans.reading import span_query
from headrace.spans.reading.span_query import Filters, Order
from headrace.spans.span_database import DAMAGE, SCHEMA_VERSION, StoredSpan, from_row, open_for_reading, set_aside

Complain = Callable[[str], None]
Query = tuple[str, list[Any]]

_FEW = 1000
_SLACK = 86400.0  # seconds between the times in the rows of one run, at most: the longest run


class SpanFile:
    """One database. If it cannot be read, it complains once and has no rows."""

    def __init__(self, path: Path, complain: Complain) -> None:
        self.path = path
        self._complain = complain
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = _connection(path)
        except sqlite3.Error as error:
            self._give_up(error)

    @property
    def is_readable(self) -> bool:
        """Whether the file can be read."""
        return self._connection is not None

    def rows(self, query: str, values: Sequence[Any]) -> Iterator[sqlite3.Row]:
        """Yield the rows of a query, one by one."""
        if self._connection is None:
            return
        try:
            # Not `yield from`: it closes the cursor when a reader stops early. The connection may be closed by then.
            for row in self._connection.execute(query, values):  # noqa: UP028
                yield row
        except sqlite3.Error as error:
            self._give_up(error)

    def spans(self, rows: Iterable[sqlite3.Row]) -> Iterator[StoredSpan]:
        """Yield the spans in rows of this file. Damaged rows are left out, with a complaint."""
        for row in rows:
            try:
                yield from_row(row)
            except DAMAGE as error:
                self._complain(f"{self.path}: row {row['seq']} is left out: {error}")

    def value(self, query: str, *values: object) -> Any:
        """Return the single value of a query, or None if it has no row."""
        row = next(self.rows(query, values), None)
        return None if row is None else row[0]

    def set_aside(self, span_id: str | None = None) -> list[tuple[str, str, str]]:
        """Return (sink, span id, reason) for each span that a sink has set aside, or only for the span ``span_id``."""
        try:
            return [] if self._connection is None else set_aside(self._connection, span_id)
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: Exception) -> None:
        complain, self._complain = self._complain, _say_nothing
        complain(f"{self.path} is left out: {error}")
        self.close()


class SpanStore:
    """Several databases, read as one. If a run has rows in several files, only its best row is returned."""

    def __init__(self, files: Sequence[SpanFile]) -> None:
        self._files = files

    def newest(self, filters: Filters) -> Iterator[StoredSpan]:
        """Yield spans one by one, the newest first."""
        for number, (row, file) in enumerate(self._merged(filters, "started_at DESC")):
            # For a few spans, ask each file for the id. For more, it is quicker to compare all ids once.
            span_id = row["span_id"]
            if self._best(span_id) is file if number < _FEW else span_id not in self._superseded[file]:
                yield from file.spans([row])

    def oldest(self, filters: Filters) -> Iterator[StoredSpan]:
        """Yield all spans one by one, the oldest first."""
        for row, file in self._merged(filters, "started_at"):
            if row["span_id"] not in self._superseded[file]:
                yield from file.spans([row])

    def beginning(self, prefix: str, limit: int) -> list[StoredSpan]:
        """Return the first ``limit`` spans whose id begins with ``prefix``, in the order of their ids."""
        query = span_query.rows_beginning(prefix, limit)
        found = [(row, file) for file in self._files for row in file.rows(*query)]
        best = [(row, file) for row, file in found if self._best(row["span_id"]) is file]
        spans = [stored for row, file in best for stored in file.spans([row])]
        return sorted(spans, key=lambda stored: stored.span.span_id)[:limit]

    def set_aside(self, span_id: str | None = None) -> list[tuple[str, str, str]]:
        """Return (sink, span id, reason) for each span that a sink has set aside, or only for the span ``span_id``."""
        return [found for file in self._files for found in file.set_aside(span_id)]

    def each(self, query: Callable[[Sequence[str]], Query]) -> Iterator[sqlite3.Row]:
        """Yield the rows of a query on each file. ``query`` gets the runs to leave out in this file."""
        for file, without in self._superseded.items():
            yield from file.rows(*query(sorted(without)))

    def _merged(self, filters: Filters, order: Order) -> Iterator[tuple[sqlite3.Row, SpanFile]]:
        query = span_query.rows(filters, order)
        streams = [zip(file.rows(*query), repeat(file)) for file in self._files]
        yield from heapq.merge(*streams, key=_started_at, reverse=order != "started_at")

    def _best(self, span_id: str) -> SpanFile | None:
        """Return the file with the best row for a run: the row of the highest rank, then the newest."""
        if len(self._files) == 1:
            return self._files[0]
        query = "SELECT rank, started_at FROM spans WHERE span_id = ?"
        found = [
            (*map(_number, row), number)
            for number, file in enumerate(self._files)
            for row in file.rows(query, [span_id])
        ]
        return self._files[int(max(found)[-1])] if found else None

    @cached_property
    def _superseded(self) -> dict[SpanFile, set[str]]:
        """File → the runs for which another file has a better row."""
        superseded: dict[SpanFile, set[str]] = {file: set() for file in self._files}
        if len(self._files) > 1:
            ids = [
                map(itemgetter(0), file.rows("SELECT span_id FROM spans ORDER BY span_id", [])) for file in self._files
            ]
            for span_id in {one for one, next_one in pairwise(heapq.merge(*ids)) if one == next_one}:
                best = self._best(span_id)
                for file in self._files:
                    if file is not best:
                        superseded[file].add(span_id)
        return superseded


def _started_at(found: tuple[sqlite3.Row, SpanFile]) -> float:
    return _number(found[0]["started_at"])


def _number(value: object) -> float:
    """Return a number. Other values come after all numbers, as in SQLite's order."""
    return value if isinstance(value, int | float) else float("inf")


@contextlib.contextmanager
def opened(directory: Path, complain: Complain, filters: Filters) -> Iterator[SpanStore]:
    """Open the databases below ``directory`` that have spans in the time of ``filters``."""
    _allow_many_files()
    with contextlib.ExitStack() as stack:
        files = []
        for path in paths(directory):
            file = SpanFile(path, complain)
            stack.callback(file.close)
            if file.value(*_in_time(filters)):
                files.append(file)
        yield SpanStore(files)


def paths(directory: Path) -> list[Path]:
    """Return the database files of all slots."""
    return [path for slot in slots(directory) for path in database_files(slot)]


def _in_time(filters: Filters) -> tuple[str, float, float]:
    since = float("-inf") if filters.since is None else filters.since - _SLACK
    until = float("inf") if filters.until is None else filters.until + _SLACK
    return "SELECT EXISTS (SELECT 1 FROM spans WHERE started_at BETWEEN ? AND ?)", since, until


def _connection(path: Path) -> sqlite3.Connection | None:
    """Return a connection, or None if the database is just being created. Raises sqlite3.Error if it cannot be read."""
    connection = open_for_reading(path)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.create_function(span_query.CONTAINS, 2, span_query.contains_text, deterministic=True)
    except BaseException:
        connection.close()
        raise
    if version == SCHEMA_VERSION:
        return connection
    connection.close()
    if version == 0:
        return None
    raise sqlite3.DatabaseError(
        f"its schema version is {version}; this version of Headrace reads version {SCHEMA_VERSION}"
    )


def _say_nothing(_text: str) -> None:
    pass


def _allow_many_files() -> None:
    """Raise the limit on open files: each database needs three descriptors, and each day and slot has a database."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
