"""What ``headrace spans`` asks of a database file, as SQL. Pure: opens nothing."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from headrace.errors import RemoteProtocolError
from headrace.spans.data_directory import COLUMNS
from headrace.spans.span import SpanContent, decode_content
from headrace.types import ReasoningPart, TextPart, ToolCallPart

Grouping = Literal["model", "provider", "user", "session", "tag", "day"]
Order = Literal["started_at DESC", "started_at"]

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
ROW = "seq, " + ", ".join(COLUMNS)
CONTAINS = "contains_text"
"""What :func:`contains_text` is called in SQL."""

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
"""One row whose tags somebody spoiled must not end a query."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which spans are wanted: all conditions must hold. Times in seconds since 1970."""

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
        """Return what follows WHERE, and its parameters."""
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
            # LIKE knows nothing of JSON, and the case of few letters, but is quick: not many rows reach the function.
            yield "content LIKE ?", ["%" + re.sub("[^a-zA-Z0-9 ]+", "%", self.text) + "%"]
            yield f"{CONTAINS}(CAST(content AS BLOB), ?)", [self.text]


def rows(filters: Filters, order: Order) -> tuple[str, list[Any]]:
    """Return the query for whole rows."""
    condition, values = filters.condition()
    return f"SELECT {ROW} FROM spans WHERE {condition} ORDER BY {order}", values  # noqa: S608 - no value is in it


def rows_after(filters: Filters, after: int, upto: int) -> tuple[str, list[Any]]:
    """Return the query for rows that were written after one and up to another."""
    condition, values = filters.condition()
    query = f"SELECT {ROW} FROM spans WHERE {condition} AND seq > ? AND seq <= ? ORDER BY seq"  # noqa: S608
    return query, [*values, after, upto]


def rows_beginning(prefix: str, limit: int) -> tuple[str, list[Any]]:
    """Return the query for rows whose id begins so; ``sp_`` may be left out."""
    whole = prefix if prefix.startswith("sp_") else f"sp_{prefix}"
    query = f"SELECT {ROW} FROM spans WHERE span_id >= ? AND span_id < ? ORDER BY span_id LIMIT ?"  # noqa: S608
    return query, [whole, whole + _LAST, limit]


def sums(filters: Filters, by: Grouping, without: Sequence[str]) -> tuple[str, list[Any]]:
    """Return the query for counts and sums by group; ``without`` names runs that a better row elsewhere stands for."""
    select = f"""
        SELECT {_KEYS[by]}, count(*), total(status = 'error'), total(status = 'aborted'),
            total(input_tokens), total(output_tokens), total(cost), total(cost IS NULL AND usage_source != 'none'),
            total(usage_source != 'none'), count(cost)
    """
    return _grouped(select, "GROUP BY 1", filters, by, without)


def seconds(filters: Filters, by: Grouping, without: Sequence[str]) -> tuple[str, list[Any]]:
    """Return the query for the durations of each run that ended well, and until its first chunk."""
    select = f"SELECT {_KEYS[by]}, duration_seconds, first_chunk_seconds"
    return _grouped(select, "AND status = 'ok'", filters, by, without)


def errors(filters: Filters, without: Sequence[str]) -> tuple[str, list[Any]]:
    """Return the query for the number of errors by type."""
    select = "SELECT coalesce(error_type, ''), count(*)"
    return _grouped(select, "AND status = 'error' GROUP BY 1", filters, "model", without)


def unpriced(filters: Filters, without: Sequence[str]) -> tuple[str, list[Any]]:
    """Return the query for the number of runs by model that have usage but no price."""
    select = f"SELECT {_KEYS['model']}, count(*)"
    return _grouped(select, "AND cost IS NULL AND usage_source != 'none' GROUP BY 1", filters, "model", without)


def contains_text(content: bytes, text: str) -> bool:
    """Return whether what was asked or answered has ``text`` in it, whatever the case of its letters."""
    try:
        found = texts(decode_content(content))
    except RemoteProtocolError:
        return False
    wanted = text.casefold()
    return any(wanted in each.casefold() for each in found)


def texts(content: SpanContent) -> Iterator[str]:
    """Yield every text of a conversation."""
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
    """Return the time that ``10m``, ``2h``, ``3d`` (before ``now``) or an ISO date means; raises ValueError.

    A date without a zone is one of this machine's.
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
