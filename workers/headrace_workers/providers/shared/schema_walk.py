"""Walks through a JSON schema: its parts, each with its place, and its references. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from headrace_workers.providers.shared.provider_errors import request_failure
from headrace_workers.providers.shared.wire_format import ProviderFailedError

DEFINITIONS = "$defs"
_POINTER = f"#/{DEFINITIONS}/"
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_OBJECTS = ("properties", DEFINITIONS, "definitions")
MAX_NESTING = 100
"""Levels of a schema that are walked through. A deeper schema is refused."""

Schema = dict[str, Any]


def children_of(schema: Schema) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a schema, each with its place such as ``.city``, ``[]`` or ``.$defs.Node``."""
    for word, value in schema.items():
        if word in _OBJECTS and isinstance(value, dict):
            start = "" if word == "properties" else f".{word}"
            for name, child in value.items():
                yield f"{start}.{name}", child
        elif word in _LISTS and isinstance(value, list):
            for index, child in enumerate(value):
                yield f".{word}[{index}]", child
        elif word == "items":
            yield "[]", value
        elif word == "additionalProperties" and not isinstance(value, bool):
            yield ".*", value


def with_children(schema: Schema, change: Callable[[str, Any], Any]) -> Schema:
    """Return the schema with each part changed. ``change`` gets the place of a part, and the part."""
    changed: Schema = {}
    for word, value in schema.items():
        if word in _OBJECTS and isinstance(value, dict):
            start = "" if word == "properties" else f".{word}"
            changed[word] = {name: change(f"{start}.{name}", child) for name, child in value.items()}
        elif word in _LISTS and isinstance(value, list):
            changed[word] = [change(f".{word}[{index}]", child) for index, child in enumerate(value)]
        elif word == "items":
            changed[word] = change("[]", value)
        elif word == "additionalProperties" and not isinstance(value, bool):
            changed[word] = change(".*", value)
        else:
            changed[word] = value
    return changed


def parts_of_schema(schema: Any, place: str = "$") -> Iterator[tuple[str, Schema]]:
    """Yield the schema and all its parts, each with its place such as ``$.lines[].price``."""
    if isinstance(schema, dict):
        yield place, schema
        for step, child in children_of(schema):
            yield from parts_of_schema(child, place + step)


def definition_named(schema: Schema) -> str | None:
    """Return the name of the definition that a part refers to; None if it refers to none."""
    target = schema.get("$ref")
    if not isinstance(target, str) or not target.startswith(_POINTER):
        return None
    return target.removeprefix(_POINTER).replace("~1", "/").replace("~0", "~")


def has_type(schema: Schema, name: str) -> bool:
    """Return whether a part may be of a JSON type."""
    kind = schema.get("type")
    return name in kind if isinstance(kind, list) else kind == name


def is_object(schema: Schema) -> bool:
    """Return whether a part describes an object."""
    return has_type(schema, "object") or "properties" in schema


def wrong_schema(where: str, place: str, problem: str) -> ProviderFailedError:
    """Return the error for a schema that a provider cannot take. ``where`` is the caller's argument."""
    return request_failure(f"{problem} (at {place} of its schema)", where)
