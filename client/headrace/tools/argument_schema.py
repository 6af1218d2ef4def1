"""Makes the JSON schema of a function's arguments from the schemas of its parameters. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_REFERENCE = "#/$defs/"
_HOLDERS = ("properties", "$defs", "patternProperties")
"""Keywords of which each value is a schema."""
_ENUM_TYPES = {str: {"type": "string"}, int: {"type": "integer"}}


def object_schema(parts: Iterable[tuple[str, Mapping[str, Any], bool]]) -> dict[str, Any]:
    """Return the schema of an object from its properties: each with its name, its schema, and whether it is required.

    Each schema may have definitions of its own (``$defs``). They move to the object; equal names get a number.
    """
    definitions: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, schema, is_required in parts:
        properties[name] = _moved(_without_titles(schema), definitions)
        if is_required:
            required.append(name)
    made: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        made["required"] = required
    if used := _used(properties, definitions):
        made["$defs"] = used
    return made


def with_words(schema: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema with a description, a default or another annotation of its own.

    A schema that is only a reference becomes a copy of what it names: not every provider takes words beside ``$ref``.
    """
    if not words:
        return dict(schema)
    definitions = schema.get("$defs", {})
    name = str(schema.get("$ref", "")).removeprefix(_REFERENCE)
    if name in definitions:
        return {**definitions[name], "$defs": definitions, **words}
    return {**schema, **words}


def _moved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Move the definitions of a schema to ``definitions``, and return the rest of the schema."""
    own = schema.get("$defs", {})
    names = {}
    for name, definition in own.items():
        free, number = name, 2
        while free in definitions and definitions[free] != definition:
            free, number = f"{name}{number}", number + 1
        names[_REFERENCE + name] = _REFERENCE + free
        definitions[free] = definition
    if any(old != new for old, new in names.items()):
        for name in own:
            place = names[_REFERENCE + name].removeprefix(_REFERENCE)
            definitions[place] = _renamed(definitions[place], names)
    rest = {key: value for key, value in schema.items() if key != "$defs"}
    renamed: dict[str, Any] = _renamed(rest, names)
    return renamed


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, list):
        return [_renamed(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: names.get(value, value) if key == "$ref" and isinstance(value, str) else _renamed(value, names)
        for key, value in schema.items()
    }


def _used(properties: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the definitions that the properties name, themselves or by way of other definitions."""
    used: dict[str, Any] = {}
    to_see = [properties]
    while to_see:
        seen = to_see.pop()
        if isinstance(seen, list):
            to_see += seen
        elif isinstance(seen, dict):
            to_see += seen.values()
            name = str(seen.get("$ref", "")).removeprefix(_REFERENCE)
            if name in definitions and name not in used:
                used[name] = definitions[name]
                to_see.append(definitions[name])
    return {name: definitions[name] for name in definitions if name in used}


def _without_titles(schema: Any) -> Any:
    """Return a schema without titles, which only repeat names, and with the type of each enum.

    A property may be named ``title``.
    """
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    if (kinds := {type(choice) for choice in schema.get("enum", ())}) and "type" not in schema and len(kinds) == 1:
        kept |= _ENUM_TYPES.get(kinds.pop(), {})  # not every provider takes an enum without it
    for key, value in schema.items():
        if key in _HOLDERS and isinstance(value, dict):
            kept[key] = {name: _without_titles(inner) for name, inner in value.items()}
        elif key in {"enum", "const", "default", "examples"}:
            kept[key] = value
        elif key != "title":
            kept[key] = _without_titles(value)
    return kept
