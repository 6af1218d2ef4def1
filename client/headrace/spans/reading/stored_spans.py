"""The span databases of a data directory, all slots together, opened for reading: engines write on meanwhile."""

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

from headrace.spans.data_directory import (
    DAMAGE,
    SCHEMA_VERSION,
    StoredSpan,
    database_files,
    from_row,
    open_for_reading,
    set_aside,
    slots,
)
from headrace.spans.reading import span_query
from headrace.spans.reading.span_query import Filters, Order

Complain = Callable[[str], None]
Query = tuple[str, list[Any]]

_FEW = 1000
_SLACK = 86400.0  # how far apart the rows of one run may be in time: as far as a run is long


class SpanFile:
    """One database. What cannot be read is complained about, once, and has no rows."""

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
        """Whether there is anything to be had from it."""
        return self._connection is not None

    def rows(self, query: str, values: Sequence[Any]) -> Iterator[sqlite3.Row]:
        """Yield the rows of a query as they are taken."""
        if self._connection is None:
            return
        try:
            # Not `yield from`, which closes the cursor of a reader that stops early: the connection may be closed by then.
            for row in self._connection.execute(query, values):  # noqa: UP028
                yield row
        except sqlite3.Error as error:
            self._give_up(error)

    def spans(self, rows: Iterable[sqlite3.Row]) -> Iterator[StoredSpan]:
        """Yield what rows of this file say; one that says nothing sensible is left out."""
        for row in rows:
            try:
                yield from_row(row)
            except DAMAGE as error:
                self._complain(f"{self.path}: row {row['seq']} is left out: {error}")

    def value(self, query: str, *values: object) -> Any:
        """Return the one value of a query, None where there is no row."""
        row = next(self.rows(query, values), None)
        return None if row is None else row[0]

    def set_aside(self, span_id: str | None = None) -> list[tuple[str, str, str]]:
        """Return the spans that sinks have set aside, or what they say of one: sink, id and reason of each."""
        try:
            return [] if self._connection is None else set_aside(self._connection, span_id)
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def close(self) -> None:
        """Close it; may be called twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: Exception) -> None:
        complain, self._complain = self._complain, _say_nothing
        complain(f"{self.path} is left out: {error}")
        self.close()


class SpanStore:
    """Databases that are read as one: of several rows for one run only the best is seen."""

    def __init__(self, files: Sequence[SpanFile]) -> None:
        self._files = files

    def newest(self, filters: Filters) -> Iterator[StoredSpan]:
        """Yield spans, the newest first, as they are taken."""
        for number, (row, file) in enumerate(self._merged(filters, "started_at DESC")):
            # Of a few it is quickest to ask every file for each; beyond, to compare all ids once.
            span_id = row["span_id"]
            if self._best(span_id) is file if number < _FEW else span_id not in self._superseded[file]:
                yield from file.spans([row])

    def oldest(self, filters: Filters) -> Iterator[StoredSpan]:
        """Yield all spans, the oldest first, as they are taken."""
        for row, file in self._merged(filters, "started_at"):
            if row["span_id"] not in self._superseded[file]:
                yield from file.spans([row])

    def beginning(self, prefix: str, limit: int) -> list[StoredSpan]:
        """Return the spans whose id begins so, the first by their ids."""
        query = span_query.rows_beginning(prefix, limit)
        found = [(row, file) for file in self._files for row in file.rows(*query)]
        best = [(row, file) for row, file in found if self._best(row["span_id"]) is file]
        spans = [stored for row, file in best for stored in file.spans([row])]
        return sorted(spans, key=lambda stored: stored.span.span_id)[:limit]

    def set_aside(self, span_id: str | None = None) -> list[tuple[str, str, str]]:
        """Return the spans that sinks have set aside, or what they say of one: sink, id and reason of each."""
        return [found for file in self._files for found in file.set_aside(span_id)]

    def each(self, query: Callable[[Sequence[str]], Query]) -> Iterator[sqlite3.Row]:
        """Yield the rows of a query to every file; it is told which runs to leave out of this one."""
        for file, without in self._superseded.items():
            yield from file.rows(*query(sorted(without)))

    def _merged(self, filters: Filters, order: Order) -> Iterator[tuple[sqlite3.Row, SpanFile]]:
        query = span_query.rows(filters, order)
        streams = [zip(file.rows(*query), repeat(file)) for file in self._files]
        yield from heapq.merge(*streams, key=_started_at, reverse=order != "started_at")

    def _best(self, span_id: str) -> SpanFile | None:
        """Return the file whose row for a run stays: the one of the higher rank, then the newer."""
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
        """For each file the runs of which another has a better row."""
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
    """Return a number; what is none comes behind all numbers, as SQLite has it."""
    return value if isinstance(value, int | float) else float("inf")


@contextlib.contextmanager
def opened(directory: Path, complain: Complain, filters: Filters) -> Iterator[SpanStore]:
    """Open what there is below ``directory``, of the files that have spans of the time that ``filters`` name."""
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
    """Return the databases of all slots."""
    return [path for slot in slots(directory) for path in database_files(slot)]


def _in_time(filters: Filters) -> tuple[str, float, float]:
    since = float("-inf") if filters.since is None else filters.since - _SLACK
    until = float("inf") if filters.until is None else filters.until + _SLACK
    return "SELECT EXISTS (SELECT 1 FROM spans WHERE started_at BETWEEN ? AND ?)", since, until


def _connection(path: Path) -> sqlite3.Connection | None:
    """Return a connection, None where the database is only being made; raises sqlite3.Error where it cannot be read."""
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
    raise sqlite3.DatabaseError(f"its form is number {version}, this version of Headrace reads {SCHEMA_VERSION}")


def _say_nothing(_text: str) -> None:
    pass


def _allow_many_files() -> None:
    """Each database takes three descriptors, and there is one for each day and slot."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
