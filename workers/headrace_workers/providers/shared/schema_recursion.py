"""Unrolls the recursion of a JSON schema a few levels, for providers that take no recursive schema. Pure.

Below the last level, a value is JSON text in a string. So nothing that the recursive schema allows is lost. The size of
the result grows by the number of levels, and not by a power of it: each level has its own definitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace_workers.providers.shared.schema_walk import DEFINITIONS, children_of, definition_named, with_children

Schema = dict[str, Any]


def is_recursive(schema: Schema) -> bool:
    """Return whether a definition of the schema refers to itself, directly or by way of others."""
    return bool(_recursive_names(_definitions_of(schema)))


def unrolled(schema: Schema, levels: int) -> Schema:
    """Return the schema without recursion. Each recursive definition is there ``levels`` times."""
    definitions = _definitions_of(schema)
    recursive = _recursive_names(definitions)
    if not recursive:
        return schema
    made: Schema = {}
    for name, definition in definitions.items():
        if name not in recursive:
            made[name] = _with_levels(definition, recursive, definitions, 1, levels)
            continue
        for level in range(1, levels + 1):
            made[_name_at(name, level, definitions)] = _with_levels(
                definition, recursive, definitions, level + 1, levels
            )
    rest = {word: part for word, part in schema.items() if word != DEFINITIONS}
    root: Schema = _with_levels(rest, recursive, definitions, 1, levels)
    return root | {DEFINITIONS: _used(root, made)}


def _definitions_of(schema: Schema) -> Schema:
    definitions = schema.get(DEFINITIONS)
    return definitions if isinstance(definitions, dict) else {}


def _with_levels(schema: Any, recursive: set[str], definitions: Schema, level: int, levels: int) -> Any:
    """Return a part with its references to recursive definitions led to the definitions of ``level``."""
    if not isinstance(schema, dict):
        return schema
    name = definition_named(schema)
    if name is not None and name in recursive:
        if level > levels:
            return _json_text(name, definitions[name]) | {word: part for word, part in schema.items() if word != "$ref"}
        return schema | {"$ref": f"#/{DEFINITIONS}/{_name_at(name, level, definitions)}"}
    return with_children(schema, lambda _place, child: _with_levels(child, recursive, definitions, level, levels))


def _json_text(name: str, definition: Any) -> Schema:
    """Return the schema of a value below the last level.

    If the value may be a text, a JSON text could not be told from it: then only the choices without recursion are left.
    """
    choices = definition.get("anyOf") if isinstance(definition, dict) else None
    if isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("type") == "string" for choice in choices
    ):
        flat = [choice for choice in choices if isinstance(choice, dict) and not any(True for _ in _references(choice))]
        return {"anyOf": flat, "description": "Not nested deeper."}
    return {"type": "string", "description": f'A value in the form of "{name}", written as JSON text.'}


def _name_at(name: str, level: int, taken: Schema) -> str:
    made = name if level == 1 else f"{name}_{level}"
    while level > 1 and made in taken:
        made += "_"
    return made


def _recursive_names(definitions: Schema) -> set[str]:
    leads_to = {name: set(_references(part)) for name, part in definitions.items()}
    return {name for name in leads_to if name in _reached(name, leads_to)}


def _reached(name: str, leads_to: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [*leads_to[name]]
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += leads_to.get(other, ())
    return found


def _references(schema: Any) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    if (name := definition_named(schema)) is not None:
        yield name
    for _, child in children_of(schema):
        yield from _references(child)


def _used(root: Schema, definitions: Schema) -> Schema:
    """Return the definitions that the schema still refers to."""
    leads_to = {name: set(_references(part)) for name, part in definitions.items()} | {"": set(_references(root))}
    used = _reached("", leads_to)
    return {name: part for name, part in definitions.items() if name in used}
