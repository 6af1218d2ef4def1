"""Checks whether a JSON schema follows the rules of OpenAI's strict mode, which refuses every other schema. Pure."""

from __future__ import annotations

from typing import Any

_WORD_NAMES = """
    $defs $ref $schema additionalProperties anyOf const definitions description enum exclusiveMaximum exclusiveMinimum format items
    maxItems maximum minItems minimum multipleOf pattern properties required title type
"""
_WORDS = frozenset(_WORD_NAMES.split())
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
_MAX_LEVELS = 10
"""Levels of nested objects and lists that strict mode allows."""


def is_strict(schema: dict[str, Any]) -> bool:
    """Return whether the schema may be sent as strict.

    Its root must be an object. Each object must require all its properties and allow no others. All keywords must be
    known.
    """
    return schema.get("type") == "object" and "anyOf" not in schema and _is_strict(schema, _MAX_LEVELS)


def _is_strict(schema: Any, levels: int) -> bool:
    if not isinstance(schema, dict) or not levels or not _WORDS.issuperset(schema):
        return False
    if "$ref" in schema:
        return schema.keys() <= {"$ref", "$defs", "definitions"} and _are_strict(_definitions(schema), levels)
    if not schema.keys() & {"type", "anyOf", "enum", "const"}:
        return False
    if schema.get("format", _FORMATS[0]) not in _FORMATS or "(?" in str(schema.get("pattern", "")):
        return False
    return _keeps_object_rules(schema, levels) and _keeps_list_rules(schema, levels)


def _keeps_object_rules(schema: dict[str, Any], levels: int) -> bool:
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        return False
    if _has_type(schema, "object") or "properties" in schema:
        required = schema.get("required", [])
        if schema.get("additionalProperties") is not False or not isinstance(required, list):
            return False
        if set(properties) != {name for name in required if isinstance(name, str)}:
            return False
    return _are_strict([*properties.values(), *_definitions(schema)], levels - 1 if properties else levels)


def _keeps_list_rules(schema: dict[str, Any], levels: int) -> bool:
    choices = schema.get("anyOf", [])
    if not isinstance(choices, list) or not _are_strict(choices, levels):
        return False
    if _has_type(schema, "array") or "items" in schema:
        return _is_strict(schema.get("items"), levels - 1)
    return True


def _are_strict(schemas: list[Any], levels: int) -> bool:
    return all(_is_strict(schema, levels) for schema in schemas)


def _definitions(schema: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    for word in ("$defs", "definitions"):
        defined = schema.get(word, {})
        found += defined.values() if isinstance(defined, dict) else [None]
    return found


def _has_type(schema: dict[str, Any], name: str) -> bool:
    kind = schema.get("type")
    return name in kind if isinstance(kind, list) else kind == name
