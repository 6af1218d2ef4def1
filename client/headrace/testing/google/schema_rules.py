"""Checks a JSON schema as Google does for ``responseJsonSchema`` and for functions that it validates. Pure.

The rules are written here once more, apart from the code that fits schemas to Gemini, so that each can find faults of
the other. Whether the real API refuses or ignores an unknown keyword is not known: here it is refused.
"""

from __future__ import annotations

import re
from typing import Any

from headrace.testing.shared.schema_forms import fault_of_form

_WORD_NAMES = """
    $id $defs $ref $anchor type format title description enum items prefixItems minItems maxItems minimum maximum anyOf
    oneOf properties additionalProperties required propertyOrdering
"""
_WORDS = frozenset(_WORD_NAMES.split())
_TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")
_LISTS = ("anyOf", "oneOf", "prefixItems")


def fault_of_schema(schema: Any, where: str) -> str | None:
    """Return why Google refuses a schema; None if it takes it."""
    if schema is True:
        return None
    if (fault := fault_of_form(schema)) is not None:
        return f"Invalid value at '{where}': {fault}."
    return next(iter(_faults(schema, where)), None) or _endless(schema, where)


def _faults(schema: Any, where: str) -> list[str]:
    if schema is True:
        return []
    if not isinstance(schema, dict):
        return [f"Invalid value at '{where}': a schema is needed."]
    if "$ref" in schema and schema.keys() - {"$ref", "$defs"}:
        others = ", ".join(sorted(schema.keys() - {"$ref", "$defs"}))
        return [f"Invalid value at '{where}': $ref must not have siblings, but has {others}."]
    for word in schema:
        if word not in _WORDS:
            return [f"Invalid JSON payload received. Unknown name \"{word}\" at '{where}': Cannot find field."]
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in _TYPES:
            return [f"Invalid value at '{where}.type', {kind!r}"]
    if any(isinstance(value, dict | list) for value in schema.get("enum", [])):
        return [f"Invalid value at '{where}.enum': only strings and numbers are supported."]
    properties = schema.get("properties")
    if properties is not None and not set(schema.get("required", [])) <= set(properties):
        return [f"{where}.required: property is not defined"]
    return [fault for name, part in _parts(schema) for fault in _faults(part, f"{where}.{name}")]


def _parts(schema: dict[str, Any]) -> list[tuple[str, Any]]:
    found = [(f"{word}[{index}]", part) for word in _LISTS for index, part in enumerate(schema.get(word, []))]
    found += [(f"properties.{name}", part) for name, part in schema.get("properties", {}).items()]
    found += [(f"defs.{name}", part) for name, part in schema.get("$defs", {}).items()]
    found += [("items", schema["items"])] if "items" in schema else []
    further = schema.get("additionalProperties", False)
    return [*found, ("additional_properties", further)] if isinstance(further, dict) else found


def _endless(root: Any, where: str) -> str | None:
    """Return the fault of a recursion that a required property begins. In other properties Google unrolls it a little."""
    definitions = root.get("$defs", {}) if isinstance(root, dict) else {}

    def is_endless(schema: Any, inside: tuple[str, ...]) -> bool:
        if not isinstance(schema, dict):
            return False
        if isinstance(schema.get("$ref"), str):
            name = re.sub(r"^#/\$defs/", "", schema["$ref"])
            return name in inside or is_endless(definitions.get(name), (*inside, name))
        required = schema.get("required", [])
        kept = [part for name, part in schema.get("properties", {}).items() if name in required]
        return any(is_endless(part, inside) for part in [*kept, schema.get("items"), *schema.get("anyOf", [])])

    if is_endless(root, ()) or any(is_endless(part, (name,)) for name, part in definitions.items()):
        return f"{where}: a recursive $ref is only allowed in properties that are not required."
    return None
