"""Takes a JSON schema apart: resolves references, merges the parts of ``allOf``, and splits a list of types. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from headrace.errors import InvalidRequestError
from headrace.schemas.shapes import JSON_TYPES

_OF_TEXTS = frozenset({"minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType"})
_OF_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_OF_LISTS = frozenset(
    {"items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains", "unevaluatedItems"}
)
_OF_OBJECTS = frozenset(
    {
        "properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
        "maxProperties", "dependentRequired", "dependentSchemas", "unevaluatedProperties",
    }
)  # fmt: skip
_WORDS = {
    "string": _OF_TEXTS,
    "number": _OF_NUMBERS,
    "integer": _OF_NUMBERS,
    "array": _OF_LISTS,
    "object": _OF_OBJECTS,
}
_ALL_WORDS = _OF_TEXTS | _OF_NUMBERS | _OF_LISTS | _OF_OBJECTS


def resolved(root: Mapping[str, Any], target: object, argument: str) -> Any:
    """Return the part of a schema that a ``$ref`` refers to.

    Raises InvalidRequestError if there is no such part, or if the reference leaves the schema.
    """
    if not isinstance(target, str) or not target.startswith("#"):
        raise InvalidRequestError(f"$ref {target!r} leaves the schema; put the definition into $defs", argument)
    if target != "#" and not target.startswith("#/"):
        raise InvalidRequestError(f"$ref {target!r} names an anchor; give the place: '#/$defs/…'", argument)
    found: Any = root
    for step in target.removeprefix("#").split("/")[1:]:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        else:
            raise InvalidRequestError(f"$ref {target!r} leads nowhere: the schema has no {key!r} there", argument)
    return found


def merged(first: Any, second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema that holds where both hold. Where both have the same word, the second one's counts."""
    found = dict(first) if isinstance(first, Mapping) else {}
    for word, value in second.items():
        if word == "properties" and isinstance(found.get(word), Mapping):
            found[word] = {**found[word], **value}
        elif word == "required" and word in found:
            found[word] = [*found[word], *[name for name in value if name not in found[word]]]
        elif word == "enum" and word in found:
            found[word] = [choice for choice in found[word] if choice in value]
        elif word == "allOf" and word in found:
            found[word] = [*found[word], *value]
        elif word == "additionalProperties" and found.get(word) is False:
            continue
        else:
            found[word] = value
    return found


def split_by_type(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a schema for each JSON type that the schema takes. Each has ``type``. None: the schema takes any value."""
    kinds = schema.get("type")
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if kinds is None and isinstance(choices, list):
        kinds = list(dict.fromkeys(JSON_TYPES.get(type(choice), "string") for choice in choices))
    if kinds is None:
        kinds = [kind for kind in ("object", "array", "string", "number") if _WORDS[kind] & schema.keys()]
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return [dict(schema, type=kinds[0])] if len(kinds) == 1 else [_of_type(schema, kind) for kind in kinds]


def _of_type(schema: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return what the schema says about the values of one type."""
    kept = _WORDS.get(kind, frozenset())
    found = {word: value for word, value in schema.items() if word not in _ALL_WORDS or word in kept}
    found = {word: value for word, value in found.items() if word not in {"description", "default", "title"}}
    found["type"] = kind
    if isinstance(choices := found.pop("enum", None), list) and kind != "null":
        allowed = {"integer", "number"} if kind == "number" else {kind}
        found["enum"] = [choice for choice in choices if JSON_TYPES.get(type(choice)) in allowed]
    return found
