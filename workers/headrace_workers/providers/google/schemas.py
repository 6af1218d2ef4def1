"""Fits a JSON schema to what Gemini takes in ``responseJsonSchema``, and in the parameters of functions. Pure.

Gemini unrolls a recursive schema by itself, to a depth that it does not tell, and only in optional properties. So
recursion is unrolled here, and nothing is lost.
"""

from __future__ import annotations

from typing import Any

from headrace_workers.providers.shared.schema_fitting import fitted
from headrace_workers.providers.shared.schema_recursion import unrolled
from headrace_workers.providers.shared.schema_walk import Schema, is_object, with_children, wrong_schema

_WORD_NAMES = """
    $defs $ref additionalProperties anyOf description enum items maxItems maximum minItems minimum properties
    propertyOrdering required title type
"""
_WORDS = frozenset(_WORD_NAMES.split())
_FORMATS = frozenset(("date-time", "date", "time"))
_UNROLLED_LEVELS = 4


def google_schemas(given: list[tuple[str, Schema]]) -> list[Schema]:
    """Return the schemas of a request as Gemini takes them. Each comes with the caller's argument that it is from.

    Raises ProviderFailedError (``invalid_request``) for a schema that Gemini cannot take.
    """
    return [_google_schema(schema, where) for where, schema in given]


def _google_schema(schema: Any, where: str) -> Schema:
    if not isinstance(schema, dict) or not is_object(schema):
        raise wrong_schema(where, "$", "the whole answer has to be an object")
    return fitted(_with_own_words(unrolled(schema, _UNROLLED_LEVELS)), where, _keeps)


def _keeps(word: str, value: Any, _schema: Schema) -> bool:
    if word == "format":
        return isinstance(value, str) and value in _FORMATS
    if word == "enum":
        return all(not isinstance(choice, dict | list) for choice in value)
    return word in _WORDS


def _with_own_words(schema: Any) -> Any:
    """Return a part with keywords in Gemini's place of others: ``enum`` for ``const``, inclusive bounds for integers."""
    if not isinstance(schema, dict):
        return schema
    schema = with_children(schema, lambda _place, child: _with_own_words(child))
    if "const" in schema and "enum" not in schema:
        schema = {
            "enum" if word == "const" else word: [value] if word == "const" else value for word, value in schema.items()
        }
    if schema.get("type") == "integer":
        for word, bound, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
            value = schema.get(word)
            if type(value) is int and bound not in schema:
                schema = {name: part for name, part in schema.items() if name != word} | {bound: value + step}
    return schema
