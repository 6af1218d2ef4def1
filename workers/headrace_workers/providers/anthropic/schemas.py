"""Fits the JSON schemas of a request to Anthropic's structured output, which counts its limits over the request. Pure.

Recursion is unrolled a few levels. An optional property stays optional; if there are too many, some are required and
may be null instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from headrace_workers.providers.shared.provider_errors import request_failure
from headrace_workers.providers.shared.schema_fitting import fitted, or_null
from headrace_workers.providers.shared.schema_recursion import is_recursive, unrolled
from headrace_workers.providers.shared.schema_walk import (
    Schema,
    is_object,
    parts_of_schema,
    with_children,
    wrong_schema,
)
from headrace_workers.providers.shared.wire_format import ProviderFailedError

_WORDS = frozenset(
    [
        "$defs",
        "$ref",
        "additionalProperties",
        "anyOf",
        "description",
        "items",
        "properties",
        "required",
        "title",
        "type",
    ]
)
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"))
_HARD_PATTERN = re.compile(r"\(\?(?!:)|\\[bB1-9]|\{\d*,?\d{4,}")
"""Look-around, flags, word boundaries, back-references, and repetitions of a thousand and more."""

_MAX_STRICT_TOOLS = 20
_MAX_OPTIONAL = 24
"""Properties of one request, in all its strict schemas, that are not required."""
_MAX_UNIONS = 16
"""Properties of one request, in all its strict schemas, that have several types."""
_UNROLLED_LEVELS = (4, 3, 2, 1)
_PAIR = 2


class _LimitedCounts(msgspec.Struct):
    """What counts against the limits. ``optional`` and ``unions`` have the places."""

    optional: list[str] = []
    unions: list[str] = []

    @property
    def are_allowed(self) -> bool:
        return len(self.optional) <= _MAX_OPTIONAL and len(self.unions) <= _MAX_UNIONS


def anthropic_schemas(given: list[tuple[str, Schema]]) -> list[Schema]:
    """Return the schemas of a request as Anthropic takes them. Each comes with the caller's argument that it is from.

    Raises ProviderFailedError (``invalid_request``) if the request is larger than a limit.
    """
    tools = sum(where.startswith("tools") for where, _ in given)
    if tools > _MAX_STRICT_TOOLS:
        raise request_failure(
            f"Anthropic takes at most {_MAX_STRICT_TOOLS} strict tools in a request, not {tools}", "tools"
        )
    is_unrolled = any(is_recursive(schema) for _, schema in given)
    counts = _LimitedCounts([], [])
    for levels in _UNROLLED_LEVELS if is_unrolled else _UNROLLED_LEVELS[-1:]:
        found = [fitted(unrolled(_object(schema, where), levels), where, _keeps) for where, schema in given]
        counts = _counts(found)
        if not counts.are_allowed:
            found = _reduced(found, counts)
        if _counts(found).are_allowed:
            return found
    raise _too_many(given, counts)


def _object(schema: Any, where: str) -> Schema:
    if not isinstance(schema, dict) or not is_object(schema):
        raise wrong_schema(where, "$", "Anthropic takes only an object as the whole answer")
    return schema


def _keeps(word: str, value: Any, _schema: Schema) -> bool:
    match word:
        case "format":
            return isinstance(value, str) and value in _FORMATS
        case "pattern":
            return isinstance(value, str) and _HARD_PATTERN.search(value) is None
        case "minItems":
            return value in (0, 1)
        case "const":
            return not isinstance(value, dict | list)
        case "enum":
            return all(not isinstance(choice, dict | list) for choice in value)
    return word in _WORDS


def _counts(schemas: list[Schema]) -> _LimitedCounts:
    counts = _LimitedCounts([], [])
    for schema in schemas:
        for place, part in parts_of_schema(schema):
            required = part.get("required", ())
            counts.optional += [f"{place}.{name}" for name in part.get("properties", ()) if name not in required]
            counts.unions += [place] if _is_union(part) else []
    return counts


def _is_union(part: Schema) -> bool:
    return len(part.get("anyOf", ())) > 1 or isinstance(part.get("type"), list)


def _reduced(schemas: list[Schema], counts: _LimitedCounts) -> list[Schema]:
    """Return the schemas with fewer unions and fewer optional properties, as far as the limits ask for it.

    An optional property without a default means the same by its absence and by null: its null goes. An optional
    property that becomes required may be null instead: the client drops this null.
    """
    over = _Excess(len(counts.unions) - _MAX_UNIONS, len(counts.optional) - _MAX_OPTIONAL)
    for change in (_drop_null, _require_if_null, _require):
        schemas = [_with_changed_objects(schema, change, over) for schema in schemas]
    return schemas


class _Excess(msgspec.Struct):
    """How many unions and optional properties are still too many."""

    unions: int
    optional: int


_Change = Callable[[Schema, str, _Excess], Schema | None]
"""Changes one optional property. Returns its new schema if it is required from now on; else None."""


def _with_changed_objects(schema: Schema, change: _Change, over: _Excess) -> Schema:
    schema = with_children(schema, lambda _place, child: _with_changed_objects(child, change, over))
    if not is_object(schema):
        return schema
    properties, required = dict(schema["properties"]), list(schema.get("required", ()))
    for name in properties:
        if name not in required and (changed := change(properties, name, over)) is not None:
            properties[name] = changed
            required.append(name)
    return schema | {"properties": properties, "required": required}


def _drop_null(properties: Schema, name: str, over: _Excess) -> None:
    part = properties[name]
    # The client says a default in these words. Without a default, the value of an absent property is null.
    if (
        over.unions > 0
        and "Default: " not in part.get("description", "")
        and (plain := _without_null(part)) is not None
    ):
        properties[name] = plain
        over.unions -= 1


def _require_if_null(properties: Schema, name: str, over: _Excess) -> Schema | None:
    part: Schema = properties[name]
    if over.optional <= 0 or or_null(part) != part:
        return None
    over.optional -= 1
    return part


def _require(properties: Schema, name: str, over: _Excess) -> Schema | None:
    part: Schema = properties[name]
    if over.optional <= 0:
        return None
    over.optional -= 1
    return or_null(part)


def _without_null(part: Schema) -> Schema | None:
    """Return a union of one type and null as this type; None for every other part."""
    kinds, choices = part.get("type"), part.get("anyOf")
    if isinstance(kinds, list) and "null" in kinds and len(kinds) == _PAIR and not part.keys() & {"enum", "const"}:
        return part | {"type": next(kind for kind in kinds if kind != "null")}
    if not isinstance(choices, list) or len(choices) != _PAIR or {"type": "null"} not in choices:
        return None
    choice: Schema = next(choice for choice in choices if choice != {"type": "null"})
    if "$ref" in choice:
        return part | {"anyOf": [choice]}
    words = " ".join(said["description"] for said in (part, choice) if "description" in said)
    rest = {word: value for word, value in part.items() if word != "anyOf"}
    return choice | rest | ({"description": words} if words else {})


def _too_many(given: list[tuple[str, Schema]], counts: _LimitedCounts) -> ProviderFailedError:
    where = given[-1][0]
    if len(counts.optional) > _MAX_OPTIONAL:
        return request_failure(
            f"Anthropic's limit: the strict schemas of one request may have {_MAX_OPTIONAL} optional properties together; "
            f"these have {len(counts.optional)}, such as {counts.optional[-1]}. Make some of them required, or split the request",
            where,
        )
    return request_failure(
        f"Anthropic's limit: the strict schemas of one request may have {_MAX_UNIONS} values of several types together; "
        f"these have {len(counts.unions)}, such as {counts.unions[-1]}. Give some of them one type, or split the request",
        where,
    )
