"""Fits a JSON schema to what a provider takes, keyword by keyword. The rest is said in descriptions. Pure.

The client has put the schema into a portable form already, which has no free keys and no values of any type. Here only
rules are moved and added, so the shape of a value stays the same for all providers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace_workers.providers.shared.schema_walk import (
    DEFINITIONS,
    MAX_NESTING,
    Schema,
    has_type,
    is_object,
    with_children,
    wrong_schema,
)
from headrace_workers.providers.shared.schema_words import described

_JSON_TYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    list: "array",
    dict: "object",
}

_FORMS: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("$defs", dict, "an object"),
    ("$ref", str, "a text"),
    ("anyOf", list, "a list"),
    ("description", str, "a text"),
    ("enum", list, "a list"),
    ("oneOf", list, "a list"),
    ("properties", dict, "an object"),
    ("required", list, "a list"),
    ("type", (str, list), "a text or a list"),
)
_SCALARS = ("string", "number", "integer", "boolean")

Keeps = Callable[[str, Any, Schema], bool]
"""Whether a provider takes a keyword with this value in this part of a schema."""


def fitted(schema: Any, where: str, keeps: Keeps, place: str = "$", nesting: int = 0) -> Schema:
    """Return the schema with the keywords that ``keeps`` allows; the other ones are said in the descriptions.

    Each part gets a type, and each object is closed: it allows no properties that are not listed. ``where`` is the
    caller's argument. Raises ProviderFailedError (``invalid_request``) for a part that no provider can take.
    """
    if not isinstance(schema, dict):
        raise wrong_schema(where, place, f"no provider takes {str(schema).lower()} as a schema: give a type")
    if nesting > MAX_NESTING:
        raise wrong_schema(where, place, f"the schema is nested more than {MAX_NESTING} levels deep")
    schema = _plain(schema, where, place)
    kept: Schema = {}
    left_out: Schema = {}
    for word, value in schema.items():
        (kept if keeps(word, value, schema) else left_out)[word] = value
    changed = with_children(kept, lambda step, child: fitted(child, where, keeps, place + step, nesting + 1))
    return described(changed, left_out) if left_out else changed


def or_null(schema: Schema) -> Schema:
    """Return a schema that takes null too."""
    kind = schema.get("type")
    if "anyOf" in schema:
        if any(choice.get("type") == "null" for choice in schema["anyOf"]):
            return schema
        return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    if isinstance(kind, list) and "const" not in schema:
        enum = {"enum": [*schema["enum"], None]} if "enum" in schema and None not in schema["enum"] else {}
        return schema if "null" in kind else schema | {"type": [*kind, "null"]} | enum
    if kind == "null":
        return schema
    if kind in _SCALARS and not schema.keys() & {"enum", "const"}:
        return schema | {"type": [kind, "null"]}
    words = {"description": schema["description"]} if "description" in schema else {}
    inner = {word: value for word, value in schema.items() if word != "description"}
    return {"anyOf": [inner, {"type": "null"}]} | words


def _plain(schema: Schema, where: str, place: str) -> Schema:
    """Return a part in the form that all providers share: with a type, closed, with ``anyOf`` as its only union."""
    for word, kind, name in _FORMS:
        if word in schema and not isinstance(schema[word], kind):
            raise wrong_schema(where, place, f"{word} takes {name}, not {schema[word]!r}")
    if "$ref" in schema:
        return _plain_reference(schema)
    if "oneOf" in schema and "anyOf" not in schema:
        schema = {"anyOf" if word == "oneOf" else word: value for word, value in schema.items()}
    if not schema.keys() & {"type", "anyOf"}:
        schema = {"type": _type_of(schema, where, place)} | schema
    if has_type(schema, "array") and not isinstance(schema.get("items"), dict):
        raise wrong_schema(where, place, "a list needs one type for all its items")
    if is_object(schema):
        if schema.get("additionalProperties", False) not in (False, True):
            raise wrong_schema(where, place, "a provider takes no object with free keys: list its properties")
        schema = schema | {"properties": schema.get("properties", {}), "additionalProperties": False}
    return schema


def _plain_reference(schema: Schema) -> Schema:
    """Return a reference that stands alone, or in a union of one with the words that stood beside it."""
    beside = {word: value for word, value in schema.items() if word not in {"$ref", DEFINITIONS}}
    if not beside:
        return schema
    kept = {word: value for word, value in schema.items() if word in {DEFINITIONS, "description", "title"}}
    rules = {word: value for word, value in beside.items() if word not in kept}
    return described({"anyOf": [{"$ref": schema["$ref"]}]} | kept, rules)


def _type_of(schema: Schema, where: str, place: str) -> str | list[str]:
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list) and values:
        kinds = list(dict.fromkeys(_JSON_TYPES.get(type(value), "string") for value in values))
        return kinds[0] if len(kinds) == 1 else kinds
    for kind, words in (("object", {"properties"}), ("array", {"items", "prefixItems"})):
        if schema.keys() & words:
            return kind
    raise wrong_schema(where, place, "each part of a schema needs a type")
