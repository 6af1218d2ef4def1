"""Checks JSON schemas as Anthropic's structured output does: those of strict tools and of the answer. Pure.

The rules are written here once more, apart from the code that fits schemas to Anthropic, so that each can find faults
of the other.
"""

from __future__ import annotations

import re
from typing import Any

from headrace.testing.anthropic.turns import AnthropicRefusal
from headrace.testing.shared.schema_forms import fault_of_form

_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid")
_ANNOTATIONS = ("title", "description", "default", "$defs", "definitions")
_OF_TYPE = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "minItems"),
    "string": ("format", "pattern"),
}
_MAX_STRICT_TOOLS = 20
_MAX_OPTIONAL = 24
_MAX_UNIONS = 16


class StrictSchemas:
    """Checks the strict schemas of one request. The limits count over all of them."""

    def __init__(self) -> None:
        self._tools = 0
        self._optional = 0
        self._unions = 0

    def add_tool(self, where: str, schema: dict[str, Any]) -> None:
        """Check the schema of a strict tool."""
        self._tools += 1
        if self._tools > _MAX_STRICT_TOOLS:
            raise AnthropicRefusal(f"Too many strict tools: at most {_MAX_STRICT_TOOLS} are allowed.")
        self.add(where, schema)

    def add(self, where: str, schema: dict[str, Any]) -> None:
        """Check a schema, and add its sizes to those of the request."""
        if (fault := fault_of_form(schema)) is not None:
            raise AnthropicRefusal(f"{where}: JSON schema is invalid: {fault}")
        self._check(where, schema, schema, ())
        if self._optional > _MAX_OPTIONAL:
            reason = f"{self._optional} optional parameters, at most {_MAX_OPTIONAL} are allowed"
            raise AnthropicRefusal(f"Schemas contain too many optional parameters: {reason} in all strict schemas.")
        if self._unions > _MAX_UNIONS:
            reason = f"{self._unions} parameters with union types, at most {_MAX_UNIONS} are allowed"
            raise AnthropicRefusal(f"Schemas contain too many parameters with union types: {reason}.")

    def _check(self, where: str, schema: Any, root: dict[str, Any], inside: tuple[str, ...]) -> None:
        """Check a part of a schema. ``inside`` are the references that led to it."""
        if not isinstance(schema, dict):
            raise AnthropicRefusal(f"{where}: Schema must be an object, got {schema!r}")
        for word in ("$defs", "definitions"):
            for name, definition in schema.get(word, {}).items():
                self._check(f"{where}.{word}.{name}", definition, root, (f"#/{word}/{name}",))
        if "$ref" in schema:
            _check_reference(where, schema, root, inside)
            return
        for word in ("anyOf", "allOf"):
            for index, choice in enumerate(schema.get(word, [])):
                self._check(f"{where}.{word}.{index}", choice, root, inside)
        kinds = schema.get("type", [])
        kinds = kinds if isinstance(kinds, list) else [kinds]
        self._unions += len(kinds) > 1 or len(schema.get("anyOf", [])) > 1
        if not kinds and not schema.keys() & {"anyOf", "allOf", "enum", "const"}:
            raise AnthropicRefusal(f"{where}: Schema type is required")
        _check_words(where, schema, kinds)
        if "object" in kinds:
            self._check_object(where, schema, root, inside)
        if "array" in kinds and "items" in schema:
            self._check(f"{where}.items", schema["items"], root, inside)

    def _check_object(self, where: str, schema: dict[str, Any], root: dict[str, Any], inside: tuple[str, ...]) -> None:
        if schema.get("additionalProperties") is not False:
            raise AnthropicRefusal(
                f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false"
            )
        for name, child in schema.get("properties", {}).items():
            self._optional += name not in schema.get("required", [])
            self._check(f"{where}.properties.{name}", child, root, inside)
        for name in schema.get("required", []):
            if name not in schema.get("properties", {}):
                raise AnthropicRefusal(f"{where}: Required property '{name}' is not defined")


def _check_words(where: str, schema: dict[str, Any], kinds: list[Any]) -> None:
    allowed = {"type", "enum", "const", "anyOf", "allOf", *_ANNOTATIONS}
    for kind in kinds:
        if kind not in {"object", "array", "string", "integer", "number", "boolean", "null"}:
            raise AnthropicRefusal(f"{where}: Invalid schema type {kind!r}")
        allowed |= set(_OF_TYPE.get(kind, ()))
    unknown = sorted(schema.keys() - allowed)
    if unknown:
        raise AnthropicRefusal(f"{where}: For '{kinds}' type, properties {', '.join(unknown)} are not supported")
    if schema.get("minItems", 0) not in (0, 1):
        raise AnthropicRefusal(f"{where}: For 'array' type, 'minItems' values other than 0 or 1 are not supported")
    if schema.get("format", "date") not in _FORMATS:
        raise AnthropicRefusal(f"{where}: For 'string' type, format '{schema['format']}' is not supported")
    if re.search(r"\(\?(=|!|<=|<!)|\\b|\\B|\\\d", schema.get("pattern", "")):
        raise AnthropicRefusal(
            f"{where}: Invalid regex pattern: look-around, \\b and back-references are not supported"
        )
    for value in [*schema.get("enum", []), schema.get("const")]:
        if isinstance(value, dict | list):
            raise AnthropicRefusal(f"{where}: Enum values must be strings, numbers, booleans or null")


def _check_reference(where: str, schema: dict[str, Any], root: dict[str, Any], inside: tuple[str, ...]) -> None:
    others = schema.keys() - {"$ref", *_ANNOTATIONS}
    if others:
        raise AnthropicRefusal(f"{where}: $ref cannot be combined with {', '.join(sorted(others))}")
    _check_end(where, schema["$ref"], root, inside)


def _check_end(where: str, target: Any, root: dict[str, Any], inside: tuple[str, ...]) -> None:
    """Refuse a reference that leads back to itself, or nowhere."""
    if target in inside:
        raise AnthropicRefusal(f"{where}: Circular reference detected in schema definitions: {target}")
    found: Any = root
    for step in str(target).removeprefix("#").split("/")[1:]:
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    if found is None or target == "#":
        raise AnthropicRefusal(f"{where}: Unresolvable reference: {target}")
    for inner in _references(found):
        _check_end(where, inner, root, (*inside, target))


def _references(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [found for part in value for found in _references(part)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + [found for word, part in value.items() if word != "$ref" for found in _references(part)]
