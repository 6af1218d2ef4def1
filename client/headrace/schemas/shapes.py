"""Shapes: what the portable form has made of each part of a JSON schema, and whether a value has a shape. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

JSON_TYPES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    list: "array",
    dict: "object",
}
"""Python type → JSON type."""


_ENTRY = frozenset({"key", "value"})
REST = "rest"
"""The name of the property with the further items of a tuple."""


class PlainShape(msgspec.Struct, frozen=True):
    """A text, number, bool or null. It has the same form in both schemas."""

    kind: str
    """The JSON type, such as ``string``."""
    choices: tuple[Any, ...] | None = None
    """The values of an enum. ``None``: all values of the type."""


class JsonTextShape(msgspec.Struct, frozen=True):
    """Any value, written as JSON text in a string."""


class EncodedShape(msgspec.Struct, frozen=True):
    """A text that holds the JSON of a value, written as the value itself."""

    inner: Shape


class ListShape(msgspec.Struct, frozen=True):
    """A list of equal items. It has the same form in both schemas."""

    item: Shape


class EntriesShape(msgspec.Struct, frozen=True):
    """An object with free keys, written as a list of ``{"key", "value"}`` objects."""

    value: Shape


class TupleShape(msgspec.Struct, frozen=True):
    """A list with a type for each place, written as an object with ``item1``, ``item2`` …, and ``rest``."""

    items: tuple[Shape, ...]
    required: int
    """How many places must be there."""
    rest: Shape | None = None


class ObjectShape(msgspec.Struct, frozen=True):
    """An object with named properties. It has the same form in both schemas."""

    properties: dict[str, Shape]
    required: frozenset[str]
    free: EntriesShape | None = None
    """Further properties with free keys. They are written as entries, in the property ``free_key``."""
    free_key: str = ""


class UnionShape(msgspec.Struct, frozen=True):
    """One of several shapes."""

    branches: tuple[Shape, ...]


class ReferenceShape(msgspec.Struct, frozen=True):
    """A shape that is defined elsewhere, perhaps later."""

    name: str
    definitions: dict[str, Shape]


Shape = (
    PlainShape
    | JsonTextShape
    | EncodedShape
    | ListShape
    | EntriesShape
    | TupleShape
    | ObjectShape
    | UnionShape
    | ReferenceShape
)


def tuple_names(count: int) -> list[str]:
    """Return the names of the properties that stand for the places of a tuple."""
    return [f"item{number}" for number in range(1, count + 1)]


def json_value(text: str) -> Any:
    """Return the value of a JSON text. A text that is no JSON stays a text: a model that writes words means the words."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def takes_null(shape: Shape) -> bool:
    """Tell whether null is a value of the original schema."""
    match shape:
        case PlainShape():
            return shape.kind == "null"
        case UnionShape():
            return any(takes_null(branch) for branch in shape.branches)
        case ReferenceShape():
            return takes_null(shape.definitions[shape.name])
    return False


def fits(value: Any, shape: Shape, is_exact: bool) -> bool:  # noqa: C901 - one case for each shape
    """Tell whether a value has a shape. Not exact: it may have more keys, fewer keys, or the original form."""
    match shape:
        case ReferenceShape():
            return fits(value, shape.definitions[shape.name], is_exact)
        case UnionShape():
            return any(fits(value, branch, is_exact) for branch in shape.branches)
        case JsonTextShape():
            return isinstance(value, str) or not is_exact
        case EncodedShape():
            return fits(value, shape.inner, is_exact) or (isinstance(value, str) and not is_exact)
        case PlainShape():
            return _fits_plain(value, shape, is_exact)
        case ListShape() if isinstance(value, list):
            return all(fits(item, shape.item, is_exact) for item in value)
        case EntriesShape() if isinstance(value, list):
            return all(_is_entry(entry, shape.value, is_exact) for entry in value)
        case EntriesShape() if isinstance(value, dict) and not is_exact:
            return all(fits(item, shape.value, is_exact) for item in value.values())
        case TupleShape() if isinstance(value, dict):
            return fits(value, _as_object(shape), is_exact)
        case TupleShape() if isinstance(value, list) and not is_exact:
            return all(fits(item, place, is_exact) for item, place in zip(value, shape.items, strict=False))
        case ObjectShape() if isinstance(value, dict):
            return _fits_object(value, shape, is_exact)
    return isinstance(value, str) and not is_exact and isinstance(json_value(value), (dict, list))


def _as_object(shape: TupleShape) -> ObjectShape:
    names = tuple_names(len(shape.items))
    properties = dict(zip(names, shape.items, strict=True))
    if shape.rest is not None:
        properties[REST] = ListShape(shape.rest)
    return ObjectShape(properties, frozenset(names[: shape.required]))


def _fits_plain(value: Any, shape: PlainShape, is_exact: bool) -> bool:
    kind = JSON_TYPES.get(type(value), "")
    is_alike = kind == shape.kind or (kind == "integer" and shape.kind == "number")
    if kind == "number" and shape.kind == "integer":
        is_alike = value.is_integer()
    if not is_alike or shape.choices is None:
        return is_alike
    if not isinstance(value, str):
        return value in shape.choices
    folded = value.casefold()
    texts = [choice.casefold() for choice in shape.choices if isinstance(choice, str)]
    return folded in texts or (not is_exact and any(text.startswith(folded) for text in texts))


def _is_entry(entry: Any, shape: Shape, is_exact: bool) -> bool:
    if not isinstance(entry, dict) or not entry.keys() <= _ENTRY:
        return False
    if entry.keys() != _ENTRY:
        return not is_exact
    return isinstance(entry["key"], str) and fits(entry["value"], shape, is_exact)


def _fits_object(value: dict[str, Any], shape: ObjectShape, is_exact: bool) -> bool:
    if is_exact and not shape.required <= value.keys():
        return False
    for key, item in value.items():
        inner = shape.free if shape.free is not None and key == shape.free_key else shape.properties.get(key)
        if inner is None:
            if is_exact:
                return False
        elif not fits(item, inner, is_exact) and not (item is None and key not in shape.required):
            return False
    return True
