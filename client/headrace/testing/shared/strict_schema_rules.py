"""Checks a JSON schema as OpenAI's strict mode does, with its error texts. Pure.

The rules are written here once more, apart from the code that makes schemas strict, so that each can find faults of the
other.
"""

from __future__ import annotations

import re
from typing import Any

from headrace.testing.shared.request_rules import OpenAIRefusal
from headrace.testing.shared.schema_forms import fault_of_form

_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
_OF_TYPE = {
    "string": ("pattern", "format"),
    "number": ("multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    "integer": ("multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    "array": ("items", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties"),
    "boolean": (),
    "null": (),
}
_EVERYWHERE = ("type", "title", "description", "enum", "const", "anyOf", "$ref", "$defs", "definitions", "$schema")
_MAX_DEPTH = 10
_MAX_PROPERTIES = 5_000
_MAX_STRING = 120_000
_MAX_ENUM_VALUES = 1_000
_LONG_ENUM = 250
_MAX_LONG_ENUM_STRING = 15_000


def check_strict_schema(schema: Any, subject: str, param: str, code: str) -> None:
    """Refuse a schema that strict mode does not take. ``subject`` names it, such as ``response_format 'City'``."""
    _SchemaCheck(subject, param, code).check(schema)


class _SchemaCheck:
    """Checks one schema, and counts its sizes."""

    def __init__(self, subject: str, param: str, code: str) -> None:
        self._subject = subject
        self._param = param
        self._code = code
        self._properties = 0
        self._enum_values = 0
        self._string = 0

    def check(self, schema: Any) -> None:
        if not isinstance(schema, dict) or schema.get("type") != "object":
            kind = schema.get("type") if isinstance(schema, dict) else None
            raise self._refusal(f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'.")
        if "anyOf" in schema:
            raise self._refusal("schema must not have 'anyOf' at the top level.")
        if (fault := fault_of_form(schema)) is not None:
            raise self._refusal(f"{fault}.")
        self._definitions = schema.get("$defs", {}) | schema.get("definitions", {})
        self._check(schema, (), 0)
        for count, limit, noun in (
            (self._properties, _MAX_PROPERTIES, "object properties"),
            (self._enum_values, _MAX_ENUM_VALUES, "enum values"),
            (self._string, _MAX_STRING, "characters of property names, definition names, enum values and const values"),
        ):
            if count > limit:
                raise self._refusal(f"Expected at most {limit} {noun} in total within a schema, but got {count}.")

    def _refusal(self, problem: str, context: tuple[str, ...] | None = None) -> OpenAIRefusal:
        place = "" if context is None else f"In context={context!r}, "
        return OpenAIRefusal(f"Invalid schema for {self._subject}: {place}{problem}", self._param, self._code)

    def _check(self, schema: Any, context: tuple[str, ...], depth: int) -> None:
        if not isinstance(schema, dict):
            raise self._refusal(f"{schema!r} is not of type 'object'.", context)
        for word in ("$defs", "definitions"):
            for name, definition in schema.get(word, {}).items():
                self._string += len(name)
                self._check(definition, (*context, word, name), 0)
        if "$ref" in schema:
            self._check_reference(schema, context)
            return
        if not schema.keys() & {"type", "anyOf"}:
            raise self._refusal("schema must have a 'type' key.", context)
        kinds = schema.get("type", [])
        kinds = kinds if isinstance(kinds, list) else [kinds]
        self._check_words(schema, kinds, context)
        for index, choice in enumerate(schema.get("anyOf", [])):
            self._check(choice, (*context, "anyOf", str(index)), depth)
        if "object" in kinds:
            self._check_object(schema, context, depth + 1)
        if "array" in kinds:
            if "items" not in schema:
                raise self._refusal("array schema missing items.", context)
            self._check(schema["items"], (*context, "items"), self._deeper(depth, context))
        self._check_values(schema, context)

    def _deeper(self, depth: int, context: tuple[str, ...]) -> int:
        if depth + 1 > _MAX_DEPTH:
            raise self._refusal(f"{depth + 1} levels of nesting exceeds limit of {_MAX_DEPTH}.", context)
        return depth + 1

    def _check_reference(self, schema: dict[str, Any], context: tuple[str, ...]) -> None:
        others = schema.keys() - {"$ref", "$defs", "definitions"}
        if others:
            raise self._refusal(f"$ref cannot have keywords {others}.", context)
        target = str(schema["$ref"])
        name = re.fullmatch(r"#/(?:\$defs|definitions)/(.+)", target)
        if target != "#" and (name is None or name[1].replace("~1", "/").replace("~0", "~") not in self._definitions):
            raise self._refusal(f"reference to component '{target}' which was not found in the schema.", context)

    def _check_words(self, schema: dict[str, Any], kinds: list[Any], context: tuple[str, ...]) -> None:
        allowed = {*_EVERYWHERE}
        for kind in kinds:
            if kind not in _OF_TYPE:
                raise self._refusal(f"'{kind}' is not valid under any of the given schemas.", context)
            allowed |= set(_OF_TYPE[kind])
        for word in schema:
            if word not in allowed:
                raise self._refusal(f"'{word}' is not permitted.", context)
        if schema.get("format", "date") not in _FORMATS:
            raise self._refusal(f"'{schema['format']}' is not a valid format.", context)
        if re.search(r"\(\?(=|!|<=|<!)", schema.get("pattern", "")):
            raise self._refusal("pattern: look-around is not supported.", context)

    def _check_object(self, schema: dict[str, Any], context: tuple[str, ...], depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise self._refusal(f"{depth} levels of nesting exceeds limit of {_MAX_DEPTH}.", context)
        if schema.get("additionalProperties") is not False:
            raise self._refusal("'additionalProperties' is required to be supplied and to be false.", context)
        properties, required = schema.get("properties", {}), schema.get("required", [])
        text = "'required' is required to be supplied and to be an array including every key in properties."
        for name, child in properties.items():
            if name not in required:
                raise self._refusal(f"{text} Missing '{name}'.", context)
            self._properties += 1
            self._string += len(name)
            self._check(child, (*context, "properties", name), depth)
        for name in required:
            if name not in properties:
                raise self._refusal(f"{text} Extra required key '{name}' supplied.", context)

    def _check_values(self, schema: dict[str, Any], context: tuple[str, ...]) -> None:
        values = schema.get("enum", [])
        if "enum" in schema and not values:
            raise self._refusal("enum must not be empty.", context)
        length = sum(len(value) for value in values if isinstance(value, str))
        if len(values) > _LONG_ENUM and length > _MAX_LONG_ENUM_STRING:
            raise self._refusal(
                f"enum has {length} characters, which exceeds the limit of {_MAX_LONG_ENUM_STRING}.", context
            )
        self._enum_values += len(values)
        self._string += length + (len(schema["const"]) if isinstance(schema.get("const"), str) else 0)
