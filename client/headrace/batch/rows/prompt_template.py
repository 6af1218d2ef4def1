"""PromptTemplate: a prompt with ``{column}`` in it, filled from a record. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isnan
from typing import Any

import msgspec

from headrace.errors import InvalidRequestError

_TOKENS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_MOST_NAMED = 20
"""Columns that an error names at most."""
_MISSING_TYPES = frozenset({"NAType", "NaTType"})
_as_json: Callable[[object], bytes] = msgspec.json.Encoder().encode


class PromptTemplate:
    """A template. ``{{`` and ``}}`` are braces. Raises InvalidRequestError for a brace that is neither."""

    def __init__(self, template: str) -> None:
        if not template.strip():
            raise InvalidRequestError("takes a template that is not empty, such as 'Summarise: {text}'", "prompt")
        self._start, self._fields = _parsed(template)
        self.columns = tuple(dict.fromkeys(column for column, _ in self._fields))
        """The columns that it names, each once."""

    def fill(self, record: Mapping[str, Any]) -> str:
        """Return the prompt of a record. Raises InvalidRequestError, which names the column, if a value is missing."""
        if len(self._fields) == 1 and not self._start:  # most often {text}
            column, after = self._fields[0]
            return text_of(record, column) + after
        pieces = [self._start]
        for column, after in self._fields:
            pieces.append(text_of(record, column))
            pieces.append(after)
        return "".join(pieces)


def _parsed(template: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the text before the first column, and each column with the text after it."""
    texts: list[str] = [""]
    columns: list[str] = []
    end = 0
    for match in _TOKENS.finditer(template):
        texts[-1] += template[end : match.start()]
        end = match.end()
        token = match[0]
        if token in {"{{", "}}"}:
            texts[-1] += token[0]
        elif match[1]:
            columns.append(match[1].strip())
            texts.append("")
        else:
            shown = template[max(0, match.start() - 20) : match.end() + 20]
            raise InvalidRequestError(
                f"has a brace that is no column, near {shown!r}: write {{{{ and }}}} for braces, and {{name}} for a column",
                "prompt",
            )
    texts[-1] += template[end:]
    return texts[0], list(zip(columns, texts[1:], strict=True))


def text_of(record: Mapping[str, Any], column: str) -> str:
    """Return a value of a record as text: a number or a list as JSON has it, a date in ISO's form.

    Raises InvalidRequestError if the record has no such value.
    """
    try:
        value = record[column]
    except KeyError:
        raise InvalidRequestError(f"there is no such column; {columns_text(record)}", column) from None
    if type(value) is str:
        return value
    if value is None or _is_missing(value):
        raise InvalidRequestError("has no value here: fill it, or leave the record out", column)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise InvalidRequestError("holds bytes, not text: convert the column first", column)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    try:
        return _as_json(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return str(value)


def _is_missing(value: object) -> bool:
    """Whether this is NaN, or pandas' ``NA`` or ``NaT``: frames have them where there is no value."""
    return isnan(value) if isinstance(value, float) else type(value).__name__ in _MISSING_TYPES


def columns_text(record: Mapping[str, Any]) -> str:
    """Return which columns there are, in words."""
    names = [repr(name) for name in record]
    more = f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"there are: {', '.join(names[:_MOST_NAMED])}{more}" if names else "the record has no columns"
