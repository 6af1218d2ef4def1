"""Bounds for the figures and texts of spans: what no clock, database or file format can hold is replaced by the nearest that they can. Pure.

A provider or a peer may say anything: 2**200 tokens, a time of 1e300 seconds, half a character. One such value must not keep a
span, or those behind it, from being stored, shown and sent on.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

MOST = 2**63 - 1
"""The largest integer of SQLite, Parquet and OpenTelemetry's attributes."""
LAST_TIME = 253_401_955_200.0
"""Four days before the year 10000, in seconds since 1970: no calendar of Python goes further, and some time zones are a day ahead."""
MAX_DEPTH = 64
"""Levels of nesting that are kept of a value that could not be encoded."""


def integer(number: float) -> int:
    """Return the nearest integer of 64 bits; 0 for NaN."""
    if number != number:  # noqa: PLR0124 - NaN is not equal to itself
        return 0
    return MOST if number >= MOST else -MOST - 1 if number <= -MOST - 1 else int(number)


def count(number: float) -> int:
    """Return the nearest integer of 64 bits that is not below 0."""
    return max(integer(number), 0)


def seconds(value: float) -> float:
    """Return the nearest time, or duration, that a calendar can show: from 0 to :data:`LAST_TIME`; 0 for NaN."""
    return min(max(value, 0.0), LAST_TIME) if value == value else 0.0  # noqa: PLR0124 - NaN is not equal to itself


def real(number: float) -> float:
    """Return a float that JSON can carry: 0 for NaN, the nearest finite number for one that is too large."""
    try:
        value = float(number)
    except OverflowError:  # an integer of hundreds of digits
        value = math.inf if number > 0 else -math.inf
    if math.isnan(value):
        return 0.0
    return min(max(value, -1.7e308), 1.7e308)


def dollars(cost: float | None) -> float | None:
    """Return a cost, None for one that is no number."""
    return cost if cost is not None and math.isfinite(cost) else None


def text(value: str) -> str:
    """Return a text that UTF-8 can carry: half of a surrogate pair becomes U+FFFD."""
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def mended(value: Any, room: int = MAX_DEPTH) -> Any:
    """Return the nearest of a value that every format can carry. ``room`` is how many levels it may have."""
    match value:
        case None | bool() | bytes():
            return value
        case str():
            return text(str.__str__(value))
        case int():
            return value if type(value) is not int else integer(value)  # an enum stays one
        case float():
            return real(value)
        case msgspec.Struct():
            fields = {name: mended(getattr(value, name), room - 1) for name in value.__struct_fields__}
            return msgspec.structs.replace(value, **fields)
    if not room:
        return "…"
    if isinstance(value, dict):
        return {text(str(key)): mended(item, room - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [mended(item, room - 1) for item in value]
    return type(value).__name__
