"""``headrace spans list`` and ``tail``: shows spans as lines of a table that fits the terminal. Pure: returns lines."""

from __future__ import annotations

from typing import NamedTuple, TextIO

from headrace.cli.shared.terminal import dim, fitted, one_line, red
from headrace.cli.spans.span_figures import dollars, milliseconds, short_time
from headrace.spans.span import content_of
from headrace.spans.span_database import StoredSpan

_GAP = "  "
_LEAST_TEXT = 18
_ID = len("sp_") + 8  # enough to type: `headrace spans show` takes the beginning of an id
_FROM_TEXT = 400  # characters of a text; no terminal is wider


class _Column(NamedTuple):
    head: str
    width: int
    is_number: bool = False


_COLUMNS = (
    _Column("TIME", 11),
    _Column("SPAN", _ID),
    _Column("STATUS", 7),
    _Column("MODEL", 0),  # its width depends on that of the terminal
    _Column("MS", 6, is_number=True),
    _Column("FIRST", 6, is_number=True),
    _Column("TOKENS", 11, is_number=True),
    _Column("COST $", 9, is_number=True),
)
_DROPPED = ("FIRST", "TOKENS", "COST $", "MS", "TIME", "MODEL")
"""The columns that are left out in a narrow terminal, the first one first."""


class Table:
    """A table of spans, ``width`` columns wide. ``out`` decides whether colours are used."""

    def __init__(self, width: int, out: TextIO) -> None:
        self._out = out
        model = min(max(width // 6, 14), 26)
        self._columns = [column if column.width else column._replace(width=model) for column in _COLUMNS]
        for head in _DROPPED:
            if self._text_width(width) < _LEAST_TEXT:
                self._columns = [column for column in self._columns if column.head != head]
        self._text = max(self._text_width(width), 1)

    def head(self) -> str:
        """Return the line with the names of the columns."""
        heads = [fitted(column.head, column.width, column.is_number) for column in self._columns]
        return dim(_GAP.join([*heads, "TEXT"]), self._out)

    def line(self, stored: StoredSpan, now: float) -> str:
        """Return the line of one span. ``now`` is in seconds since 1970."""
        cells = _cells(stored, now)
        parts = []
        for column in self._columns:
            part = fitted(one_line(cells[column.head]), column.width, column.is_number)
            if column.head == "STATUS":
                part = {"error": red, "aborted": dim}.get(stored.span.status, _plain)(part, self._out)
            parts.append(part)
        return _GAP.join([*parts, fitted(result_line(stored), self._text).rstrip()]).rstrip()

    def _text_width(self, width: int) -> int:
        return width - sum(column.width + len(_GAP) for column in self._columns)


def _cells(stored: StoredSpan, now: float) -> dict[str, str]:
    span = stored.span
    return {
        "TIME": short_time(span.started_at, now),
        "SPAN": span.span_id[:_ID],
        "STATUS": span.status,
        "MODEL": span.model,
        "MS": milliseconds(span.duration_seconds),
        "FIRST": milliseconds(span.first_chunk_seconds),
        "TOKENS": "-" if span.usage.source == "none" else f"{span.usage.input_tokens}/{span.usage.output_tokens}",
        "COST $": dollars(stored.cost),
    }


def result_line(stored: StoredSpan) -> str:
    """Return the result of a run on one line: its error, or the beginning of its answer."""
    span, content = stored.span, content_of(stored.span)
    if span.status == "error":
        return one_line(f"{span.error_type or 'error'}: {span.error or ''}"[:_FROM_TEXT]).removesuffix(":")
    if answer := content.text or content.refusal:
        return one_line(answer[:_FROM_TEXT])
    if content.tool_calls:
        return one_line(" ".join(f"→ {call.name}({call.arguments})" for call in content.tool_calls)[:_FROM_TEXT])
    if content.media:
        return one_line(f"({', '.join(part.media_type or 'file' for part in content.media)})"[:_FROM_TEXT])
    if content.inputs:
        return f"({len(content.inputs)} texts embedded)"
    return one_line(f"({span.content_note})") if span.content_note else ""


def _plain(text: str, _out: TextIO) -> str:
    return text
