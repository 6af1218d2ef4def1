"""Replaces values that no clock, database or file format can hold by the nearest ones that they can. For spans. Pure.

A provider or a peer may send anything: 2**200 tokens, a time of 1e300 seconds, half a character. Such a value must not
stop a span, or the spans after it, from being stored, shown and sent.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

MOST = 2**63 - 1
"""The largest integer of SQLite, Parquet and OpenTelemetry's attributes."""
LAST_TIME = 253_401_955_200.0
"""Four days before the year 10000, in seconds since 1970.

Python's calendar ends there, and time zones need a margin.
"""
MAX_DEPTH = 64
"""Levels of nesting that stay in a value that could not be encoded."""


def integer(number: float) -> int:
    """Return the nearest integer of 64 bits, or 0 for NaN."""
    if number != number:  # noqa: PLR0124 - NaN is not equal to itself
        return 0
    return MOST if number >= MOST else -MOST - 1 if number <= -MOST - 1 else int(number)


def count(number: float) -> int:
    """Return the nearest integer from 0 to MOST."""
    return max(integer(number), 0)


def seconds(value: float) -> float:
    """Return the nearest number of seconds from 0 to :data:`LAST_TIME`, or 0 for NaN."""
    return min(max(value, 0.0), LAST_TIME) if value == value else 0.0  # noqa: PLR0124 - NaN is not equal to itself


def real(number: float) -> float:
    """Return the nearest finite float, or 0 for NaN."""
    try:
        value = float(number)
    except OverflowError:  # an integer of hundreds of digits
        value = math.inf if number > 0 else -math.inf
    if math.isnan(value):
        return 0.0
    return min(max(value, -1.7e308), 1.7e308)


def dollars(cost: float | None) -> float | None:
    """Return a cost, or None if it is not a finite number."""
    return cost if cost is not None and math.isfinite(cost) else None


def text(value: str) -> str:
    """Return a text that UTF-8 can encode: half of a surrogate pair becomes U+FFFD."""
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encodable(value: Any, room: int = MAX_DEPTH) -> Any:
    """Return the nearest value that every format can encode. ``room``: levels of nesting that may follow."""
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
            fields = {name: encodable(getattr(value, name), room - 1) for name in value.__struct_fields__}
            return msgspec.structs.replace(value, **fields)
    if not room:
        return "…"
    if isinstance(value, dict):
        return {text(str(key)): encodable(item, room - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [encodable(item, room - 1) for item in value]
    return type(value).__name__
