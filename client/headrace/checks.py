"""Checks of single argument values. Pure; each raises an InvalidRequestError that names the argument."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.errors import InvalidRequestError

_encode_json = msgspec.json.Encoder().encode
_MAX_MILLISECONDS = 366 * 24 * 3600 * 1000


def instance(argument: str, value: object, kind: type, words: str) -> None:
    if not isinstance(value, kind):
        raise InvalidRequestError(f"takes {words}, not {type(value).__name__}", argument)


def matches(argument: str, value: object, pattern: re.Pattern[str], words: str) -> None:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise InvalidRequestError(f"takes {words}, not {value!r}", argument)


def one_of(argument: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidRequestError(f"takes one of {', '.join(map(repr, allowed))}, not {value!r}", argument)


def text(argument: str, value: Any) -> str | None:
    if value is not None:
        instance(argument, value, str, "a str")
    return value  # type: ignore[no-any-return]


def number(argument: str, value: Any, low: float, high: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InvalidRequestError(f"takes a number from {low:g} to {high:g}, not {value!r}", argument)
    return value


def positive(argument: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise InvalidRequestError(f"takes an int above 0, not {value!r}", argument)
    return value


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
    for item in value:
        instance(argument, item, str, "a list of str")
    return list(value)


def mapping(argument: str, value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    instance(argument, value, Mapping, "a dict")
    for key in value:
        instance(argument, key, str, "a dict with str keys")
    return dict(value)


def json_mapping(argument: str, value: Any) -> dict[str, Any] | None:
    """Return the mapping as a dict; what JSON cannot carry is refused here and not by the provider's worker."""
    checked = mapping(argument, value)
    if checked:
        try:
            _encode_json(checked)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidRequestError(f"holds a value that JSON cannot carry: {error}", argument) from None
    return checked
