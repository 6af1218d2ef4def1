"""Merges two JSON schemas into one schema that holds what both say, for the simulated model. Pure."""

from __future__ import annotations

from typing import Any

_LARGER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_SMALLER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def merged_schemas(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with the rules of both. Where both have a rule that cannot be joined, the second counts."""
    merged = dict(one)
    for word, value in other.items():
        merged[word] = _joined(word, one[word], value) if word in one else value
    return merged


def _joined(word: str, one: Any, other: Any) -> Any:
    if word in _LARGER:
        return max(one, other)
    if word in _SMALLER:
        return min(one, other)
    if word == "properties":
        return one | {
            name: merged_schemas(one[name], schema) if name in one and isinstance(schema, dict) else schema
            for name, schema in other.items()
        }
    if word == "required":
        return [*one, *(name for name in other if name not in one)]
    if word == "description":
        return one if one == other else f"{one} {other}"
    if word == "type" and isinstance(one, list) != isinstance(other, list):
        return other if isinstance(one, list) else one
    if word == "enum":
        return [value for value in one if value in other]
    return other
