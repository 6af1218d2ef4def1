"""Adds to a schema what msgspec leaves out: the formats of times, the keys of dicts, the names of a NamedTuple's places.

It walks through msgspec's description of the type and through the schema side by side.
"""

from __future__ import annotations

from typing import Any

from msgspec import inspect

_KEYS: dict[type, dict[str, Any]] = {
    inspect.IntType: {"pattern": "^-?[0-9]+$"},
    inspect.DateType: {"format": "date"},
    inspect.DateTimeType: {"format": "date-time"},
    inspect.UUIDType: {"format": "uuid"},
}
"""Type of a dict's keys → what a key looks like."""


def complete(annotation: Any, schema: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Complete the schema of a type, and the definitions that it refers to. Changes both."""
    _complete(inspect.type_info(annotation), schema, definitions, set())


def _complete(kind: Any, schema: Any, definitions: dict[str, Any], seen: set[str]) -> None:
    kind = _bare(kind)
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name:
        if name in seen or name not in definitions:
            return
        seen.add(name)
        schema = definitions[name]
    for inner, part in _parts(kind, schema):
        _complete(inner, part, definitions, seen)
    match kind:
        case inspect.DateTimeType(tz=None):
            schema.setdefault("format", "date-time")
        case inspect.TimeType(tz=None):
            schema.setdefault("format", "time")
        case inspect.NamedTupleType():
            for field, part in zip(kind.fields, schema.get("prefixItems", ()), strict=False):
                part.setdefault("title", field.name)
        case inspect.DictType():
            if (words := _key_words(_bare(kind.key_type))) is not None:
                schema.setdefault("propertyNames", words)


def _parts(kind: Any, schema: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Return the parts of a type, each with its part of the schema."""
    found: list[tuple[Any, Any]] = []
    match kind:
        case inspect.CollectionType():
            found = [(kind.item_type, schema.get("items"))]
        case inspect.DictType():
            found = [(kind.value_type, schema.get("additionalProperties"))]
        case inspect.TupleType():
            found = list(zip(kind.item_types, schema.get("prefixItems", ()), strict=False))
        case inspect.UnionType():
            found = list(zip(_in_order(kind.types), _options(schema), strict=False))
        case inspect.StructType() if kind.array_like:
            places = schema.get("prefixItems", [])[0 if kind.tag_field is None else 1 :]
            found = list(zip([field.type for field in kind.fields], places, strict=False))
        case inspect.NamedTupleType():
            found = list(zip([field.type for field in kind.fields], schema.get("prefixItems", ()), strict=False))
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
            properties = schema.get("properties", {})
            found = [(field.type, properties.get(field.encode_name)) for field in kind.fields]
    return [(inner, part) for inner, part in found if isinstance(part, dict)]


def _bare(kind: Any) -> Any:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind


def _in_order(kinds: Any) -> list[Any]:
    """Return the types of a union in the order in which msgspec writes them: Structs behind others, None last."""

    def place(kind: Any) -> int:
        bare = _bare(kind)
        if isinstance(bare, inspect.NoneType):
            return 2
        return 1 if isinstance(bare, inspect.StructType) and not bare.array_like else 0

    return sorted(kinds, key=place)


def _options(schema: dict[str, Any]) -> list[Any]:
    """Return the branches of a union. msgspec puts Structs with tags into a union of their own."""
    found: list[Any] = []
    for option in schema.get("anyOf", ()):
        found += option["anyOf"] if "discriminator" in option else [option]
    return found


def _key_words(kind: Any) -> dict[str, Any] | None:
    match kind:
        case inspect.EnumType():
            return {"enum": [str(member.value) for member in kind.cls]}
        case inspect.LiteralType():
            return {"enum": [str(value) for value in kind.values]}
    return _KEYS.get(type(kind))
