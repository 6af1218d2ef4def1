"""Says the rules of a JSON schema in words, in its description: the rules for which a provider has no keyword. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

_PHRASES = {
    "contains": "one item fits {}",
    "contentEncoding": "encoded as {}",
    "contentMediaType": "with the content type {}",
    "const": "always {}",
    "default": "default {}",
    "dependentRequired": "properties that need others: {}",
    "enum": "one of {}",
    "examples": "for example {}",
    "exclusiveMaximum": "less than {}",
    "exclusiveMinimum": "more than {}",
    "format": "in the format {}",
    "maxProperties": "at most {} properties",
    "maximum": "at most {}",
    "minProperties": "at least {} properties",
    "minimum": "at least {}",
    "multipleOf": "a multiple of {}",
    "not": "does not fit {}",
    "pattern": "matches the regular expression {}",
    "patternProperties": "properties by the patterns of their names: {}",
    "propertyNames": "each name of a property fits {}",
}
_COUNTED = {
    "maxItems": ("at most", "item"),
    "maxLength": ("at most", "character"),
    "minItems": ("at least", "item"),
    "minLength": ("at least", "character"),
}
_SILENT = frozenset({"$anchor", "$comment", "$id", "$schema", "discriminator", "title"})
"""Keywords that say nothing about a value."""


def phrase_of(keyword: str, value: Any) -> str:
    """Return what a keyword says, such as "at least 3 characters". Empty if it says nothing about the value."""
    if keyword in _SILENT or (keyword == "minItems" and value == 0):
        return ""
    if keyword in {"uniqueItems", "deprecated", "readOnly", "writeOnly"}:
        named = {"uniqueItems": "no item twice", "deprecated": "deprecated"}
        return named.get(keyword, "") if value is True else ""
    if keyword in _COUNTED:
        side, noun = _COUNTED[keyword]
        return f"{side} {value} {noun}" if value == 1 else f"{side} {value} {noun}s"
    return _PHRASES.get(keyword, f"{keyword} {{}}").replace("{}", msgspec.json.encode(value).decode())


def described(schema: dict[str, Any], left_out: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with the keywords in ``left_out`` said at the end of its description."""
    phrases = [phrase for keyword, value in left_out.items() if (phrase := phrase_of(keyword, value))]
    if not phrases:
        return schema
    words = "; ".join(phrases)
    given = schema.get("description")
    text = f"{given} ({words})" if isinstance(given, str) and given else f"{words[0].upper()}{words[1:]}."
    return schema | {"description": text}
