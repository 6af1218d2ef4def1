"""Formats what ``headrace batch`` shows: counts, rates, tokens a second, costs, durations. Pure."""

from __future__ import annotations

import math

_FEW = 10
"""A rate, and a number of seconds, below this has a decimal."""
_LEAST_RATE = 0.1
_CENT = 0.01
_LEAST_COST = 0.0001
"""The least cost that is written with its figures."""
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, such as ``1 row`` or ``63,512 rows``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def rate(per_second: float) -> str:
    """Return a rate: ``1,204``, or with a decimal if it is low, as in ``3.4``."""
    if 0 < per_second < _LEAST_RATE:
        return f"less than {_LEAST_RATE}"
    return f"{per_second:,.1f}" if 0 < per_second < _FEW else f"{per_second:,.0f}"


def share(part: int, whole: int) -> str:
    """Return a part in percent. It is ``100 %`` only if nothing is missing."""
    if whole == 0:
        return "100 %"
    return f"{math.floor(part * 100 / whole)} %"


def money(cost: float) -> str:
    """Return a cost in US dollars: whole cents from one cent on, else up to four decimals."""
    if cost <= 0:
        return "$0"
    if cost < _LEAST_COST:
        return "less than $0.0001"
    return f"${cost:,.2f}" if cost >= _CENT else f"${cost:.4f}"


def duration(seconds: float) -> str:
    """Return a duration as ``0.8 s``, ``42 s``, ``2 min 5 s``, ``3 h 4 min`` or ``2 d 5 h``."""
    whole = max(math.floor(seconds), 0)
    if whole < _FEW:
        return f"{max(seconds, 0):.1f} s"
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
