"""A value that fits a provider's schema comes back as the value of the caller's type: forty types, and random schemas."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace.schemas.response_type import ResponseType, response_type_of
from headrace.testing.shared.schema_instances import NoInstanceError, instance_of
from headrace_workers.providers.shared.openai_schemas import is_strict
from headrace_workers.providers.shared.wire_format import ProviderFailedError
from tests.answer_models import ANSWER_MODELS
from tests.cases import case
from tests.repetition import repeated
from tests.testing.test_simulated_schemas import refusal_of_google, refusals_of_anthropic, refusals_of_openai
from tests.workers.providers.test_fitted_schemas import FITS

JSON = dict[str, Any]
REFUSALS: dict[str, Callable[[JSON], list[str]]] = {
    "openai": refusals_of_openai,
    "anthropic": refusals_of_anthropic,
    "google": lambda schema: [text for text in [refusal_of_google(schema)] if text],
}
"""What the simulated API of a provider says against a schema."""


def fitted(provider: str, wanted: ResponseType) -> JSON:
    """Return the schema as the provider gets it. The simulated provider takes it."""
    schema = FITS[provider]([("response_type", wanted.form.schema)])[0]
    assert REFUSALS[provider](schema) == []
    return schema


@pytest.mark.parametrize("provider", FITS)
def test_each_model_comes_back_from_each_provider(provider: str) -> None:
    for name, kind in ANSWER_MODELS.items():
        wanted = response_type_of(kind)
        schema = fitted(provider, wanted)
        # A Decimal may be any text, by pydantic's schema: only the full value, a number, is known to fit.
        for seed in range(repeated(6, 100) if name != "Money" else 1):
            answer = json.dumps(instance_of(schema, seed))
            with case(name, seed, answer):
                wanted.read(answer)


TEXTS = st.fixed_dictionaries(
    {"type": st.just("string")},
    optional={
        "minLength": st.integers(0, 4),
        "maxLength": st.integers(4, 9),
        "description": st.sampled_from(["A text.", "What it is"]),
        "title": st.just("Title"),
    },
)
PATTERNS = st.sampled_from([r"^\d{3}$", r"^(?!x)[a-z]+$", r"^(a|b)c*$", r"\bend\b"]).map(
    lambda pattern: {"type": "string", "pattern": pattern}
)
FORMATS = st.sampled_from(["date-time", "date", "uri", "email", "uuid"]).map(
    lambda name: {"type": "string", "format": name}
)
INTEGERS = st.fixed_dictionaries(
    {"type": st.just("integer")},
    optional={"minimum": st.integers(-5, 5), "maximum": st.integers(12, 20), "multipleOf": st.sampled_from([1, 3])},
)
NUMBERS = st.fixed_dictionaries(
    {"type": st.just("number")},
    optional={"exclusiveMinimum": st.integers(-3, 3), "exclusiveMaximum": st.sampled_from([4, 7.5])},
)
ENUMS = st.lists(st.sampled_from(["left", "right", 3, None, True]), min_size=1, max_size=3, unique_by=str).map(
    lambda values: {"enum": values}
)
CONSTANTS = st.sampled_from(["left", 3, False]).map(lambda value: {"const": value})
PLAIN = st.sampled_from([{"type": "boolean"}, {"type": "null"}, {}])
REFERENCES = st.sampled_from([{"$ref": "#/$defs/Node"}, {"$ref": "#/$defs/Node", "description": "Of its own."}])
LEAVES = st.one_of(TEXTS, PATTERNS, FORMATS, INTEGERS, NUMBERS, ENUMS, CONSTANTS, PLAIN, REFERENCES)


def lists_of(parts: st.SearchStrategy[JSON]) -> st.SearchStrategy[JSON]:
    bounds = {"minItems": st.integers(0, 2), "maxItems": st.integers(2, 4)}
    return st.fixed_dictionaries({"type": st.just("array"), "items": parts}, optional=bounds)


def tuples_of(parts: st.SearchStrategy[JSON]) -> st.SearchStrategy[JSON]:
    return st.lists(parts, min_size=1, max_size=3).map(
        lambda places: {
            "type": "array", "prefixItems": places, "minItems": len(places), "maxItems": len(places), "items": False
        }
    )  # fmt: skip


def dicts_of(parts: st.SearchStrategy[JSON]) -> st.SearchStrategy[JSON]:
    return parts.map(lambda part: {"type": "object", "additionalProperties": part})


@st.composite
def objects_of(draw: st.DrawFn, parts: st.SearchStrategy[JSON]) -> JSON:
    properties = draw(st.dictionaries(st.sampled_from(["a", "b", "c", "value", "key"]), parts, min_size=1, max_size=4))
    required = [name for name in properties if draw(st.booleans())]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def nullable(parts: st.SearchStrategy[JSON]) -> st.SearchStrategy[JSON]:
    return parts.map(lambda part: {"anyOf": [part, {"type": "null"}]})


def nested(parts: st.SearchStrategy[JSON]) -> st.SearchStrategy[JSON]:
    return st.one_of(lists_of(parts), tuples_of(parts), dicts_of(parts), objects_of(parts), nullable(parts))


SCHEMAS = st.recursive(LEAVES, nested, max_leaves=8)
NODES = objects_of(SCHEMAS).map(
    lambda node: (
        node | {"properties": node["properties"] | {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}}}
    )
)
"""A definition that refers to itself. It may refer to itself elsewhere too, without end: then no value fits."""


@pytest.mark.parametrize("provider", FITS)
@given(schema=SCHEMAS, node=NODES, seed=st.integers(0, 50))
def test_an_instance_of_a_providers_schema_fits_the_callers_schema(
    provider: str, schema: JSON, node: JSON, seed: int
) -> None:
    original = schema | {"$defs": {"Node": node}}
    try:
        wanted = response_type_of(original)
        sent = fitted(provider, wanted)
        answer = json.dumps(instance_of(sent, seed))
    except (NoInstanceError, ProviderFailedError):
        assume(False)
        raise
    with case(answer, sent, original):
        wanted.read(answer)


WORDS = [
    "type",
    "properties",
    "required",
    "items",
    "anyOf",
    "oneOf",
    "allOf",
    "enum",
    "const",
    "$ref",
    "$defs",
    "additionalProperties",
    "description",
    "format",
    "pattern",
    "minItems",
    "minLength",
    "prefixItems",
    "not",
    "default",
    "definitions",
    "title",
    "exclusiveMinimum",
    "uniqueItems",
    "multipleOf",
]
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.sampled_from(["object", "array", "string", "integer", "#/$defs/a", "#", "null", "a"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*WORDS, "a", "b"]), inner, max_size=4),
    max_leaves=10,
)
GARBAGE = st.fixed_dictionaries(
    {"type": st.just("object")}, optional={word: VALUES for word in WORDS if word != "type"}
)


@given(schema=GARBAGE)
def test_what_is_no_schema_is_refused_and_breaks_nothing(schema: JSON) -> None:
    is_strict(schema)
    for provider, fit in FITS.items():
        with suppress(ProviderFailedError):
            fit([("response_type", schema)])
        REFUSALS[provider](schema)
    for seed in (0, 3):
        with suppress(NoInstanceError):
            instance_of(schema, seed)
