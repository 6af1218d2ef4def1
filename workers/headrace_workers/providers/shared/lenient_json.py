"""Reads JSON with the mistakes that servers make, and fields of an unexpected type. Knows no wire format. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from headrace.answers.tool_arguments import well_formed

UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises for bytes that are no JSON, or JSON of another type than the decoder expects."""

MAX_COUNT = 2**53
"""Numbers from here on are taken for nonsense, and not for counts of tokens."""

check_json = msgspec.json.Decoder(msgspec.Raw).decode
"""Checks that bytes are JSON, and decodes nothing. Raises one of UNREADABLE."""
_MAX_NAME = 1024
_INFINITE = re.compile(r'"(?:[^"\\]++|\\.)*+"|(-?)Infinity')
_HALF_MARKS = (b"\\ud", b"\\uD", b"\xed")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")


def loads_with_halves(data: bytes, *, keeps_infinity: bool = False) -> Any:
    """Decode JSON with mistakes: NaN becomes None, invalid UTF-8 becomes U+FFFD, and numbers may be infinite.

    The word ``Infinity`` becomes None too, unless ``keeps_infinity``.

    Lone halves of surrogate pairs are kept, because the other half may come in the next event. Raises ValueError for
    anything else.
    """
    try:
        return json.loads(_text_of(data), parse_constant=_infinity if keeps_infinity else lambda _: None)
    except RecursionError as error:
        raise ValueError from error


def may_hold_halves(data: bytes) -> bool:
    """Return whether JSON has a surrogate: as an escape, or as bytes that UTF-8 forbids."""
    return _HALF.search(data) is not None


def loads(data: bytes | msgspec.Raw) -> Any:
    """Decode JSON, also with mistakes (see :func:`loads_with_halves`); halves become U+FFFD. Raises ValueError."""
    try:
        return msgspec.json.decode(data)
    except UNREADABLE:
        pass
    try:
        data = bytes(data)
        value = loads_with_halves(data)
        # Without such bytes no text has a lone half: to go through all texts would take long.
        return well_formed(value) if any(mark in data for mark in _HALF_MARKS) else value
    except RecursionError as error:
        raise ValueError from error


def read_object(data: bytes | msgspec.Raw) -> dict[str, Any]:
    """Decode a JSON object, also with mistakes. Return an empty dict for anything else."""
    try:
        value = loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def json_text(value: Any) -> str:
    """Encode a value as JSON. An infinite number becomes ``1e999``, which decodes to infinity again."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if "Infinity" not in text:
        return text
    return _INFINITE.sub(lambda match: match[0] if match[1] is None else f"{match[1]}1e999", text)


def as_text(value: Any) -> str:
    """Return a field as text: "" for None, and ``str()`` of any other type."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def as_name(value: Any) -> str:
    """Return a name, an id or another short word of a server as text, cut after 1,024 characters."""
    return as_text(value)[:_MAX_NAME] if isinstance(value, (str, int, float)) else ""


def as_count(value: Any) -> int:
    """Return a field as a count; 0 where it is no positive number, or an absurd one."""
    is_number = type(value) is int or type(value) is float
    return int(value) if is_number and 0 < value < MAX_COUNT else 0


def _infinity(word: str) -> float | None:
    return None if word == "NaN" else float(word)


def _text_of(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")
