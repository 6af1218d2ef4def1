"""The portable form of a schema, and the way back: for types, values and schemas made at random, and for known ones."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import Any, Literal, NamedTuple, TypedDict, Union

import jsonschema
import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.errors import InvalidRequestError
from headrace.schemas.portable_form import portable_form
from headrace.schemas.type_reading import decoder_of, schema_of
from headrace.schemas.value_mismatch import ValueMismatchError
from tests.cases import each
from tests.repetition import repeated


class Answer(NamedTuple):
    """A type, a value of it as JSON has it, and the same value in portable form."""

    annotation: Any
    value: Any
    portable: Any


class Colour(enum.Enum):
    RED = "Red"
    BLUE = "Blue"


NUMBERS = itertools.count()
PLACES = st.integers(0, 2)
NAMES = st.sampled_from(["a", "b", "key", "value", "title", "default", "type"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
LEAVES = st.one_of(
    st.integers(-(2**40), 2**40).map(lambda value: Answer(int, value, value)),
    st.text(max_size=5).map(lambda value: Answer(str, value, value)),
    st.booleans().map(lambda value: Answer(bool, value, value)),
    st.just(Answer(None, None, None)),
    st.dates().map(lambda value: Answer(date, value.isoformat(), value.isoformat())),
    st.sampled_from(["Red", "Blue"]).map(lambda value: Answer(Colour, value, value)),
    st.sampled_from([1, 2, "x"]).map(lambda value: Answer(Literal[1, 2, "x"], value, value)),
    JSON.map(lambda value: Answer(Any, value, json.dumps(value))),
)


def _list(inner: Answer) -> Answer:
    return Answer(list[inner.annotation], [inner.value] * 2, [inner.portable] * 2)  # type: ignore[name-defined]


def _dict(inner: Answer) -> Answer:
    entries = [{"key": key, "value": inner.portable} for key in ("", "ü")]
    return Answer(dict[str, inner.annotation], {"": inner.value, "ü": inner.value}, entries)  # type: ignore[name-defined]


def _optional(inner: Answer, is_null: bool) -> Answer:
    if inner.annotation in {Any, None}:
        return inner
    return (
        Answer(inner.annotation | None, None, None) if is_null else inner._replace(annotation=inner.annotation | None)
    )


def _tuple(parts: list[Answer]) -> Answer:
    items = {f"item{number}": part.portable for number, part in enumerate(parts, 1)}
    return Answer(tuple[tuple(part.annotation for part in parts)], [part.value for part in parts], items)  # type: ignore[misc]


def _class(fields: dict[str, Answer], make: Callable[[Any], Any]) -> Answer:
    value = {name: part.value for name, part in fields.items()}
    portable = {name: part.portable for name, part in fields.items()}
    return Answer(make([(name, part.annotation) for name, part in fields.items()]), value, portable)


def _tagged(structs: list[dict[str, Answer]], which: int) -> Answer:
    """Return a union of Structs, and a value of one of them."""
    kinds = [
        msgspec.defstruct(
            f"Made{next(NUMBERS)}", [(name, part.annotation) for name, part in fields.items()], tag_field="_", tag=index
        )
        for index, fields in enumerate(structs)
    ]
    index = which % len(kinds)
    value = {"_": index, **{name: part.value for name, part in structs[index].items()}}
    portable = {"_": index, **{name: part.portable for name, part in structs[index].items()}}
    return Answer(Union[tuple(kinds)], value, portable)  # noqa: UP007 - the types are made at random


KINDS: list[Callable[[Any], Any]] = [
    lambda fields: msgspec.defstruct(f"Made{next(NUMBERS)}", fields),
    lambda fields: dataclasses.make_dataclass(f"Made{next(NUMBERS)}", fields),
    lambda fields: TypedDict(f"Made{next(NUMBERS)}", dict(fields)),  # type: ignore[operator]
]


def _model(fields: dict[str, Any]) -> Any:
    return pydantic.create_model(f"Made{next(NUMBERS)}", **fields)


MODELS: list[Callable[[Any], Any]] = [
    lambda fields: _model({f"f_{name}": (kind, pydantic.Field(alias=name)) for name, kind in fields}),
    lambda fields: dataclasses.make_dataclass(f"Made{next(NUMBERS)}", fields),
]


def _answers(kinds: list[Callable[[Any], Any]]) -> st.SearchStrategy[Answer]:
    return st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            inner.map(_list),
            inner.map(_dict),
            st.builds(_optional, inner, st.booleans()),
            st.lists(inner, min_size=1, max_size=3).map(_tuple),
            st.builds(_class, st.dictionaries(NAMES, inner, max_size=3), st.sampled_from(kinds)),
            *(
                [
                    st.builds(
                        _tagged, st.lists(st.dictionaries(NAMES, inner, max_size=2), min_size=1, max_size=3), PLACES
                    )
                ]
                if kinds is KINDS
                else []
            ),
        ),
        max_leaves=6,
    )


@settings(max_examples=repeated(80, 2000), deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(_answers(KINDS) | _answers(MODELS))
def test_an_answer_in_portable_form_restores_to_the_value(answer: Answer) -> None:
    annotation = list[answer.annotation]  # type: ignore[name-defined]
    form = portable_form(schema_of(annotation))
    portable = {"value": [answer.portable]}

    jsonschema.Draft202012Validator(form.schema).validate(portable)
    assert form.restore(portable) == [answer.value]
    assert form.restore([answer.value]) == [answer.value] or "Any" in str(annotation)  # a server may ignore the schema
    decoder_of(annotation)([answer.value])


SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {},
            {"type": "string"},
            {"type": ["integer", "null"]},
            {"const": 1},
            {"enum": ["a", None]},
            {"$ref": "#/$defs/node"},
            {"$ref": "#"},
            {"$ref": "#/$defs/node", "description": "Own words."},
            {"type": "number", "minimum": 0},
            {"type": "object"},
            True,
        ]
    ),
    lambda inner: st.one_of(
        inner.map(lambda part: {"type": "array", "items": part}),
        inner.map(lambda part: {"type": "object", "additionalProperties": part}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"type": "array", "prefixItems": parts}),
        st.dictionaries(NAMES, inner, max_size=3).map(lambda parts: {"type": "object", "properties": parts}),
    ),
    max_leaves=6,
)


@settings(max_examples=repeated(80, 2000), deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(SCHEMAS, JSON)
def test_each_schema_has_a_portable_form_of_few_words(part: Any, value: Any) -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node", "description": "The next."}}}
    form = portable_form({"type": "object", "properties": {"x": part}, "$defs": {"node": node}})

    jsonschema.Draft202012Validator.check_schema(form.schema)
    assert form.schema["type"] == "object"
    for found in _parts(form.schema):
        assert "type" in found or "anyOf" in found or found.keys() == {"$ref"}
        assert not found.keys() & {"oneOf", "allOf", "title", "default", "prefixItems", "discriminator", "$id"}
        if "$ref" in found:
            assert found["$ref"].removeprefix("#/$defs/") in form.schema["$defs"]
    form.restore_partial(value)  # whatever a model writes
    with suppress(ValueMismatchError):
        form.restore(value)


def _parts(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all schemas inside a schema of the portable form."""
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    inner += [schema["items"]] if "items" in schema else []
    return [schema, *[found for part in inner for found in _parts(part)]]


