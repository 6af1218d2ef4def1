"""Tells whether a value is a JSON schema at all: each keyword has a value of its type. For the simulated APIs. Pure."""

from __future__ import annotations

from typing import Any

_COUNT_NAMES = "minItems maxItems minLength maxLength minProperties maxProperties"
_NUMBER_NAMES = "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf"
_TEXT_NAMES = "$ref $schema $id $anchor description title pattern format contentEncoding"
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(_COUNT_NAMES.split(), (int,)),
    **dict.fromkeys(_NUMBER_NAMES.split(), (int, float)),
    **dict.fromkeys(_TEXT_NAMES.split(), (str,)),
    **dict.fromkeys(("properties", "$defs", "definitions"), (dict,)),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems", "enum", "required"), (list,)),
    "type": (str, list),
    "items": (dict, bool),
    "additionalProperties": (dict, bool),
}
_MAX_DEPTH = 100


def fault_of_form(schema: Any, place: str = "", depth: int = 0) -> str | None:
    """Return what is wrong with the form of a schema, with its place; None if it is a JSON schema."""
    if isinstance(schema, bool) and place:
        return None
    if not isinstance(schema, dict):
        return f"{place or 'schema'} is not of type 'object', 'boolean'"
    if depth > _MAX_DEPTH:
        return f"{place} is nested too deeply"
    for word, kinds in _KINDS.items():
        value = schema.get(word, kinds[0]())
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            return f"{place}.{word} has a value of a wrong type"
        if (
            word in {"required", "type"}
            and isinstance(value, list)
            and not all(isinstance(name, str) for name in value)
        ):
            return f"{place}.{word} has an element of a wrong type"
    if schema.get("multipleOf", 1) <= 0 or min(schema.get(word, 0) for word in _COUNT_NAMES.split()) < 0:
        return f"{place or 'schema'} has a bound that is too small"
    for name, part in _parts(schema):
        if (fault := fault_of_form(part, f"{place}.{name}", depth + 1)) is not None:
            return fault
    return None


def _parts(schema: dict[str, Any]) -> list[tuple[str, Any]]:
    found = [
        (f"{word}.{name}", part)
        for word in ("properties", "$defs", "definitions")
        for name, part in schema.get(word, {}).items()
    ]
    found += [
        (f"{word}.{index}", part)
        for word in ("anyOf", "oneOf", "allOf", "prefixItems")
        for index, part in enumerate(schema.get(word, []))
    ]
    return found + [(word, schema[word]) for word in ("items", "additionalProperties") if word in schema]
