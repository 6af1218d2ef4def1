"""The database of spans, a SQLite file: its schema, rows to and from spans, and how it is read.

Only the collector writes databases. Others read them, to show spans.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from headrace.spans.span import COUNTS, TIMES, Rank, Span, SpanAttempt, bounded
from headrace.spans.value_bounds import count, dollars
from headrace.types import Usage

SCHEMA_VERSION = 1

COLUMNS = (
    "span_id", "rank", "trace_id", "parent_span_id", "traceparent", "kind", "provider", "model", "response_model",
    "response_id", "streamed", "status", "error_type", "error", "finish_reason", "provider_finish_reason", "started_at",
    "ended_at", "duration_seconds", "queue_seconds", "first_chunk_seconds", "input_tokens", "output_tokens",
    "total_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens", "usage_source", "cost", "user_id",
    "session_id", "tags", "parameters", "attempts", "content", "content_note",
    "queue_reason",
)  # fmt: skip
"""All columns but ``seq``.

Times as in :class:`headrace.spans.span.Span`. ``tags``, ``parameters``, ``attempts``, ``content``: JSON.
"""

QUEUE_REASON = "queue_reason TEXT NOT NULL DEFAULT ''"
"""A column that a file of an earlier version gets when it is next opened for writing. Readers do without it."""

SET_ASIDE = """
CREATE TABLE IF NOT EXISTS set_aside (  -- spans that a sink will never take, and why; they stay in the store
    sink TEXT NOT NULL,
    span_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (sink, span_id)
)
"""
"""A file of an earlier version gets this table when a sink first sets a span aside."""

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS spans (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- grows with each write: a row that is replaced gets a new one
    span_id TEXT NOT NULL UNIQUE,
    rank INTEGER NOT NULL,
    trace_id TEXT NOT NULL, parent_span_id TEXT, traceparent TEXT,
    kind TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, response_model TEXT NOT NULL, response_id TEXT,
    streamed INTEGER NOT NULL, status TEXT NOT NULL, error_type TEXT, error TEXT,
    finish_reason TEXT, provider_finish_reason TEXT,
    started_at REAL NOT NULL, ended_at REAL NOT NULL,
    duration_seconds REAL NOT NULL, queue_seconds REAL NOT NULL, first_chunk_seconds REAL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, total_tokens INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
    usage_source TEXT NOT NULL, cost REAL,
    user_id TEXT, session_id TEXT,
    tags TEXT NOT NULL, parameters TEXT NOT NULL, attempts TEXT NOT NULL,
    content TEXT NOT NULL, content_note TEXT NOT NULL,
    {QUEUE_REASON}
);
CREATE INDEX IF NOT EXISTS spans_started_at ON spans (started_at);
CREATE INDEX IF NOT EXISTS spans_trace_id ON spans (trace_id);
CREATE TABLE IF NOT EXISTS cursors (  -- how far each sink has come in this file
    sink TEXT PRIMARY KEY,
    seq INTEGER NOT NULL
);
{SET_ASIDE};
PRAGMA user_version = {SCHEMA_VERSION};
"""

_USAGE = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "total_tokens": "total_tokens",
    "cached_input_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "source": "usage_source",
}
_AS_THEY_ARE = frozenset(COLUMNS) - {"cost", "tags", "parameters", "attempts", "queue_reason", *_USAGE.values()}
_TEXTS = (*(_AS_THEY_ARE - {"rank", "streamed", "content", *TIMES}), "queue_reason")
_LISTS_OF_ATTEMPTS = msgspec.json.Decoder(list[SpanAttempt])
_json = msgspec.json.Encoder().encode


DAMAGE = (msgspec.MsgspecError, ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError)
"""The exceptions of :func:`from_row` for a row that another program wrote, or that the disk damaged."""


class DamagedRow(msgspec.Struct, frozen=True):
    """A row that cannot be read, and why."""

    seq: int
    span_id: str
    reason: str


