"""A slot of the span store, written by a test in the collector's place."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.spans.data_directory import file_name
from headrace.spans.span import Span, bounded
from headrace.spans.span_database import COLUMNS, SCHEMA, to_row

_INSERT = f"INSERT OR REPLACE INTO spans ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"


class SlotWriter:
    """Writes database files as the collector does; a span that is there already gets a new row number."""

    def __init__(self, slot: Path) -> None:
        self.slot = slot
        self._connections: dict[Path, sqlite3.Connection] = {}
        slot.mkdir(parents=True, exist_ok=True)

    def write(self, spans: Iterable[Span], day: str = "2026-11-23", number: int = 0) -> dict[Path, int]:
        """Commit spans, within bounds as the collector decodes them; return the mark behind them."""
        path = self.slot / file_name(day, number)
        connection = self._connection(path)
        with connection:
            connection.executemany(_INSERT, [to_row(bounded(span), None) for span in spans])
        return {path: connection.execute("SELECT MAX(seq) FROM spans").fetchone()[0]}

    def execute(self, sql: str, day: str = "2026-11-23") -> list[tuple[object, ...]]:
        connection = self._connection(self.slot / file_name(day, 0))
        with connection:
            return connection.execute(sql).fetchall()

    @contextmanager
    def locked(self, day: str = "2026-11-23") -> Iterator[None]:
        """Hold a file as a writer does in the middle of a transaction."""
        connection = self._connection(self.slot / file_name(day, 0))
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.commit()

    def remove(self, day: str) -> None:
        """Drop a file, as retention does."""
        path = self.slot / file_name(day, 0)
        self._connections.pop(path).close()
        for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            file.unlink(missing_ok=True)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _connection(self, path: Path) -> sqlite3.Connection:
        if path not in self._connections:
            connection = sqlite3.connect(path, timeout=30)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(SCHEMA)
            self._connections[path] = connection
        return self._connections[path]
