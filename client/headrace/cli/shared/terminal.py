"""Text for a terminal: colours, one line, a fixed width, and JSON.

Control characters are escaped: see headrace.text.escaping.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from typing import Any, TextIO

from headrace.spans import value_bounds as span_bounds
from headrace.text.escaping import escaped


def bold(text: str, stream: TextIO) -> str:
    """Return ``text`` in bold, for a heading, if ``stream`` is a terminal."""
    return _styled("1", text, stream)


def dim(text: str, stream: TextIO) -> str:
    """Return ``text`` in a dim colour, for a remark, if ``stream`` is a terminal."""
    return _styled("2", text, stream)


def red(text: str, stream: TextIO) -> str:
    """Return ``text`` in red, for a problem, if ``stream`` is a terminal."""
    return _styled("31", text, stream)


def green(text: str, stream: TextIO) -> str:
    """Return ``text`` in green, for a success, if ``stream`` is a terminal."""
    return _styled("32", text, stream)


def one_line(text: str) -> str:
    """Return ``text`` on one line, with control characters escaped."""
    return " ".join(escaped(text).split())


def complain(text: str) -> None:
    """Print an error on standard error, on one line."""
    print(red("headrace:", sys.stderr), one_line(text), file=sys.stderr)


def as_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON.

    JSON cannot write an infinite number, such as a model's 1e999: it becomes the largest float.
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(span_bounds.encodable(value), indent=indent, ensure_ascii=False)


def fitted(text: str, width: int, is_number: bool = False) -> str:
    """Return ``text`` in exactly ``width`` columns of a terminal.

    Wide letters, such as Chinese ones, take two columns.
    """
    if _width(text) > width:
        text = _cut(text, width - 1) + "…"
    padding = " " * (width - _width(text))
    return padding + text if is_number else text + padding


def _styled(code: str, text: str, stream: TextIO) -> str:
    # https://no-color.org: any value but the empty one.
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    if is_plain or not text:
        return text
    begin = getattr(
        stream, "style_mark", "\x1b["
    )  # some commands use a stream that escapes ESC; it names a mark to write instead
    return f"{begin}{code}m{text}{begin}0m"


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