class StoredSpan(msgspec.Struct, frozen=True):
    """A stored span. ``seq`` grows with each write. ``cost`` is in US dollars, None if unknown."""

    seq: int
    span: Span
    cost: float | None


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Return a read-only connection.

    Raises sqlite3.Error if the file does not exist, or has a view in place of a table.
    """
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5.0)
    try:
        _check_tables(connection)
    except BaseException:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
    connection.text_factory = stored_text
    return connection


def _check_tables(connection: sqlite3.Connection) -> None:
    query = "SELECT name FROM sqlite_master WHERE type = 'view' AND lower(name) IN ('spans', 'cursors', 'set_aside')"
    if (found := connection.execute(query).fetchone()) is not None:
        raise sqlite3.DatabaseError(f"{found[0]} is a view, not a table; a view may run forever")


def stored_text(data: bytes) -> str:
    """Decode a stored text. Bytes that are not UTF-8 become U+FFFD: one damaged letter must not hide a whole file."""
    return data.decode("utf-8", "replace")


def to_row(span: Span, cost: float | None) -> tuple[Any, ...]:
    """Return the values of a span in the order of :data:`COLUMNS`. The span is within bounds, as :func:`decode_span` makes it."""
    cost = dollars(cost)
    usage = span.usage
    return (
        span.span_id, int(span.rank), span.trace_id, span.parent_span_id, span.traceparent, span.kind, span.provider,
        span.model, span.response_model, span.response_id, span.streamed, span.status, span.error_type, span.error,
        span.finish_reason, span.provider_finish_reason, span.started_at, span.ended_at, span.duration_seconds,
        span.queue_seconds, span.first_chunk_seconds, usage.input_tokens, usage.output_tokens, usage.total_tokens,
        usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens, usage.source, cost, span.user_id,
        span.session_id, _json(span.tags).decode() if span.tags else "[]",
        _json(span.parameters).decode() if span.parameters else "{}", _json(span.attempts).decode(),
        span.content.decode("utf-8", "replace"), span.content_note, span.queue_reason,
    )  # fmt: skip


def from_row(row: sqlite3.Row) -> StoredSpan:
    """Return the span in a row, with its values within bounds. Raises one of :data:`DAMAGE` for a damaged row."""
    values: dict[str, Any] = {name: row[name] for name in _AS_THEY_ARE}
    values["rank"] = Rank(row["rank"])
    values["streamed"] = bool(row["streamed"])
    values["content"] = row["content"].encode()
    usage: dict[str, Any] = {field: row[column] for field, column in _USAGE.items()}
    usage.update({name: count(usage[name]) for name in COUNTS if type(usage[name]) is not int})
    values["usage"] = Usage(**usage)
    values["tags"] = msgspec.json.decode(row["tags"], type=list[str])
    values["parameters"] = msgspec.json.decode(row["parameters"], type=dict[str, Any])
    values["queue_reason"] = (row["queue_reason"] or "") if "queue_reason" in row.keys() else ""  # noqa: SIM118 - a row
    values["attempts"] = _LISTS_OF_ATTEMPTS.decode(row["attempts"])
    if odd := [name for name in _TEXTS if not isinstance(values[name], str | None)]:
        raise TypeError(f"{odd[0]} is not a text")
    if odd := [name for name in TIMES if not isinstance(values[name], float | int | None)]:
        raise TypeError(f"{odd[0]} is not a number")
    return StoredSpan(row["seq"], bounded(Span(**values)), dollars(row["cost"]))


def fields_of(stored: StoredSpan) -> dict[str, Any]:
    """Return a span as a dict for programs: all its fields, and its cost. ``content`` stays encoded."""
    span = stored.span
    fields: dict[str, Any] = msgspec.structs.asdict(span)
    fields["rank"] = span.rank.name.lower()
    fields["usage"] = msgspec.structs.asdict(span.usage)
    fields["attempts"] = [msgspec.structs.asdict(attempt) for attempt in span.attempts]
    return fields | {"cost": stored.cost}


def read_after(connection: sqlite3.Connection, seq: int, limit: int) -> Iterator[StoredSpan | DamagedRow]:
    """Yield the rows written after ``seq``, in the order of writing. A damaged row gives a DamagedRow."""
    query = "SELECT * FROM spans WHERE seq > ? ORDER BY seq LIMIT ?"
    for row in connection.execute(query, (seq, limit)):
        try:
            yield from_row(row)
        except DAMAGE as error:
            yield DamagedRow(row["seq"], str(row["span_id"]), f"damaged in the store: {type(error).__name__}")


def set_aside(connection: sqlite3.Connection, span_id: str | None = None) -> list[tuple[str, str, str]]:
    """Return (sink, span id, reason) for each span that a sink has set aside, or only for the span ``span_id``."""
    if not _has_set_aside(connection):
        return []
    query, values = "SELECT sink, span_id, reason FROM set_aside", [] if span_id is None else [span_id]
    where = "" if span_id is None else " WHERE span_id = ?"
    return [tuple(map(str, row)) for row in connection.execute(f"{query}{where} ORDER BY sink, seq", values)]  # type: ignore[misc]


def set_aside_count(connection: sqlite3.Connection, sink: str) -> int:
    """Return the number of spans that a sink has set aside."""
    if not _has_set_aside(connection):
        return 0
    count: int = connection.execute("SELECT count(*) FROM set_aside WHERE sink = ?", (sink,)).fetchone()[0]
    return count


def _has_set_aside(connection: sqlite3.Connection) -> bool:
    """Return whether a database has the table. Older databases have none."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'set_aside'").fetchone() is not None
