"""Colours of the terminal, text on one line of it, and JSON. What steers a terminal is escaped: headrace.text.escaping says how."""

from __future__ import annotations

import json
import os
from typing import Any, TextIO

from headrace.spans import value_bounds as span_bounds
from headrace.text.escaping import escaped


def bold(text: str, stream: TextIO) -> str:
    """Return ``text`` as a heading on ``stream``."""
    return _styled("1", text, stream)


def dim(text: str, stream: TextIO) -> str:
    """Return ``text`` as an aside on ``stream``."""
    return _styled("2", text, stream)


def red(text: str, stream: TextIO) -> str:
    """Return ``text`` as a warning on ``stream``."""
    return _styled("31", text, stream)


def green(text: str, stream: TextIO) -> str:
    """Return ``text`` as good news on ``stream``."""
    return _styled("32", text, stream)


def one_line(text: str) -> str:
    """Return ``text`` on one line, with control characters escaped."""
    return " ".join(escaped(text).split())


def as_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON. A model may write 1e999, for which JSON has no word: it becomes the largest number that there is."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(span_bounds.mended(value), indent=indent, ensure_ascii=False)


def _styled(code: str, text: str, stream: TextIO) -> str:
    # https://no-color.org: any value but the empty one.
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    if is_plain or not text:
        return text
    begin = getattr(stream, "style_mark", "\x1b[")  # a stream of a command's own escapes ESC, whoever writes it
    return f"{begin}{code}m{text}{begin}0m"
