"""Reads the arguments of a tool call from the JSON text that a provider sent. Never invents an argument. Pure."""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any, NoReturn

import msgspec

INTEGERS = range(-(2**63), 2**64)
"""Integers that a frame can carry: MessagePack has 64 bits for one."""
_HALVES = re.compile("[\ud800-\udfff]")


def read_arguments(text: str) -> dict[str, Any] | None:
    """Return the arguments in a JSON text; None where the text is not a JSON object.

    A number that is too large for a float becomes infinite. Half of a surrogate pair becomes U+FFFD.
    """
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = _read_slowly(text)
    return value if isinstance(value, dict) else None


def well_formed(value: Any) -> Any:
    """Return a JSON value with valid Unicode only: a surrogate pair is joined, half of a pair becomes U+FFFD."""
    if isinstance(value, str):
        return well_formed_text(value)
    if isinstance(value, dict):
        return {well_formed_text(key): well_formed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [well_formed(item) for item in value]
    return value


def well_formed_text(text: str) -> str:
    """Return a text that is valid Unicode, as :func:`well_formed` does."""
    if text.isascii() or _HALVES.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def sendable(value: Any) -> Any:
    """Return a JSON value with numbers that a frame and a request can carry: a tool call may be sent back to the model.

    An integer over 64 bits becomes a float, as in most JSON readers. An infinite number becomes the largest float,
    because JSON cannot express infinity.
    """
    if isinstance(value, dict):
        return {key: sendable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [sendable(item) for item in value]
    return sendable_number(value) if type(value) in {int, float} else value


def sendable_number(value: float) -> int | float | str:
    """Return a number that can be sent; see :func:`sendable`. An integer too large for a float becomes text."""
    if type(value) is int:
        if value in INTEGERS:
            return value
        try:
            return float(value)
        except OverflowError:
            return str(value)  # too large for a float, too
    return math.copysign(sys.float_info.max, value) if math.isinf(value) else value


def _read_slowly(text: str) -> Any:
    """Read JSON that msgspec refuses: halves of surrogate pairs, and numbers of any size.

    Returns False for other texts.
    """
    try:
        return well_formed(json.loads(text, parse_constant=_refuse))
    except (ValueError, RecursionError):
        return False


def _refuse(word: str) -> NoReturn:
    raise ValueError(word)  # NaN and Infinity are not JSON
