"""Checks one value of an argument, and returns it in plain types.

Pure. Each raises InvalidRequestError with the argument's name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.arguments.plain_values import plain, plain_dict, plain_text, shown
from headrace.errors import InvalidRequestError

_MAX_MILLISECONDS = 366 * 24 * 3600 * 1000


def instance(argument: str, value: object, kind: type, words: str) -> None:
    if not isinstance(value, kind):
        raise InvalidRequestError(f"takes {words}, not {type(value).__name__}", argument)


def matches(argument: str, value: object, pattern: re.Pattern[str], words: str) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise InvalidRequestError(f"takes {words}, not {shown(value)}", argument)
    return plain_text(argument, value)


def one_of(argument: str, value: object, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise InvalidRequestError(f"takes one of {', '.join(map(repr, allowed))}, not {shown(value)}", argument)
    return plain_text(argument, value)


def text(argument: str, value: Any) -> str | None:
    return None if value is None else plain_text(argument, value)


def number(argument: str, value: Any, low: float, high: float) -> float | None:
    if value is None:
        return None
    given = plain(argument, value)
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not low <= given <= high:
        raise InvalidRequestError(f"takes a number from {low:g} to {high:g}, not {shown(given)}", argument)
    return given


def positive(argument: str, value: Any) -> int | None:
    if value is None:
        return None
    given = plain(argument, value)
    if isinstance(given, bool) or not isinstance(given, int) or given <= 0:
        raise InvalidRequestError(f"takes an int above 0, not {shown(given)}", argument)
    return given


def integer(argument: str, value: Any, low: int, high: int) -> int | None:
    if value is None:
        return None
    given = plain(argument, value)
    if isinstance(given, bool) or not isinstance(given, int) or not low <= given <= high:
        raise InvalidRequestError(f"takes an int from {low} to {high}, not {shown(given)}", argument)
    return given


def flag(argument: str, value: Any) -> bool | None:
    if value is None:
        return None
    given = plain(argument, value)
    if not isinstance(given, bool):
        raise InvalidRequestError(f"takes a bool, not {shown(given)}", argument)
    return given


def word(argument: str, value: Any) -> str | None:
    given = text(argument, value)
    if given == "":
        raise InvalidRequestError("takes a non-empty str", argument)
    return given


def waiting_time(argument: str, value: Any) -> float:
    """Check a time to wait, in seconds, and return it."""
    longest = _MAX_MILLISECONDS // 1000
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= longest:
        reason = f"takes a number of seconds from 0 to {longest} (a year), not {shown(value)}"
        raise InvalidRequestError(reason, argument)
    return float(value)


def seconds(argument: str, milliseconds: Any) -> float | None:
    value = positive(argument, milliseconds)
    if value is not None and value > _MAX_MILLISECONDS:
        raise InvalidRequestError(f"takes at most {_MAX_MILLISECONDS} milliseconds, a year", argument)
    return None if value is None else value / 1000


def strings(argument: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise InvalidRequestError("takes a list of str", argument)
    return [plain_text(f"{argument}[{index}]", item) for index, item in enumerate(value)]


def mapping(argument: str, value: Any) -> dict[str, Any]:
    """Return a Mapping with str keys as a dict. Does not change the values."""
    instance(argument, value, Mapping, "a dict")
    for key in value:
        instance(argument, key, str, "a dict with str keys")
    return {plain_text(argument, key): item for key, item in value.items()}


def json_mapping(argument: str, value: Any) -> dict[str, Any] | None:
    """Return a Mapping as a dict that JSON can hold, at each level."""
    return None if value is None else plain_dict(argument, value)
