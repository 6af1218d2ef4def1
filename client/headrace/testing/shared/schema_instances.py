"""Makes an instance of a JSON schema: the JSON value that the simulated model answers with. Deterministic and pure.

The words of a description count as rules too, as they do for a real model: "at least 3 characters" is obeyed like
``minLength``. So a schema whose keywords were moved into descriptions still gets a value that fits.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec

from headrace.testing.shared.described_rules import with_described_rules
from headrace.testing.shared.merged_schemas import merged_schemas
from headrace.testing.shared.schema_forms import fault_of_form
from headrace.testing.shared.string_instances import string_instance

_FULL_LEVELS = 8
"""Levels of objects, lists and references with all optional properties. Deeper levels have only what is required."""
_MAX_LEVELS = 60
_LIST_ITEMS = 2
_UNIQUE_TRIES = 50
_FORM_OF_TEXT = re.compile(r'in the form of "([^"]+)", written as JSON text')
_SMALL_FIRST = ("null", "boolean", "integer", "number", "string", "array", "object")
_UNTYPED = {"type": "string"}

Schema = dict[str, Any]


class NoInstanceError(ValueError):
    """No value could be made for a schema: nothing fits it, or it refers to something that does not exist."""


def instance_of(schema: Any, seed: int = 0) -> Any:
    """Return a JSON value that fits the schema.

    Seed 0 gives a full value: all properties, the first choice of each union, two items in each list. Another seed
    draws properties, choices and lengths. The same schema and seed always give the same value. Raises NoInstanceError
    if no value was found.
    """
    if (fault := None if schema is True else fault_of_form(schema)) is not None:
        raise NoInstanceError(f"no JSON schema: {fault}")
    draw = random.Random(seed) if seed else None  # noqa: S311 - nothing secret
    return _InstanceMaker(schema, draw).make(schema, 0)


class _InstanceMaker:
    """Makes one value. ``draw`` is None for the full value."""

    def __init__(self, root: Any, draw: random.Random | None) -> None:
        self._root = root
        self._draw = draw
        self._inside: list[str] = []  # the references that lead to the value that is made now
        self._salt = 0  # makes the items of a list differ from each other

    def make(self, schema: Any, level: int) -> Any:
        if schema is True or schema == {}:
            schema = _UNTYPED
        if not isinstance(schema, dict):
            raise NoInstanceError(f"no value fits the schema {schema!r}")
        if level > _MAX_LEVELS:
            raise NoInstanceError("the schema has no end: each value needs a further value inside it")
        reference = str(schema.get("$ref", ""))
        if reference and reference in self._inside:
            level = max(level, _FULL_LEVELS)  # the second value inside a recursive value has only what is required
        self._inside.append(reference)
        try:
            return self._make(with_described_rules(self._resolved(schema)), level)
        finally:
            self._inside.pop()

    def _make(self, schema: Schema, level: int) -> Any:
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list):
            return self._choice(schema["enum"])
        for word in ("anyOf", "oneOf"):
            if isinstance(schema.get(word), list):
                return self._union(schema, word, level)
        return self._of_type(schema, level)

    def _resolved(self, schema: Schema) -> Schema:
        """Return the schema without ``$ref`` and ``allOf``."""
        for _ in range(_MAX_LEVELS):
            if "$ref" in schema:
                rest = {word: value for word, value in schema.items() if word != "$ref"}
                schema = merged_schemas(self._target(schema["$ref"]), rest)
            elif isinstance(schema.get("allOf"), list):
                rest = {word: value for word, value in schema.items() if word != "allOf"}
                for part in schema["allOf"]:
                    rest = merged_schemas(rest, self._resolved(part) if isinstance(part, dict) else {})
                schema = rest
            else:
                return schema
        raise NoInstanceError("the schema has no end: its references lead to each other")

    def _target(self, reference: Any) -> Schema:
        found: Any = self._root
        steps = str(reference).removeprefix("#").split("/")[1:]
        for step in steps:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, dict) or not str(reference).startswith("#"):
            raise NoInstanceError(f"the schema has nothing at {reference!r}")
        return found

    def _union(self, schema: Schema, word: str, level: int) -> Any:
        base = {name: value for name, value in schema.items() if name != word}
        choices = [choice for choice in schema[word] if isinstance(choice, dict)]
        if level >= _FULL_LEVELS:
            choices.sort(key=_size)
        elif self._draw is not None:
            self._draw.shuffle(choices)
        problem = NoInstanceError(f"the schema has no choice in {word}")
        for choice in choices:
            try:
                return self.make(merged_schemas(base, self._resolved(choice)), level + 1)
            except NoInstanceError as found:
                problem = found
        raise problem

    def _of_type(self, schema: Schema, level: int) -> Any:
        kinds = schema.get("type", _guessed_type(schema))
        kind = self._choice(kinds) if isinstance(kinds, list) else kinds
        if isinstance(kinds, list) and level >= _FULL_LEVELS:
            kind = min(kinds, key=_SMALL_FIRST.index)
        match kind:
            case "object":
                return self._object(schema, level)
            case "array":
                return self._array(schema, level)
            case "string" if (form := _FORM_OF_TEXT.search(str(schema.get("description")))) is not None:
                return self._json_text(form[1], level)
            case "string":
                text = string_instance(
                    schema, self._salt if self._draw is None else self._draw.randrange(4) + self._salt
                )
                if text is None:
                    raise NoInstanceError(f"no text was found that fits {schema!r}")
                return text
            case "integer" | "number":
                return self._number(schema, is_integer=kind == "integer")
            case "boolean":
                return self._choice([True, False])
            case "null":
                return None
        raise NoInstanceError(f"the schema has the unknown type {kind!r}")

    def _json_text(self, name: str, level: int) -> str:
        """Return the JSON text of a value that fits a definition, with no more than what is required."""
        value = self.make(self._target(f"#/$defs/{name}"), max(level + 1, _FULL_LEVELS))
        return msgspec.json.encode(value).decode()

    def _object(self, schema: Schema, level: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = [name for name in schema.get("required", []) if isinstance(name, str)]
        value: dict[str, Any] = {}
        for name, kind in properties.items():
            if name in required:
                value[name] = self.make(kind, level + 1)
            elif level < _FULL_LEVELS and (self._draw is None or self._draw.random() < 0.5):  # noqa: PLR2004
                try:
                    value[name] = self.make(kind, level + 1)
                except NoInstanceError:  # such as an endless one: it is optional
                    continue
        others = schema.get("additionalProperties", True)
        for name in required:
            if name not in value:
                value[name] = self.make(others, level + 1)
        least = schema.get("minProperties", 0)
        wanted = max(least, 0 if properties or not isinstance(others, dict) or level >= _FULL_LEVELS else 1)
        for number in range(wanted):
            if len(value) < wanted:
                value[f"key{number or ''}"] = self.make(others, level + 1)
        return value

    def _array(self, schema: Schema, level: int) -> list[Any]:
        first = schema.get("prefixItems", [])
        values = [self.make(kind, level + 1) for kind in first]
        rest = schema.get("items", not first)
        least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        count = least
        if rest is not False and level < _FULL_LEVELS:
            wanted = _LIST_ITEMS if self._draw is None else self._draw.randrange(_LIST_ITEMS + 1)
            count = int(max(least, min(wanted, most)))
        for item in self._items(rest, count - len(values), level):
            if not _is_twice(item, values, schema):
                values.append(item)
            if len(values) >= count:
                break
        if len(values) < least:
            raise NoInstanceError(f"no {least} different items were found for {schema!r}")
        return values

    def _items(self, schema: Any, count: int, level: int) -> Iterator[Any]:
        if count <= 0 or schema is False:
            return
        before = self._salt
        for number in range(max(count, _UNIQUE_TRIES)):
            self._salt = before + number
            try:
                item = self.make(schema, level + 1)
            finally:
                self._salt = before
            yield item

    def _number(self, schema: Schema, *, is_integer: bool) -> float:
        bounds = _bounds(schema)
        step = Decimal(str(schema.get("multipleOf", 1 if is_integer or bounds is None else 0.5)))
        if is_integer and step % 1:
            step = step * int(1 / step) if step < 1 else step.to_integral_value()
        low, high = bounds or (None, None)
        drawn = self._salt if self._draw is None else self._draw.randrange(10) + self._salt
        for size in (
            (step, step / 2, step / 100, step / 10_000) if "multipleOf" not in schema and not is_integer else (step,)
        ):
            value = self._multiple(size, low, high, drawn)
            if value is not None:
                return int(value) if value == value.to_integral_value() and is_integer else float(value)
        raise NoInstanceError(f"no number fits {schema!r}")

    def _multiple(self, step: Decimal, low: Decimal | None, high: Decimal | None, drawn: int) -> Decimal | None:
        """Return a multiple of ``step`` between the bounds; None if there is none."""
        first = math.ceil(low / step) if low is not None else min(1, math.floor(high / step) if high is not None else 1)
        last = first + 10_000 if high is None else math.floor(high / step)
        if last < first:
            return None
        return step * (first + drawn % (last - first + 1))

    def _choice(self, values: list[Any]) -> Any:
        if not values:
            raise NoInstanceError("the schema has an empty list of choices")
        return values[self._salt % len(values)] if self._draw is None else self._draw.choice(values)


def _is_twice(item: Any, values: list[Any], schema: Schema) -> bool:
    """Return whether an item, or its key, may not be in the list because it is there already."""
    if schema.get("hasUniqueKeys") and isinstance(item, dict):
        return any(value.get("key") == item.get("key") for value in values)
    return bool(schema.get("uniqueItems")) and item in values


def _bounds(schema: Schema) -> tuple[Decimal | None, Decimal | None] | None:
    """Return the smallest and the largest number, both allowed; None without bounds."""
    tiny = Decimal(1) if schema.get("type") == "integer" else Decimal("0.0001")
    low = [Decimal(str(schema["minimum"]))] if "minimum" in schema else []
    low += [Decimal(str(schema["exclusiveMinimum"])) + tiny] if "exclusiveMinimum" in schema else []
    high = [Decimal(str(schema["maximum"]))] if "maximum" in schema else []
    high += [Decimal(str(schema["exclusiveMaximum"])) - tiny] if "exclusiveMaximum" in schema else []
    return (max(low, default=None), min(high, default=None)) if low or high else None


def _guessed_type(schema: Schema) -> str:
    if schema.keys() & {"properties", "additionalProperties", "required", "minProperties"}:
        return "object"
    if schema.keys() & {"items", "prefixItems", "minItems", "maxItems"}:
        return "array"
    return "number" if schema.keys() & {"minimum", "maximum", "multipleOf"} else "string"


def _size(schema: Schema) -> int:
    """Return how large a value of the schema is at least, to find the end of a recursion."""
    if schema.keys() & {"const", "enum"}:
        return 0
    kinds = schema.get("type")
    kind = kinds[0] if isinstance(kinds, list) and kinds else kinds
    return _SMALL_FIRST.index(kind) if kind in _SMALL_FIRST else len(_SMALL_FIRST)