def test_a_description_beside_a_reference_survives() -> None:
    address = {"type": "object", "properties": {"street": {"type": "string"}}, "description": "An address."}
    schema = {
        "type": "object",
        "properties": {"home": {"$ref": "#/$defs/Address", "description": "Where to send it."}},
        "$defs": {"Address": address},
    }

    assert portable_form(schema).schema["properties"]["home"]["description"] == "Where to send it."


def test_a_description_beside_a_reference_to_itself_survives() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node", "description": "The next."}}}

    portable = portable_form({"$ref": "#/$defs/Node", "$defs": {"Node": node}}).schema

    assert portable["properties"]["next"] == {"anyOf": [{"$ref": "#/$defs/Node"}], "description": "The next."}
    assert portable["$defs"]["Node"]["properties"]["next"]["description"] == "The next."


def test_a_default_is_told_in_the_description() -> None:
    schema = {"type": "object", "properties": {"size": {"type": "integer", "description": "How many", "default": 3}}}

    assert portable_form(schema).schema["properties"]["size"]["description"] == "How many. Default: 3."


def test_a_null_where_the_type_takes_none_is_dropped() -> None:
    class Order(msgspec.Struct):
        size: int = 3
        note: str | None = "none"

    restored = portable_form(schema_of(Order)).restore({"size": None, "note": None})

    assert restored == {"note": None}
    assert decoder_of(Order)(restored) == Order(3, None)


