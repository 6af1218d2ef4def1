"""Converts nested values to plain ones: the dict, list, str, int, float, bool and None that JSON can hold. Pure.

These are converted: subclasses of ``str``, ``int`` and ``float``, members of an Enum, numbers and bools of numpy, any
Mapping or Sequence, dataclasses. Any other value raises an InvalidRequestError that names its place, as in
``tools[0].parameters.default``. docs/decisions/2026-11-28-what-json-carries.md has the table.
"""

from __future__ import annotations

import dataclasses
import math
from collections import UserString
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from numbers import Integral, Real
from typing import Any

from headrace.answers.tool_arguments import INTEGERS
from headrace.errors import InvalidRequestError

MAX_DEPTH = 200
"""Levels of nesting allowed in one value. Real values have fewer than 20."""

_TEXTS = (str, UserString)
_NUMBERS = (int, float)
_MAX_SHOWN = 80
_MAX_STEPS = 24
"""Steps of a path that an error shows."""
_ADVICE = {
    "bytes": "give .decode(), or base64 text",
    "bytearray": "give .decode(), or base64 text",
    "memoryview": "give base64 text",
    "date": "give .isoformat()",
    "time": "give .isoformat()",
    "timedelta": "give .total_seconds()",
    "Decimal": "give float(value) or str(value)",
    "Fraction": "give float(value) or str(value)",
    "UUID": "give str(value)",
    "PurePath": "give str(value)",
    "set": "give a list",
    "frozenset": "give a list",
    "dict_keys": "give a list",
    "dict_values": "give a list",
    "generator": "give a list",
    "ndarray": "give .tolist()",
    "BaseModel": "give .model_dump(mode='json')",
    "Struct": "give msgspec.to_builtins(value)",
}


class _UnfitError(Exception):
    """JSON cannot hold a value. ``path`` holds the keys and indexes that lead to the value, the last one first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str | int] = []


def plain(argument: str, value: Any) -> Any:
    """Return the value in plain types. Raises InvalidRequestError with the path to a value that JSON cannot hold."""
    try:
        return _plain(value, MAX_DEPTH, set())
    except _UnfitError as error:
        steps = "".join(_step(step) for step in reversed(error.path[-_MAX_STEPS:]))
        cut = "…" if len(error.path) > _MAX_STEPS else ""
        raise InvalidRequestError(error.reason, argument + steps + cut) from None
    except RecursionError:
        raise InvalidRequestError("is nested deeper than the stack of this thread allows", argument) from None


def plain_dict(argument: str, value: Any) -> dict[str, Any]:
    """Return a Mapping as a plain dict. Raises InvalidRequestError for any other value."""
    if not isinstance(value, (dict, Mapping)):
        raise InvalidRequestError(f"takes a dict, not {named(value)}", argument)
    result: dict[str, Any] = plain(argument, value)
    return result


def plain_text(argument: str, value: Any, words: str = "a str") -> str:
    """Return a str, or an instance of a subclass, as a plain str. Raises InvalidRequestError for any other value."""
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise InvalidRequestError(f"takes {words}, not {type(value).__name__}", argument)
    try:
        return _text(value)
    except _UnfitError as error:
        raise InvalidRequestError(error.reason, argument) from None


def shown(value: object) -> str:
    """Return a value as an error may quote it: short. Never calls ``repr`` of an unknown type."""
    if isinstance(value, str):
        value = str.__str__(value)
        return repr(value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "…")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{int(value)}" if -(10**_MAX_SHOWN) < value < 10**_MAX_SHOWN else "an int of many digits"
    if isinstance(value, float):
        return repr(float(value))
    return repr(value) if value is None or isinstance(value, bool) else type(value).__name__


def is_utf8(text: str) -> bool:
    """Return whether UTF-8 can encode a text. It cannot encode half of a surrogate pair, or an undecodable byte."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def named(value: object) -> str:
    """Return the type of a value that JSON cannot hold, and what to give instead if that is known."""
    kind = type(value)
    advice = next((f"; {_ADVICE[base.__name__]}" for base in kind.__mro__ if base.__name__ in _ADVICE), "")
    return f"{kind.__name__}{advice}"


def path_to(argument: str, key: str) -> str:
    """Return the path to a key of an argument, in the form that errors use."""
    return argument + _step(key)


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step.replace("-", "_").isidentifier() else f"[{shown(step)}]"


def _plain(value: Any, room: int, above: set[int]) -> Any:
    """Return the value in plain types.

    ``room``: levels that may follow. ``above``: the ids of the containers around it.
    """
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _text(value)
    if kind is dict or kind is list:
        return _container(value, room, above)
    if value is None or kind is bool or (kind is int and value in INTEGERS):
        return value
    if isinstance(value, _TEXTS):
        return _text(value if isinstance(value, str) else value.data)
    if isinstance(value, _NUMBERS):
        return _number(value)
    if isinstance(value, Enum):
        return _plain(value.value, room, above)
    if _is_container(value):
        return _container(value, room, above)
    return _scalar(value)


def _is_container(value: object) -> bool:
    if isinstance(value, Mapping | Sequence):
        return not isinstance(value, bytes | bytearray | memoryview)
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _container(value: Any, room: int, above: set[int]) -> dict[str, Any] | list[Any]:
    if id(value) in above:
        raise _UnfitError("holds itself, which JSON cannot carry")
    if not room:
        raise _UnfitError(f"is nested deeper than {MAX_DEPTH} levels")
    above.add(id(value))
    try:
        if isinstance(value, (dict, Mapping)):
            return _dict(value.items(), room - 1, above)
        if dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            return _dict([(field.name, getattr(value, field.name)) for field in fields], room - 1, above)
        return _list(value, room - 1, above)
    finally:
        above.discard(id(value))


def _dict(items: Iterable[tuple[Any, Any]], room: int, above: set[int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    place: str | None = None
    try:
        for key, item in items:
            place = None
            place = key if type(key) is str and key.isascii() else _key(key)
            # Most values are short texts: save a call for these.
            result[place] = item if type(item) is str and item.isascii() else _plain(item, room, above)
    except _UnfitError as error:
        if place is not None:
            error.path.append(place)
        raise
    return result


def _list(items: Iterable[Any], room: int, above: set[int]) -> list[Any]:
    result: list[Any] = []
    try:
        for item in items:
            result.append(item if type(item) is str and item.isascii() else _plain(item, room, above))  # noqa: PERF401
    except _UnfitError as error:
        error.path.append(len(result))
        raise
    return result


def _scalar(value: Any) -> Any:
    """Return a number or bool of numpy as a Python number or bool."""
    if isinstance(value, Integral | Real):
        return _number(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item") and type(item := value.item()) is bool:
        return item
    raise _UnfitError(_unfit(value))


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise _UnfitError(f"takes str keys, not {shown(key)}")
    return _text(key)


def _text(value: str) -> str:
    if not is_utf8(value):
        raise _UnfitError("holds a lone surrogate, half of a character, which UTF-8 cannot carry")
    return str.__str__(value)


def _number(value: Any) -> int | float:
    if isinstance(value, Integral):
        number = int(value)
        if number in INTEGERS:
            return number
        raise _UnfitError("takes integers of at most 64 bits; give larger ones as a str")
    real = float(value)
    if not math.isfinite(real):
        raise _UnfitError(f"takes finite numbers, not {real}: JSON has no word for it")
    if real != value:
        raise _UnfitError(_unfit(value))
    return real


def _unfit(value: object) -> str:
    return f"takes what JSON can carry, not {named(value)}"
