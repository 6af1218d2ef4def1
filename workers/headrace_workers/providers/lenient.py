"""Reads what servers send as JSON and is only nearly that, and fields of other types than they should have.

Knows no wire format, and never judges what a value means.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises for bytes that are not the JSON that was asked for."""

MAX_COUNT = 2**53
"""Figures from here on are no counts of tokens but rubbish."""


def mended(data: bytes) -> bytes:
    """Return as proper JSON what is nearly JSON: NaN, halves of surrogate pairs, broken UTF-8. Raises ValueError for the rest."""
    try:
        loaded = json.loads(data.decode("utf-8", "replace"), parse_constant=lambda _: None)
        text = json.dumps(loaded, ensure_ascii=False).encode("utf-16", "surrogatepass")
        return text.decode("utf-16", "replace").encode()
    except RecursionError as error:
        raise ValueError from error


def loads(data: bytes | msgspec.Raw) -> Any:
    """Return the value of JSON, or of what is nearly JSON. Raises ValueError for what is not."""
    try:
        return msgspec.json.decode(data)
    except UNREADABLE:
        pass
    try:
        return msgspec.json.decode(mended(bytes(data)))
    except UNREADABLE as error:
        raise ValueError from error


def read_object(data: bytes | msgspec.Raw) -> dict[str, Any]:
    """Return a JSON object, read leniently; an empty one for anything else."""
    try:
        value = loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def as_text(value: Any) -> str:
    """Return a field that should be a str as one."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def as_count(value: Any) -> int:
    """Return a field that should be a count as one; 0 where it is none."""
    is_number = type(value) is int or type(value) is float
    return int(value) if is_number and 0 < value < MAX_COUNT else 0
