"""Takes a type annotation apart: the fields of a class, the arguments of ``list[X]`` and ``X | Y``. Pure.

So that an error can name the field without a schema, and so that it is known which library must read the type.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from headrace.errors import InvalidRequestError

_FOREIGN = frozenset({"annotated_types", "pydantic", "pydantic_core"})


class Traits(msgspec.Struct):
    """What a type holds, in itself or in a field of a field."""

    struct: str = ""
    """The first msgspec Struct: its name."""
    meta: str = ""
    """The first ``msgspec.Meta`` outside a Struct: the place."""
    pydantic: str = ""
    """The first pydantic model or dataclass: its name."""
    foreign: str = ""
    """What msgspec would ignore: the first constraint of pydantic or annotated_types outside a pydantic model, or the first
    pydantic dataclass. The place, and what it is."""


def is_pydantic(annotation: object) -> bool:
    """Tell whether a class is a pydantic model or a pydantic dataclass. Does not import pydantic."""
    return isinstance(annotation, type) and hasattr(annotation, "__pydantic_core_schema__")


def is_struct(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


def is_annotation(value: object) -> bool:
    """Tell whether a value is a type or an annotation such as ``list[int] | None``, and not an instance or a function."""
    words = ("__metadata__", "__supertype__", "__value__")
    return (
        isinstance(value, type)
        or value is Any
        or typing.get_origin(value) is not None
        or any(hasattr(value, word) for word in words)
    )


def traits_of(annotation: object, argument: str) -> Traits:
    """Look through a type, but not into pydantic models."""
    found = Traits()
    seen: set[object] = set()
    waiting: list[tuple[str, object, bool]] = [("", annotation, False)]
    while waiting:
        place, part, is_in_struct = waiting.pop()
        key = _key(part)
        if key in seen:
            continue
        seen.add(key)
        _note(found, place, part, is_in_struct)
        owner = owner_of(part)
        if not is_pydantic(owner):
            waiting += [(place + name, inner, is_struct(owner)) for name, inner in parts_of(part, argument)]
    return found


def _note(found: Traits, place: str, part: object, is_in_struct: bool) -> None:
    owner = owner_of(part)
    if is_struct(owner):
        found.struct = found.struct or owner.__name__
    elif is_pydantic(owner):
        found.pydantic = found.pydantic or owner.__name__
        if dataclasses.is_dataclass(owner):
            found.foreign = found.foreign or f"{place.lstrip('.') or 'the type'} (a pydantic dataclass)"
    for word in (*getattr(part, "__metadata__", ()), *_field_defaults(part)):
        if isinstance(word, msgspec.Meta):
            if not is_in_struct:
                found.meta = found.meta or place.lstrip(".") or "the type"
        elif type(word).__module__.partition(".")[0] in _FOREIGN:
            found.foreign = found.foreign or f"{place.lstrip('.') or 'the type'} ({type(word).__name__})"


def _field_defaults(part: object) -> Iterator[object]:
    """Yield the defaults of a dataclass that are pydantic's ``Field(…)``."""
    if isinstance(part, type) and dataclasses.is_dataclass(part) and not is_pydantic(part):
        for field in dataclasses.fields(part):
            if type(field.default).__module__.startswith("pydantic."):
                yield field.default


def parts_of(annotation: Any, argument: str) -> list[tuple[str, object]]:
    """Return the parts of a type, each with its step in a path: ``.lines`` for a field, ``[]`` for an item.

    Raises InvalidRequestError if an annotation names something that Python cannot find.
    """
    if hasattr(annotation, "__metadata__"):
        return [("", annotation.__origin__)]
    if hasattr(annotation, "__supertype__"):
        return [("", annotation.__supertype__)]
    if hasattr(annotation, "__value__"):  # ``type Name = …``
        return [("", annotation.__value__)]
    if isinstance(annotation, typing.TypeVar):
        return [("", part) for part in (annotation.__bound__, *annotation.__constraints__) if part is not None]
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return []
    given = typing.get_args(annotation)
    owner = origin if isinstance(origin, type) else annotation
    found = [(f".{name}", part) for name, part in _fields(owner, argument)]
    if found:
        filled: dict[object, object] = dict(zip(getattr(origin, "__parameters__", ()), given, strict=False))
        return [(name, filled.get(part, part) if isinstance(part, typing.TypeVar) else part) for name, part in found]
    step = "[]" if isinstance(origin, type) and origin.__module__ in {"builtins", "collections.abc"} else ""
    return [(step, part) for part in given if part is not Ellipsis and not isinstance(part, list)]


def _fields(owner: Any, argument: str) -> list[tuple[str, object]]:
    """Return the fields of a class, with their annotations."""
    if not isinstance(owner, type):
        return []
    if is_pydantic(owner) and hasattr(owner, "__pydantic_fields__"):
        return [(name, field.annotation) for name, field in owner.__pydantic_fields__.items()]
    has_fields = (
        is_struct(owner)
        or dataclasses.is_dataclass(owner)
        or typing.is_typeddict(owner)
        or hasattr(owner, "_fields")  # a NamedTuple
        or hasattr(owner, "__attrs_attrs__")
    )
    if not has_fields:
        return []
    try:
        hints = typing.get_type_hints(owner, include_extras=True)
    except NameError as error:
        words = f"an annotation of class {owner.__name__} names {unknown(str(error.name))}"
        raise InvalidRequestError(words, argument) from error
    return [(name, _bare(hint)) for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar]


def unknown(name: str) -> str:
    """Say that a name in an annotation cannot be found, and what to do."""
    return f"{name!r}, which Python cannot find; define it at the top level of the module, before the class is used"


def _bare(hint: Any) -> Any:
    """Remove ``Required``, ``NotRequired`` and ``ReadOnly``."""
    while getattr(typing.get_origin(hint), "_name", "") in {"Required", "NotRequired", "ReadOnly"}:
        hint = typing.get_args(hint)[0]
    return hint


def owner_of(part: Any) -> Any:
    """Return the class of ``Class[Argument]``. Any other annotation is returned as it is."""
    origin = typing.get_origin(part)
    return origin if isinstance(origin, type) and not hasattr(part, "__metadata__") else part


def _key(part: object) -> object:
    try:
        hash(part)
    except TypeError:
        return id(part)
    return part
