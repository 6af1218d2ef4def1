"""Finds the keys in the path of a mismatch. msgspec writes ``$.prices[...]`` for a value of a dict, whatever its key. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from headrace.schemas.value_mismatch import ValueMismatchError, step

_ANY_KEY = "[...]"
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]")
_MAX_TRIES = 200
"""Keys that are tried at one place."""


def with_keys(mismatch: ValueMismatchError, value: Any, decode: Callable[[Any], Any]) -> str:
    """Return the path of a mismatch with the keys of dicts in it.

    Each key is found by trying: the value is decoded with this key alone. A key that is not found stays ``[...]``.
    """
    before, *segments = mismatch.path.removeprefix("$").split(_ANY_KEY)
    path = f"${before}"
    keys = _steps(before)
    for segment in segments:
        key = None if keys is None else _key(mismatch, value, keys, decode)
        if keys is None or key is None:
            path += _ANY_KEY + segment
            keys = None
            continue
        value = _alone(value, keys, key)
        further = _steps(segment)
        path += step(key) + segment
        keys = None if further is None else [*keys, key, *further]
    return path


def _key(mismatch: ValueMismatchError, value: Any, keys: list[str | int], decode: Callable[[Any], Any]) -> str | None:
    """Return the key of the dict at a place with which decoding fails in the same way."""
    place = _at(value, keys)
    if not isinstance(place, dict):
        return None
    tried = list(place)[:_MAX_TRIES]
    return next((key for key in tried if _fails_alike(mismatch, _alone(value, keys, key), decode)), None)


def _alone(value: Any, keys: list[str | int], key: str) -> Any:
    return _replaced(value, keys, {key: _at(value, keys)[key]})


def _fails_alike(mismatch: ValueMismatchError, value: Any, decode: Callable[[Any], Any]) -> bool:
    try:
        decode(value)
    except ValueMismatchError as other:
        return (other.path, other.reason) == (mismatch.path, mismatch.reason)
    except Exception:  # noqa: BLE001 - a validator of the user, which did not fail before
        return False
    return False


def _steps(path: str) -> list[str | int] | None:
    """Return the keys and indexes of a part of a path; None if they cannot be told apart."""
    found: list[str | int] = []
    left = path
    while left:
        match = _STEP.match(left)
        if match is None:
            return None
        found.append(match["name"] if match["name"] is not None else int(match["index"]))
        left = left[match.end() :]
    return found


def _at(value: Any, keys: list[str | int]) -> Any:
    for key in keys:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _replaced(value: Any, keys: list[str | int], new: Any) -> Any:
    """Return a copy of the value with another one at a place."""
    if not keys:
        return new
    copy = value.copy()
    copy[keys[0]] = _replaced(value[keys[0]], keys[1:], new)
    return copy
