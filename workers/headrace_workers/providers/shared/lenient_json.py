"""Reads what servers send as JSON and is only nearly that, and fields of other types than they should have.

Knows no wire format, and never judges what a value means.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from headrace.answers.tool_arguments import well_formed

UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises for bytes that are not the JSON that was asked for."""

MAX_COUNT = 2**53
"""Figures from here on are no counts of tokens but rubbish."""

check_json = msgspec.json.Decoder(msgspec.Raw).decode
"""Raises one of UNREADABLE for what is no JSON; makes nothing of what is."""
_MAX_NAME = 1024
_INFINITE = re.compile(r'"(?:[^"\\]++|\\.)*+"|(-?)Infinity')
_HALF_MARKS = (b"\\ud", b"\\uD", b"\xed")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")


def loads_with_halves(data: bytes) -> Any:
    """Return the value of what is nearly JSON: NaN is null, broken UTF-8 is U+FFFD, numbers may be infinite.

    Halves of surrogate pairs are kept: the other half may come in the next event. Raises ValueError for what is not.
    """
    try:
        return json.loads(_text_of(data), parse_constant=lambda _: None)
    except RecursionError as error:
        raise ValueError from error


def may_hold_halves(data: bytes) -> bool:
    """Tell whether JSON writes a surrogate, by an escape or by the bytes that UTF-8 forbids."""
    return _HALF.search(data) is not None


def loads(data: bytes | msgspec.Raw) -> Any:
    """Return the value of JSON, or of what is nearly JSON. Raises ValueError for what is not."""
    try:
        return msgspec.json.decode(data)
    except UNREADABLE:
        pass
    try:
        data = bytes(data)
        value = loads_with_halves(data)
        # Without any that could be one, no text has half a character: to go through all of them takes long.
        return well_formed(value) if any(mark in data for mark in _HALF_MARKS) else value
    except RecursionError as error:
        raise ValueError from error


def read_object(data: bytes | msgspec.Raw) -> dict[str, Any]:
    """Return a JSON object, read leniently; an empty one for anything else."""
    try:
        value = loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def json_text(value: Any) -> str:
    """Return a value as JSON; a number that no float has room for stays one that no float has room for."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if "Infinity" not in text:
        return text
    return _INFINITE.sub(lambda match: match[0] if match[1] is None else f"{match[1]}1e999", text)


def as_text(value: Any) -> str:
    """Return a field that should be a str as one."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def as_name(value: Any) -> str:
    """Return a name, an id or a word that a server says; what is longer than any of these is cut."""
    return as_text(value)[:_MAX_NAME] if isinstance(value, (str, int, float)) else ""


def as_count(value: Any) -> int:
    """Return a field that should be a count as one; 0 where it is none."""
    is_number = type(value) is int or type(value) is float
    return int(value) if is_number and 0 < value < MAX_COUNT else 0


def _text_of(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")
