"""Restores a value from the portable form of a schema to its original form. Pure.

A model may answer in the portable form or in the original form: a server that ignores the schema writes a plain object
where the portable form has a list of entries. So restoring is lenient: it undoes what it recognises, and leaves every
other value as it is. The decoder of the type decides what is wrong.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from headrace.schemas.shapes import (
    REST,
    EncodedShape,
    EntriesShape,
    JsonTextShape,
    ListShape,
    ObjectShape,
    PlainShape,
    ReferenceShape,
    Shape,
    TupleShape,
    UnionShape,
    fits,
    json_value,
    takes_null,
    tuple_names,
)
from headrace.schemas.value_mismatch import ValueMismatchError, step


def restore(value: Any, shape: Shape, is_whole: bool = True) -> Any:
    """Return the value in the form of the original schema.

    ``is_whole=False``: the value is the beginning of an answer.

    Raises ValueMismatchError if entries have the same key twice.
    """
    return _RESTORERS[type(shape)](value, shape, is_whole)


def _inner(value: Any, shape: Shape, is_whole: bool, key: int | str) -> Any:
    """Restore a value inside another. ``key``: where it is, for an error."""
    try:
        return _RESTORERS[type(shape)](value, shape, is_whole)
    except ValueMismatchError as error:
        raise ValueMismatchError(f"${step(key)}{error.path.removeprefix('$')}", error.reason) from None


def _reference(value: Any, shape: ReferenceShape, is_whole: bool) -> Any:
    return restore(value, shape.definitions[shape.name], is_whole)


def _union(value: Any, shape: UnionShape, is_whole: bool) -> Any:
    chosen = _branch(value, shape, is_whole)
    return value if chosen is None else restore(value, chosen, is_whole)


def _json_text(value: Any, _: JsonTextShape, is_whole: bool) -> Any:
    """Return the value of a JSON text; of an answer that grows, the value of the beginning of a text."""
    if not isinstance(value, str):
        return value
    found = json_value(value)
    if found is value and not is_whole and value.startswith(("{", "[")):
        import jiter

        with contextlib.suppress(ValueError):
            return jiter.from_json(value.encode(), partial_mode="trailing-strings")
    return found


def _encoded(value: Any, shape: EncodedShape, is_whole: bool) -> Any:
    if isinstance(value, str) and not fits(value, shape.inner, is_exact=True):
        return value  # it is the text already
    return json.dumps(restore(value, shape.inner, is_whole), ensure_ascii=False)


def _plain(value: Any, shape: PlainShape, _: bool) -> Any:
    """Return the value. ``2.0`` becomes the integer 2, and a text in other upper and lower case becomes the choice."""
    if isinstance(value, float):
        return int(value) if shape.kind == "integer" and value.is_integer() else value
    if shape.choices is None or not isinstance(value, str) or value in shape.choices:
        return value
    folded = value.casefold()
    alike = [choice for choice in shape.choices if isinstance(choice, str) and choice.casefold() == folded]
    return alike[0] if len(alike) == 1 else value


def _list(value: Any, shape: ListShape, is_whole: bool) -> Any:
    if not isinstance(value, list):
        return _from_text(value, shape, is_whole)
    return [_inner(item, shape.item, is_whole, index) for index, item in enumerate(value)]


def _object(value: Any, shape: ObjectShape, is_whole: bool) -> Any:
    if not isinstance(value, dict):
        return _from_text(value, shape, is_whole)
    restored: dict[str, Any] = {}
    for key, item in value.items():
        inner = shape.properties.get(key)
        if inner is not None:
            if item is not None or key in shape.required or takes_null(inner):
                restored[key] = _inner(item, inner, is_whole, key)
        elif key == shape.free_key and shape.free is not None:
            further = restore(item, shape.free, is_whole)
            restored |= further if isinstance(further, dict) else {}
        else:
            restored[key] = item
    return restored


def _entries(value: Any, shape: EntriesShape, is_whole: bool) -> Any:
    if isinstance(value, dict):
        return {key: _inner(item, shape.value, is_whole, key) for key, item in value.items()}
    if not isinstance(value, list):
        return _from_text(value, shape, is_whole)
    restored: dict[str, Any] = {}
    for entry in value:
        if not isinstance(entry, dict) or not isinstance(key := entry.get("key"), str) or "value" not in entry:
            if not is_whole:
                continue  # the entry has only begun
            return value
        if key in restored and is_whole:
            raise ValueMismatchError("$", f"the key {key!r} is there twice")
        restored[key] = _inner(entry["value"], shape.value, is_whole, key)
    return restored


def _tuple(value: Any, shape: TupleShape, is_whole: bool) -> Any:
    items = value
    if isinstance(value, dict):
        named = zip(tuple_names(len(shape.items)), shape.items, strict=True)
        items = [value[name] for name, place in named if value.get(name) is not None or _is_null(value, name, place)]
        further = value.get(REST) if shape.rest is not None else None
        items += further if isinstance(further, list) else []
    if not isinstance(items, list):
        return _from_text(value, shape, is_whole)
    inner = [*shape.items, *[shape.rest or JsonTextShape()] * (len(items) - len(shape.items))]
    return [_inner(item, place, is_whole, index) for index, (item, place) in enumerate(zip(items, inner, strict=False))]


def _from_text(value: Any, shape: Shape, is_whole: bool) -> Any:
    """Restore an object or a list that is written as JSON text, as the workers ask for it where a type refers to itself."""
    found = _json_text(value, JsonTextShape(), is_whole)
    return restore(found, shape, is_whole) if found is not value and isinstance(found, (dict, list)) else value


def _is_null(value: dict[str, Any], name: str, place: Shape) -> bool:
    """Tell whether this place of a tuple has a null that is a value, and not the sign that the place is empty."""
    return name in value and takes_null(place)


def _branch(value: Any, shape: UnionShape, is_whole: bool) -> Shape | None:
    """Return the branch of a union that the value has: the first that fits exactly, else the first that fits loosely."""
    for is_exact in (is_whole, False):
        for branch in shape.branches:
            if fits(value, branch, is_exact):
                return branch
    return None


_RESTORERS: dict[type, Callable[[Any, Any, bool], Any]] = {
    ReferenceShape: _reference,
    UnionShape: _union,
    JsonTextShape: _json_text,
    PlainShape: _plain,
    EncodedShape: _encoded,
    ListShape: _list,
    ObjectShape: _object,
    EntriesShape: _entries,
    TupleShape: _tuple,
}
