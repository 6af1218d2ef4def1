"""The simulated model answers a JSON schema with a value that fits it, always the same."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Annotated, Any, Literal

import jsonschema
import pydantic
import pytest

from headrace.testing.shared.schema_instances import NoInstanceError, instance_of
from tests.cases import each
from tests.repetition import repeated

SEEDS = range(repeated(8, 200))


class Node(pydantic.BaseModel):
    """A model with most of what pydantic writes into schemas."""

    name: Annotated[str, pydantic.Field(min_length=3, pattern=r"^[A-Z]{2}-\d{3,5}$")]
    children: list[Node] = []
    parent: Node | None = None
    wait: datetime.timedelta
    day: datetime.date
    share: Annotated[float, pydantic.Field(gt=0, lt=1)]
    id: uuid.UUID
    tags: set[Literal["a", "b", "c"]]
    place: tuple[int, str, float]
    counts: dict[str, int]
    weight: Annotated[int, pydantic.Field(multiple_of=7, ge=30)]
    price: Annotated[decimal.Decimal, pydantic.Field(ge=0, max_digits=8, decimal_places=2)] | None = None
    notes: Annotated[list[Annotated[str, pydantic.Field(max_length=2)]], pydantic.Field(min_length=3, max_length=4)]


def test_an_instance_fits_the_schema_of_a_rich_model() -> None:
    schema = Node.model_json_schema()
    for seed in SEEDS:
        value = instance_of(schema, seed)
        jsonschema.Draft202012Validator(schema).validate(value)
        assert value == instance_of(schema, seed)


@each(
    "schema",
    [
        {"enum": [3, "a", None]},
        {"const": {"a": [1]}},
        {"type": ["null", "integer"], "minimum": 5, "maximum": 5},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.01},
        {"type": "number", "multipleOf": 0.25, "minimum": 7.1, "maximum": 7.3},
        {"type": "integer", "maximum": -3},
        {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "minItems": 2},
        {"type": "array", "prefixItems": [{"type": "null"}, {"type": "integer"}], "items": False, "minItems": 2},
        {"type": "object", "required": ["a"], "additionalProperties": {"type": "integer"}, "minProperties": 3},
        {"allOf": [{"required": ["a"]}, {"properties": {"a": {"minimum": 3, "type": "integer"}}}], "type": "object"},
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "anyOf": [{"required": ["a"]}, {"minProperties": 9}],
        },
        {"$defs": {"a/b": {"type": "integer", "minimum": 9}}, "$ref": "#/$defs/a~1b"},
        {"oneOf": [{"type": "string", "maxLength": 0}]},
        {"type": "string", "pattern": r"^(foo|bar){2}$", "minLength": 6},
        {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"},
        {"type": "string", "pattern": r"^[^\s@]+@[\w.-]{3,}$", "minLength": 20},
        {"type": "string", "pattern": r"^(?:\d{4}-\d{2}|x+?)$"},
        {"type": "string", "minLength": 40, "maxLength": 41},
        True,
        {},
    ],
)
def test_an_instance_fits_each_kind_of_schema(schema: Any) -> None:
    for seed in SEEDS:
        jsonschema.Draft202012Validator(schema).validate(instance_of(schema, seed))


@each(
    ("kind", "said", "meant"),
    [
        ("string", "A name (at least 30 characters; at most 31 characters).", {"minLength": 30, "maxLength": 31}),
        ("integer", "At least 7; at most 8.", {"minimum": 7, "maximum": 8}),
        ("number", "More than 1.5; less than 1.75.", {"exclusiveMinimum": 1.5, "exclusiveMaximum": 1.75}),
        ("integer", "A multiple of 7; at least 50.", {"multipleOf": 7, "minimum": 50}),
        ("array", "At least 5 items; no item twice.", {"minItems": 5, "uniqueItems": True}),
        ("string", r'Matches the regular expression "^\\d{3}; [ab]$".', {"pattern": r"^\d{3}; [ab]$"}),
        ("string", 'One of ["left","right"].', {"enum": ["left", "right"]}),
        ("string", 'Always "left".', {"const": "left"}),
        ("integer", "The share. {maximum: 5, minimum: 5}", {"minimum": 5, "maximum": 5}),
        ("string", r"{maxLength: 4, minLength: 4, pattern: ^[a-z]{2,}$}", {"minLength": 4, "pattern": "^[a-z]{4}$"}),
        ("array", "{uniqueItems: True, minItems: 4}", {"minItems": 4, "uniqueItems": True}),
    ],
)
def test_the_words_of_a_description_are_obeyed(kind: str, said: str, meant: dict[str, Any]) -> None:
    for seed in SEEDS:
        value = instance_of({"type": kind, "description": said}, seed)
        jsonschema.Draft202012Validator({"type": kind} | meant).validate(value)


def test_a_value_is_written_as_json_text_where_a_description_asks_for_it() -> None:
    words = {"type": "string", "description": 'A value in the form of "Node", written as JSON text.'}
    node = {"type": "object", "properties": {"a": {"type": "integer"}, "b": words}, "required": ["a"]}
    value = instance_of({"$ref": "#/$defs/Node", "$defs": {"Node": node}})
    assert value == {"a": 1, "b": '{"a":1}'}


@each(
    "schema",
    [
        False,
        {"enum": []},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "text"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "array", "items": {"type": "null"}, "uniqueItems": True, "minItems": 2},
        {"type": "string", "pattern": "^a{3}$", "maxLength": 2},
    ],
)
def test_a_schema_that_nothing_fits_is_an_error(schema: Any) -> None:
    with pytest.raises(NoInstanceError):
        instance_of(schema)
