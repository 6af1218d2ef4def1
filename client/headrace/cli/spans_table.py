"""Spans as lines of a table that fits the terminal, and the words and figures that all of ``headrace spans`` shares. Pure."""

from __future__ import annotations

import datetime
import unicodedata
from typing import NamedTuple, TextIO

from headrace.cli.terminal import dim, one_line, red
from headrace.spans import value_bounds as span_bounds
from headrace.spans.data_directory import StoredSpan
from headrace.spans.span import content_of

_GAP = "  "
_LEAST_TEXT = 18
_ID = len("sp_") + 8  # as much as one would type; `show` takes it
_FROM_TEXT = 400  # characters: more does not fit any terminal


class _Column(NamedTuple):
    head: str
    width: int
    is_number: bool = False


_COLUMNS = (
    _Column("TIME", 11),
    _Column("SPAN", _ID),
    _Column("STATUS", 7),
    _Column("MODEL", 0),  # a share of the terminal
    _Column("MS", 6, is_number=True),
    _Column("FIRST", 6, is_number=True),
    _Column("TOKENS", 11, is_number=True),
    _Column("COST $", 9, is_number=True),
)
_DROPPED = ("FIRST", "TOKENS", "COST $", "MS", "TIME", "MODEL")
"""What a narrow terminal goes without, in this order."""


class Table:
    """Spans for a terminal of ``width`` columns; ``out`` says whether there may be colour."""

    def __init__(self, width: int, out: TextIO) -> None:
        self._out = out
        model = min(max(width // 6, 14), 26)
        self._columns = [column if column.width else column._replace(width=model) for column in _COLUMNS]
        for head in _DROPPED:
            if self._text_width(width) < _LEAST_TEXT:
                self._columns = [column for column in self._columns if column.head != head]
        self._text = max(self._text_width(width), 1)

    def head(self) -> str:
        """Return the line above all others."""
        heads = [fitted(column.head, column.width, column.is_number) for column in self._columns]
        return dim(_GAP.join([*heads, "TEXT"]), self._out)

    def line(self, stored: StoredSpan, now: float) -> str:
        """Return a span's line."""
        cells = _cells(stored, now)
        parts = []
        for column in self._columns:
            part = fitted(one_line(cells[column.head]), column.width, column.is_number)
            if column.head == "STATUS":
                part = {"error": red, "aborted": dim}.get(stored.span.status, _plain)(part, self._out)
            parts.append(part)
        return _GAP.join([*parts, fitted(gist(stored), self._text).rstrip()]).rstrip()

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


def gist(stored: StoredSpan) -> str:
    """Return one line that says what came of a run: its error, else the beginning of its answer."""
    span, content = stored.span, content_of(stored.span)
    if span.status == "error":
        return one_line(f"{span.error_type or 'error'}: {span.error or ''}"[:_FROM_TEXT]).removesuffix(":")
    if answer := content.text or content.refusal:
        return one_line(answer[:_FROM_TEXT])
    if content.tool_calls:
        return one_line(" ".join(f"→ {call.name}({call.arguments})" for call in content.tool_calls)[:_FROM_TEXT])
    if content.inputs:
        return f"({len(content.inputs)} texts embedded)"
    return one_line(f"({span.content_note})") if span.content_note else ""


def local_time(seconds: float) -> datetime.datetime:
    """Return the local time of a moment, the nearest that a calendar has."""
    return datetime.datetime.fromtimestamp(span_bounds.seconds(seconds)).astimezone()


def short_time(seconds: float, now: float) -> str:
    """Return the local time of day, or the day with it where that is another."""
    then = local_time(seconds)
    is_today = then.date() == datetime.datetime.fromtimestamp(now).astimezone().date()
    return then.strftime("%H:%M:%S" if is_today else "%m-%d %H:%M")


def milliseconds(seconds: float | None) -> str:
    """Return whole milliseconds, a dash for none."""
    return "-" if seconds is None else f"{span_bounds.real(seconds * 1000):.0f}"


def dollars(cost: float | None) -> str:
    """Return a sum with the digits that matter, a dash where it is not known."""
    if cost is None:
        return "-"
    if 0 < cost < 0.000001:  # noqa: PLR2004 - the last digit that is shown
        return "<0.000001"
    return f"{cost:,.2f}" if cost >= 1 else f"{cost:.6f}"


def fitted(text: str, width: int, is_number: bool = False) -> str:
    """Return ``text`` in exactly ``width`` columns of a terminal, where wide letters take two."""
    if _width(text) > width:
        text = _cut(text, width - 1) + "…"
    padding = " " * (width - _width(text))
    return padding + text if is_number else text + padding


def _cut(text: str, width: int) -> str:
    taken = 0
    for index, letter in enumerate(text):
        taken += _width(letter)
        if taken > width:
            return text[:index]
    return text


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _plain(text: str, _out: TextIO) -> str:
    return text
