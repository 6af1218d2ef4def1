"""The portable form of a JSON schema: what some provider cannot express is written in another way, for all alike. Pure.

* A root that is no object is wrapped in an object with the one property ``value``.
* An object with free keys becomes a list of ``{"key", "value"}`` objects.
* A value of any type becomes JSON text in a string.
* A text that holds the JSON of a type (pydantic's ``Json[X]``) becomes the value itself.
* A list with a type for each place becomes an object with ``item1``, ``item2`` … and ``rest``.
* ``oneOf`` and lists of types become ``anyOf``; ``allOf`` is merged; titles go; a default is told in the description.
* A ``$ref`` with a description of its own is replaced by what it refers to. Where that would never end, it is wrapped.

A property that need not be there stays so: what a provider demands beyond this form is the worker's part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.errors import InvalidRequestError
from headrace.schemas.restoring import restore
from headrace.schemas.schema_merging import merged, resolved, split_by_type
from headrace.schemas.shapes import (
    REST,
    EncodedShape,
    EntriesShape,
    JsonTextShape,
    ListShape,
    ObjectShape,
    PlainShape,
    ReferenceShape,
    Shape,
    TupleShape,
    UnionShape,
    fits,
    tuple_names,
)
from headrace.schemas.value_mismatch import ValueMismatchError

WRAPPED = "value"
"""The name of the property that holds a root that is no object."""
_JSON_TEXT = "Any JSON value, written as JSON text."
_ENTRIES = "A list of entries, each with a key of its own."
_DROPPED = frozenset(
    {"title", "default", "$defs", "definitions", "$schema", "$id", "$comment", "discriminator", "$anchor"}
)
_ANNOTATIONS = frozenset({"description", "examples", "deprecated", "readOnly", "writeOnly"})


class PortableForm(msgspec.Struct, frozen=True):
    """A schema in portable form, and the way back for the values."""

    schema: dict[str, Any]
    """The schema. Do not change it."""
    shape: Shape
    is_wrapped: bool
    """Whether the root is wrapped in an object."""

    def restore(self, value: Any) -> Any:
        """Return an answer in the form of the original schema.

        Raises ValueMismatchError if an object has a key twice, or if the value is nested too deeply.
        """
        return self._restored(value, is_whole=True)

    def restore_partial(self, value: Any) -> Any:
        """Return the beginning of an answer, as far as it can be restored."""
        return self._restored(value, is_whole=False)

    def _restored(self, value: Any, is_whole: bool) -> Any:
        try:
            return restore(self._unwrapped(value, is_whole), self.shape, is_whole)
        except RecursionError:
            raise ValueMismatchError("$", "is nested too deeply") from None

    def _unwrapped(self, value: Any, is_whole: bool) -> Any:
        if self.is_wrapped and isinstance(value, dict) and value.keys() == {WRAPPED}:
            inner = value[WRAPPED]
            # A server that ignores the schema may mean a key of an object with free keys.
            if not is_whole or fits(inner, self.shape, is_exact=False) or not fits(value, self.shape, is_exact=False):
                value = inner
        return value


def portable_form(schema: Mapping[str, Any], argument: str = "response_type") -> PortableForm:
    """Return the portable form of a JSON schema.

    ``argument`` is the name of the argument that the schema is from.

    Raises InvalidRequestError if a ``$ref`` leads nowhere, leaves the schema, or never ends.
    """
    converter = _Converter(dict(schema), argument)
    try:
        return converter.converted()
    except RecursionError:
        raise InvalidRequestError(
            "the schema refers to itself without end, or is nested too deeply", argument
        ) from None


class _Converter:
    """Converts one schema. Each definition is converted once, at its first use."""

    def __init__(self, root: dict[str, Any], argument: str) -> None:
        self._root = root
        self._argument = argument
        self._names: dict[str, str] = {}
        self._definitions: dict[str, Any] = {}
        self._shapes: dict[str, Shape] = {}
        self._open: list[str] = []
        """The references that are being replaced by what they refer to, and the definitions that are being converted."""

    def converted(self) -> PortableForm:
        schema, shape = self._part(self._root)
        if "$ref" in schema and "$ref" in self._root:
            schema, shape = self._inlined(self._root, is_root=True)
        is_wrapped = schema.get("type") != "object"
        if is_wrapped:
            schema = {
                "type": "object",
                "properties": {WRAPPED: schema},
                "required": [WRAPPED],
                "additionalProperties": False,
            }
        used = _used(schema, self._definitions)
        if any(_meets(name, definition, used, set()) for name, definition in used.items()):
            raise RecursionError
        if used:
            schema = {**schema, "$defs": used}
        return PortableForm(schema, shape, is_wrapped)

    def _part(self, schema: Any) -> tuple[dict[str, Any], Shape]:
        """Convert one part of the schema."""
        if not isinstance(schema, Mapping):
            schema = {}
        if "$ref" in schema:
            return self._reference(dict(schema))
        schema = self._without_all_of(dict(schema))
        for word in ("anyOf", "oneOf"):
            if schema.get(word):
                return self._union(schema, schema[word], word)
        if isinstance(inner := schema.pop("contentSchema", None), Mapping) and schema.get("type", "string") == "string":
            return self._encoded(schema, inner)
        branches = split_by_type(schema)
        if len(branches) != 1:
            return self._union(schema, branches, None) if branches else self._json_text(schema)
        match branches[0]["type"]:
            case "object":
                return self._object(branches[0])
            case "array":
                return self._array(branches[0])
            case kind:
                return self._plain(branches[0], kind)

    # References.

    def _reference(self, schema: dict[str, Any]) -> tuple[dict[str, Any], Shape]:
        target = schema["$ref"]
        if schema.keys() - _DROPPED - {"$ref"} or schema.get("default") is not None:
            if target not in self._open:
                return self._inlined(schema)
            plain, shape = self._defined(target)
            return _described({"anyOf": [plain]}, schema), shape
        return self._defined(target)

    def _inlined(self, schema: dict[str, Any], is_root: bool = False) -> tuple[dict[str, Any], Shape]:
        """Convert what a reference refers to, with the reference's own words."""
        target = schema["$ref"]
        self._open.append(target)
        try:
            found = resolved(self._root, target, self._argument)
            own = {key: value for key, value in schema.items() if key != "$ref"}
            if is_root:
                own = {key: value for key, value in own.items() if key in _ANNOTATIONS}
            return self._part(merged(found, own))
        finally:
            self._open.pop()

    def _defined(self, target: str) -> tuple[dict[str, Any], Shape]:
        """Convert what a reference refers to into a definition, and refer to it."""
        if target not in self._names:
            found = resolved(self._root, target, self._argument)
            name = self._names[target] = self._free_name(target, found)
            self._open.append(target)
            try:
                self._definitions[name], self._shapes[name] = self._part(found)
            finally:
                self._open.pop()
        name = self._names[target]
        return {"$ref": f"#/$defs/{name}"}, ReferenceShape(name, self._shapes)

    def _free_name(self, target: str, found: Any) -> str:
        last = target.rpartition("/")[2].lstrip("#")
        title = found.get("title") if isinstance(found, Mapping) else None
        wanted = re.sub(r"[^A-Za-z0-9_-]", "_", last or str(title or "root"))
        name, number = wanted, 1
        while name in self._names.values():
            number += 1
            name = f"{wanted}_{number}"
        return name

    # Unions.

    def _without_all_of(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Merge the parts of ``allOf`` into the schema."""
        parts = schema.pop("allOf", None)
        if not isinstance(parts, list):
            return schema
        found: dict[str, Any] = {}
        for part in parts:
            found = merged(found, self._resolved_part(part))
        return self._without_all_of(merged(found, schema)) if "allOf" in found else merged(found, schema)

    def _resolved_part(self, part: Any) -> dict[str, Any]:
        found: dict[str, Any] = dict(part) if isinstance(part, Mapping) else {}
        followed: set[object] = set()
        while "$ref" in found:
            target = found.pop("$ref")
            if target in followed:
                raise RecursionError
            followed.add(target)
            found = merged(resolved(self._root, target, self._argument), found)
        return found

    def _union(self, schema: dict[str, Any], branches: Any, word: str | None) -> tuple[dict[str, Any], Shape]:
        shared: dict[str, Any] = {}
        if word is not None:
            # What stands beside anyOf holds for each branch.
            shared = {key: value for key, value in schema.items() if key not in {word, *_DROPPED, *_ANNOTATIONS}}
        found: list[dict[str, Any]] = []
        shapes: list[Shape] = []
        for branch in branches:
            is_reference = isinstance(branch, Mapping) and "$ref" in branch
            is_plain = not shared or (is_reference and shared.keys() == {"type"})
            portable, shape = self._part(branch if is_plain else merged(self._resolved_part(branch), shared))
            if isinstance(shape, JsonTextShape):
                return self._json_text(schema)
            inner = portable["anyOf"] if portable.keys() == {"anyOf"} else [portable]
            found += [part for part in inner if part not in found]
            shapes.append(shape)
        if len(found) == 1:
            return _described(found[0] if "$ref" not in found[0] else {"anyOf": found}, schema), shapes[0]
        return _described({"anyOf": found}, schema), UnionShape(tuple(shapes))

    # Values.

    def _json_text(self, schema: dict[str, Any]) -> tuple[dict[str, Any], Shape]:
        return _described({"type": "string", "description": _JSON_TEXT}, schema), JsonTextShape()

    def _encoded(self, schema: dict[str, Any], inner: Mapping[str, Any]) -> tuple[dict[str, Any], Shape]:
        portable, shape = self._part(dict(inner))
        if isinstance(shape, JsonTextShape):
            return _described(portable, schema), PlainShape("string")
        words = {key: value for key, value in schema.items() if key in {"description", "default"}}
        if words and "$ref" in portable:
            portable = {"anyOf": [portable]}
        return _described(portable, words), EncodedShape(shape)

    def _plain(self, schema: dict[str, Any], kind: str) -> tuple[dict[str, Any], Shape]:
        choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
        kept = {key: value for key, value in schema.items() if key not in _DROPPED and key != "description"}
        return _described(kept, schema), PlainShape(kind, tuple(choices) if isinstance(choices, list) else None)

    def _array(self, schema: dict[str, Any]) -> tuple[dict[str, Any], Shape]:
        places, items = schema.get("prefixItems"), schema.get("items")
        if isinstance(items, list):  # as the drafts up to 2019-09 write it
            places, items = items, schema.get("additionalItems", False)
        if isinstance(places, list):
            return self._tuple(schema, places, items)
        portable, shape = self._part(items)
        kept = {key: value for key, value in schema.items() if key not in _DROPPED and key != "description"}
        return _described({**kept, "items": portable}, schema), ListShape(shape)

    def _tuple(self, schema: dict[str, Any], places: list[Any], items: Any) -> tuple[dict[str, Any], Shape]:
        names = tuple_names(len(places))
        parts = [self._part(_titled(place)) for place in places]
        required = names[: min(schema.get("minItems", len(names)), len(names))]
        properties = {name: portable for name, (portable, _) in zip(names, parts, strict=True)}
        rest: Shape | None = None
        if isinstance(items, Mapping) and schema.get("maxItems") != len(names):
            portable, rest = self._part(items)
            properties[REST] = {"type": "array", "items": portable}
            required = [*required, REST]
        shape = TupleShape(tuple(shape for _, shape in parts), min(len(required), len(names)), rest)
        return _described(_closed(properties, required), schema), shape

    def _object(self, schema: dict[str, Any]) -> tuple[dict[str, Any], Shape]:
        further = schema.get("additionalProperties")
        if not further and (patterns := schema.get("patternProperties")):
            values = list(patterns.values())
            further = values[0] if len(values) == 1 else {"anyOf": values}
        if not schema.get("properties"):
            if not further and ("properties" in schema or further is False):
                return _described(_closed({}, []), schema), ObjectShape({}, frozenset())
            return self._entries(schema, further)
        parts = {name: self._part(part) for name, part in schema["properties"].items()}
        properties = {name: portable for name, (portable, _) in parts.items()}
        required = [name for name in schema.get("required", ()) if name in parts]
        free: EntriesShape | None = None
        free_key = ""
        if isinstance(further, Mapping) and further:
            free_key = _free_key(properties)
            properties[free_key], free = self._entries({"description": "Further properties."}, further)
            required.append(free_key)
        shape = ObjectShape({name: shape for name, (_, shape) in parts.items()}, frozenset(required), free, free_key)
        # pydantic reads no union without the tag of a model, although the tag has a default.
        tags = [name for name, part in schema["properties"].items() if _is_tag(part) and name not in required]
        return _described(_closed(properties, [*required, *tags]), schema), shape

    def _entries(self, schema: dict[str, Any], values: Any) -> tuple[dict[str, Any], EntriesShape]:
        portable, shape = self._part(values)
        names = schema.get("propertyNames")
        key = self._part({"type": "string", **names})[0] if isinstance(names, Mapping) else {"type": "string"}
        if patterns := schema.get("patternProperties"):
            key = {**key, "pattern": "|".join(patterns)}
        found: dict[str, Any] = {
            "type": "array",
            "items": _closed({"key": key, "value": portable}, ["key", "value"]),
            "description": _ENTRIES,
        }
        for word, other in (("minProperties", "minItems"), ("maxProperties", "maxItems")):
            if word in schema:
                found[other] = schema[word]
        return _described(found, schema), EntriesShape(shape)


def _titled(place: Any) -> Any:
    """Let the title of a place of a tuple, which is the name of a NamedTuple's field, be its description."""
    if not isinstance(place, Mapping) or not place.get("title") or place.keys() & {"$ref", "description", "properties"}:
        return place
    return {**place, "description": place["title"]}


def _closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _is_tag(schema: Any) -> bool:
    """Return whether a property has one value only, which is its default too."""
    return (
        isinstance(schema, Mapping)
        and "const" in schema
        and schema["const"] == schema.get("default", msgspec.NODEFAULT)
    )


def _free_key(properties: Mapping[str, Any]) -> str:
    name = "additional_properties"
    while name in properties:
        name += "_"
    return name


def _described(portable: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Add the words of the original schema, and its default."""
    words = [str(text).strip() for text in (schema.get("description"), portable.get("description")) if text]
    if schema.get("default") is not None:
        words.append(f"Default: {msgspec.json.encode(schema['default'], enc_hook=str).decode()}")
    if len(words) > 1:
        words = [text if text.endswith((".", "!", "?", ":")) else f"{text}." for text in words]
    return {**portable, "description": " ".join(words)} if words else portable


def _used(schema: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the definitions that the schema refers to, directly or by way of others."""
    used: dict[str, Any] = {}
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            target = part.get("$ref")
            if (
                isinstance(target, str)
                and (name := target.removeprefix("#/$defs/")) in definitions
                and name not in used
            ):
                used[name] = definitions[name]
                waiting.append(used[name])
    return {name: used[name] for name in definitions if name in used}


def _meets(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any], seen: set[str]) -> bool:
    """Tell whether a schema is, or may be, the definition ``name`` itself, so that it would never end."""
    target = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if target == name:
        return True
    branches = schema.get("anyOf", [])
    if target and target not in seen:
        seen.add(target)
        branches = [*branches, definitions[target]]
    return any(_meets(name, branch, definitions, seen) for branch in branches)
