"""Fits a JSON schema to OpenAI's strict mode, and tells whether a schema fits already. Pure.

Strict mode wants all properties required, so an optional property may be null instead. Keywords that it does not take
are said in the description.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import msgspec

from headrace_workers.providers.shared.schema_fitting import fitted, or_null
from headrace_workers.providers.shared.schema_walk import (
    DEFINITIONS,
    Schema,
    children_of,
    is_object,
    parts_of_schema,
    with_children,
    wrong_schema,
)
from headrace_workers.providers.shared.wire_format import ProviderFailedError

_WORD_NAMES = """
    $defs $ref $schema additionalProperties anyOf const definitions description enum exclusiveMaximum exclusiveMinimum format items
    maxItems maximum minItems minimum multipleOf pattern properties required title type
"""
_WORDS = frozenset(_WORD_NAMES.split())
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))
_UNKNOWN_GROUP = re.compile(r"\(\?(?!:)")
"""Look-around, flags and named groups of a regular expression."""

_MAX_REMEMBERED_BYTES = 32 * 1024
_MAX_LEVELS = 10
"""Levels of nested objects and lists."""
_MAX_PROPERTIES = 5_000
_MAX_CHARACTERS = 120_000
"""Characters of all names of properties and definitions, and of all values of ``enum`` and ``const``."""
_MAX_CHOICES = 1_000
"""Values of all ``enum`` together."""
_LARGE_CHOICES = 250
_MAX_CHARACTERS_OF_CHOICES = 15_000
"""Characters of one ``enum`` with more than ``_LARGE_CHOICES`` values."""


def openai_schema(schema: Any, where: str) -> Schema:
    """Return a schema that strict mode takes.

    ``where`` is the caller's argument. Raises ProviderFailedError (``invalid_request``) if strict mode has no such
    schema: its root is no object, or it is larger than a limit.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object" or "anyOf" in schema:
        raise wrong_schema(where, "$", "OpenAI's strict mode takes only an object as the whole answer")
    found = _all_required(fitted(schema, where, _keeps))
    _check_limits(found, where)
    return found


def openai_schemas(given: list[tuple[str, Schema]]) -> list[Schema]:
    """Return the schemas of a request as strict mode takes them; see :func:`openai_schema`."""
    return [openai_schema(schema, where) for where, schema in given]


def is_strict(schema: dict[str, Any]) -> bool:
    """Return whether the schema may be sent as strict: fitting it to strict mode changes nothing.

    The answers about the last small schemas are remembered.
    """
    try:
        data = msgspec.json.encode(schema)
    except RecursionError:
        return False
    return _is_strict(data) if len(data) <= _MAX_REMEMBERED_BYTES else _is_unchanged(schema)


@functools.lru_cache(maxsize=32)
def _is_strict(data: bytes) -> bool:
    return _is_unchanged(msgspec.json.decode(data))


def _is_unchanged(schema: dict[str, Any]) -> bool:
    try:
        return openai_schema(schema, "response_format") == schema
    except ProviderFailedError:
        return False


def _keeps(word: str, value: Any, _schema: Schema) -> bool:
    if word == "format":
        return isinstance(value, str) and value in _FORMATS
    if word == "pattern":
        return isinstance(value, str) and _UNKNOWN_GROUP.search(value) is None
    return word in _WORDS


def _all_required(schema: Schema) -> Schema:
    """Return the schema with all properties required. An optional property may be null."""
    schema = with_children(schema, lambda _place, child: _all_required(child))
    if not is_object(schema):
        return schema
    properties, given = schema["properties"], schema.get("required")
    required = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    changed = {name: part if name in required else or_null(part) for name, part in properties.items()}
    if not properties and given is None:
        return schema
    names = required if set(required) == set(properties) and required == given else list(properties)
    return schema | {"properties": changed, "required": names}


def _check_limits(schema: Schema, where: str) -> None:
    _check_levels(schema, where, "$", _MAX_LEVELS)
    properties = characters = choices = 0
    for place, part in parts_of_schema(schema):
        values = part.get("enum", [part["const"]] if "const" in part else [])
        names = [*part.get("properties", ()), *part.get(DEFINITIONS, ())]
        properties += len(part.get("properties", ()))
        choices += len(part.get("enum", ()))
        own = sum(len(str(value)) for value in values)
        characters += own + sum(map(len, names))
        if len(values) > _LARGE_CHOICES and own > _MAX_CHARACTERS_OF_CHOICES:
            problem = (
                f"an enum with more than {_LARGE_CHOICES} values may have {_MAX_CHARACTERS_OF_CHOICES:,} characters"
            )
            raise wrong_schema(where, place, f"OpenAI's limit: {problem}; this one has {own:,}")
    for count, limit, noun in (
        (properties, _MAX_PROPERTIES, "properties"),
        (choices, _MAX_CHOICES, "values in all enums together"),
        (characters, _MAX_CHARACTERS, "characters in all names, enums and constants together"),
    ):
        if count > limit:
            raise wrong_schema(
                where, "$", f"OpenAI's limit: a schema may have {limit:,} {noun}; this one has {count:,}"
            )


def _check_levels(schema: Schema, where: str, place: str, levels: int) -> None:
    """Refuse a schema with too many levels. A definition counts by itself."""
    levels -= is_object(schema) or schema.get("type") == "array"
    if levels < 0:
        raise wrong_schema(where, place, f"OpenAI's limit: a schema may have {_MAX_LEVELS} levels of objects and lists")
    for step, child in children_of(schema):
        is_definition = step.startswith((f".{DEFINITIONS}.", ".definitions."))
        _check_levels(child, where, place + step, _MAX_LEVELS if is_definition else levels)
