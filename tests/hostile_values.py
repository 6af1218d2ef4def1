"""Makes values of Headrace's types with hostile text in each field, as a model, a provider or a peer may send them."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterable
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

C0 = [chr(code) for code in range(0x20) if chr(code) not in "\t\n"]
C1 = [chr(code) for code in range(0x7F, 0xA0)]
DIRECTIONS = list("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
SEPARATORS = list("\u2028\u2029")
UNSEEN = list("\xad\u180e\u200b\u2060\u2064\ufeff\ufffb\U000e0001\U000e0041\U000e0100")
FORBIDDEN = frozenset([*C0, *C1, *DIRECTIONS, *SEPARATORS, *UNSEEN])
"""What no output may have, raw."""

EVIL = (
    "=evil"
    + "x".join(sorted(FORBIDDEN))
    + "\x1b[31mred\x1b[0m\x1b]0;title\x07\x9b2J\x9d0;t\x9c\u202e 世界 👋\nforged\ttext\r"
)


def steering(output: str) -> set[str]:
    """Return the characters of a command's output that steer a terminal or hide text, by their code points."""
    return {f"U+{ord(letter):04X}" for letter in output.replace("\r\n", "\n") if letter in FORBIDDEN}


def hostile(kind: Any, text: str = EVIL) -> Any:
    """Return a value of a type that has ``text`` in all places where it can."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind(**{name: hostile(hint, text) for name, hint in get_type_hints(kind).items()})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return arguments[0]
    if origin in (Union, types.UnionType):
        return hostile(next(each for each in arguments if each is not type(None)), text)
    if origin is list:
        return _each(arguments, text)
    if origin is dict:
        return {text: hostile(arguments[1], text)}
    return _scalar(kind, text)


def _each(arguments: Iterable[Any], text: str) -> list[Any]:
    (inner,) = arguments
    kinds = get_args(inner) if get_origin(inner) in (Union, types.UnionType) else [inner]
    return [hostile(kind, text) for kind in kinds]


def _scalar(kind: Any, text: str) -> Any:
    if kind is Any or kind is str:
        return text
    if isinstance(kind, TypeVar):
        return None  # an object of the program's own type, such as ``parsed``
    if isinstance(kind, type) and issubclass(kind, enum.IntEnum):
        return max(kind)
    return {bool: True, int: 7, float: 1.5, bytes: text.encode()}[kind]
