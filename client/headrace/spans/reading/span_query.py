"""Builds the SQL queries of ``headrace spans``: filters, groups and sums. Pure: opens no file."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from headrace.errors import RemoteProtocolError
from headrace.spans.span import SpanContent, decode_content
from headrace.types import ReasoningPart, TextPart, ToolCallPart

Grouping = Literal["model", "provider", "user", "session", "tag", "day"]
Order = Literal["started_at DESC", "started_at"]

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
CONTAINS = "contains_text"
"""The name of :func:`contains_text` in SQL."""

_KEYS: dict[Grouping, str] = {
    "model": "provider || '/' || model",
    "provider": "provider",
    "user": "user_id",
    "session": "session_id",
    "tag": "tag.value",
    "day": "date(started_at, 'unixepoch', 'localtime')",
}
_LAST = "\U0010ffff"
_TAGS = "CASE WHEN json_valid(spans.tags) THEN spans.tags ELSE '[]' END"
"""SQL for a row's tags. One row with invalid tags must not end the whole query."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions for spans. A span must meet all of them. Times are in seconds since 1970."""

    status: str | None = None
    model: str | None = None
    provider: str | None = None
    user: str | None = None
    session: str | None = None
    tags: tuple[str, ...] = ()
    trace: str | None = None
    since: float | None = None
    until: float | None = None
    text: str | None = None

    def condition(self) -> tuple[str, list[Any]]:
        """Return the SQL after WHERE, and its parameters."""
        found = [*self._equal(), *self._times(), *self._others()]
        return " AND ".join(["1", *(sql for sql, _ in found)]), [value for _, values in found for value in values]

    def _equal(self) -> Iterator[tuple[str, list[Any]]]:
        columns = {
            "status": self.status,
            "model": self.model,
            "provider": self.provider,
            "user_id": self.user,
            "session_id": self.session,
        }
        for column, value in columns.items():
            if value is not None:
                has_wildcard = column == "model" and any(sign in value for sign in "*?[")
                yield f"{column} {'GLOB' if has_wildcard else '='} ?", [value]

    def _times(self) -> Iterator[tuple[str, list[Any]]]:
        if self.since is not None:
            yield "started_at >= ?", [self.since]
        if self.until is not None:
            yield "started_at < ?", [self.until]

    def _others(self) -> Iterator[tuple[str, list[Any]]]:
        for tag in self.tags:
            yield f"EXISTS (SELECT 1 FROM json_each({_TAGS}) WHERE value = ?)", [tag]  # noqa: S608 - no value is in it
        if self.trace is not None:
            yield "(trace_id = ? OR substr(traceparent, 4, 32) = ?)", [self.trace, self.trace]
        if self.text is not None:
            # LIKE is quick, but does not know JSON or the case of all letters. The function checks the rows that it
            # finds.
            yield "content LIKE ?", ["%" + re.sub("[^a-zA-Z0-9 ]+", "%", self.text) + "%"]
            yield f"{CONTAINS}(CAST(content AS BLOB), ?)", [self.text]


def rows(filters: Filters, order: Order) -> tuple[str, list[Any]]:
    """Return the query for whole rows."""
    condition, values = filters.condition()
    return f"SELECT * FROM spans WHERE {condition} ORDER BY {order}", values  # noqa: S608 - no value is in it


def rows_after(filters: Filters, after: int, upto: int) -> tuple[str, list[Any]]:
    """Return the query for rows with a sequence number above ``after`` and at most ``upto``."""
    condition, values = filters.condition()
    query = f"SELECT * FROM spans WHERE {condition} AND seq > ? AND seq <= ? ORDER BY seq"  # noqa: S608
    return query, [*values, after, upto]


def rows_beginning(prefix: str, limit: int) -> tuple[str, list[Any]]:
    """Return the query for rows whose id begins with ``prefix``, which may lack ``sp_``."""
    whole = prefix if prefix.startswith("sp_") else f"sp_{prefix}"
    query = "SELECT * FROM spans WHERE span_id >= ? AND span_id < ? ORDER BY span_id LIMIT ?"
    return query, [whole, whole + _LAST, limit]


def sums(filters: Filters, by: Grouping, without: Sequence[str]) -> tuple[str, list[Any]]:
    """Return the query for counts and sums by group. ``without``: runs that have a better row in another file."""
    select = f"""
        SELECT {_KEYS[by]}, count(*), total(status = 'error'), total(status = 'aborted'),
            total(input_tokens), total(output_tokens), total(cost), total(cost IS NULL AND usage_source != 'none'),
            total(usage_source != 'none'), count(cost)
    """
    return _grouped(select, "GROUP BY 1", filters, by, without)


def seconds(filters: Filters, by: Grouping, without: Sequence[str]) -> tuple[str, list[Any]]:
    """Return the query for the duration of each successful run, and its time until the first chunk."""
    select = f"SELECT {_KEYS[by]}, duration_seconds, first_chunk_seconds"
    return _grouped(select, "AND status = 'ok'", filters, by, without)


def errors(filters: Filters, without: Sequence[str]) -> tuple[str, list[Any]]:
    """Return the query for the number of errors by type."""
    select = "SELECT coalesce(error_type, ''), count(*)"
    return _grouped(select, "AND status = 'error' GROUP BY 1", filters, "model", without)


def unpriced(filters: Filters, without: Sequence[str]) -> tuple[str, list[Any]]:
    """Return the query for the number of runs with a usage and no price, by model."""
    select = f"SELECT {_KEYS['model']}, count(*)"
    return _grouped(select, "AND cost IS NULL AND usage_source != 'none' GROUP BY 1", filters, "model", without)


def contains_text(content: bytes, text: str) -> bool:
    """Return whether the request or the answer contains ``text``, in upper or lower case."""
    try:
        found = texts(decode_content(content))
    except RemoteProtocolError:
        return False
    wanted = text.casefold()
    return any(wanted in each.casefold() for each in found)


def texts(content: SpanContent) -> Iterator[str]:
    """Yield each text in a span's content."""
    yield from (content.text, content.reasoning, content.refusal or "", *content.inputs)
    for call in content.tool_calls:
        yield from (call.name, call.arguments)
    for message in content.messages:
        if isinstance(message.content, str):
            yield message.content
            continue
        for part in message.content:
            match part:
                case TextPart() | ReasoningPart():
                    yield part.text
                case ToolCallPart():
                    yield from (part.name, msgspec.json.encode(part.arguments).decode())
                case _:
                    pass


def moment(text: str, now: float) -> float:
    """Return the time for ``10m``, ``2h``, ``3d`` (before ``now``) or an ISO date, in seconds since 1970.

    Raises ValueError.

    A date without a time zone is in this machine's zone.
    """
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text):
        return now - float(match[1]) * SECONDS[match[2]]
    return datetime.datetime.fromisoformat(text).timestamp()


def _grouped(select: str, rest: str, filters: Filters, by: Grouping, without: Sequence[str]) -> tuple[str, list[Any]]:
    condition, values = filters.condition()
    source = f"spans, json_each({_TAGS}) AS tag" if by == "tag" else "spans"
    if without:
        condition += " AND span_id NOT IN (SELECT value FROM json_each(?))"
        values.append(msgspec.json.encode(list(without)).decode())
    return f"{select} FROM {source} WHERE {condition} {rest}", values