def test_a_value_of_a_recursive_type_may_be_json_text() -> None:
    schema = {
        "$ref": "#/$defs/Node",
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "child": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                },
                "required": ["name"],
            }
        },
    }

    restored = portable_form(schema).restore({"name": "a", "child": '{"name": "b", "child": null}'})

    assert restored == {"name": "a", "child": {"name": "b", "child": None}}


def test_a_choice_in_other_upper_and_lower_case_becomes_the_choice() -> None:
    assert portable_form(schema_of(Colour)).restore({"value": "RED"}) == "Red"


def test_a_whole_number_with_a_point_is_an_integer() -> None:
    restored = portable_form(schema_of(int)).restore({"value": 2.0})

    assert restored == 2
    assert isinstance(restored, int)


def test_an_answer_in_the_original_form_is_taken_too() -> None:
    form = portable_form(schema_of(dict[str, tuple[int, str]]))

    assert form.restore({"a": [1, "b"]}) == {"a": [1, "b"]}
    assert form.restore({"value": [1, "b"]}) == {"value": [1, "b"]}
    assert form.restore({"value": {"a": [1, "b"]}}) == {"a": [1, "b"]}


def test_a_key_that_is_there_twice_is_a_mismatch() -> None:
    form = portable_form(schema_of(dict[str, int]))

    with pytest.raises(ValueMismatchError, match="the key 'a' is there twice"):
        form.restore({"value": [{"key": "a", "value": 1}, {"key": "a", "value": 2}]})


def test_the_beginning_of_an_answer_is_restored_as_far_as_it_goes() -> None:
    form = portable_form(schema_of(dict[str, Any]))

    assert form.restore_partial({"value": [{"key": "a", "value": '{"x": [1'}, {"key": "b"}]}) == {"a": {"x": [1]}}


def test_free_keys_beside_named_ones_have_a_property_of_their_own() -> None:
    schema = {
        "type": "object",
        "properties": {"id": {"type": "integer"}},
        "required": ["id"],
        "additionalProperties": {"type": "string"},
    }
    form = portable_form(schema)

    assert form.restore({"id": 1, "additional_properties": [{"key": "a", "value": "b"}]}) == {"id": 1, "a": "b"}


def test_the_parts_of_all_of_are_merged() -> None:
    schema = {
        "allOf": [
            {"$ref": "#/$defs/Base"},
            {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]},
        ],
        "$defs": {"Base": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}},
    }

    portable = portable_form(schema).schema

    assert portable["required"] == ["a", "b"]
    assert [*portable["properties"]] == ["a", "b"]


@each(
    ("schema", "words"),
    [
        ({"$ref": "#/$defs/Missing"}, "leads nowhere: the schema has no '\\$defs'"),
        ({"$ref": "https://example.com/x.json"}, "leaves the schema"),
        ({"$ref": "#node", "$defs": {"a": {"$anchor": "node"}}}, "names an anchor"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"allOf": [{"$ref": "#"}]}, "refers to itself without end"),
        ({"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}]}}}, "without end"),
    ],
)
def test_a_reference_that_cannot_be_followed_is_refused(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as raised:
        portable_form(schema)
    assert raised.value.argument == "response_type"
