"""A schema of ``response_type`` is fitted to each provider: no rule is lost, and what is too large is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from headrace.types import Message, Tool
from headrace_workers.providers.anthropic.schemas import anthropic_schemas
from headrace_workers.providers.google.schemas import google_schemas
from headrace_workers.providers.shared.openai_schemas import openai_schemas
from headrace_workers.providers.shared.schema_walk import Schema, parts_of_schema
from headrace_workers.providers.shared.wire_format import ProviderFailedError
from tests.cases import each
from tests.workers.providers.test_response_formats import HOSTS, body_of

TEXT: Schema = {"type": "string"}
NULL: Schema = {"type": "null"}
FITS: dict[str, Callable[[list[tuple[str, Schema]]], list[Schema]]] = {
    "openai": openai_schemas,
    "anthropic": anthropic_schemas,
    "google": google_schemas,
}


def closed(properties: Schema, required: list[str] | None = None, **words: Any) -> Schema:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False} | words


def fitted(provider: str, schema: Schema, where: str = "response_type") -> Schema:
    return FITS[provider]([(where, schema)])[0]


def part(provider: str, schema: Schema) -> Any:
    """Return what becomes of one required property."""
    return fitted(provider, closed({"a": schema}))["properties"]["a"]


def refusal(provider: str, schema: Schema) -> str:
    with pytest.raises(ProviderFailedError) as caught:
        fitted(provider, schema)
    assert caught.value.failure.kind == "invalid_request"
    assert caught.value.failure.argument == "response_type"
    return caught.value.failure.reason


@each(
    ("schema", "openai", "anthropic", "google"),
    [
        (
            {"type": "string", "minLength": 3, "maxLength": 1},
            {"type": "string", "description": "At least 3 characters; at most 1 character."},
            {"type": "string", "description": "At least 3 characters; at most 1 character."},
            {"type": "string", "description": "At least 3 characters; at most 1 character."},
        ),
        (
            {"type": "integer", "minimum": 1, "exclusiveMaximum": 9, "description": "Stars."},
            {"type": "integer", "minimum": 1, "exclusiveMaximum": 9, "description": "Stars."},
            {"type": "integer", "description": "Stars. (at least 1; less than 9)"},
            {"type": "integer", "minimum": 1, "maximum": 8, "description": "Stars."},
        ),
        (
            {"type": "number", "multipleOf": 0.5, "exclusiveMinimum": 0},
            {"type": "number", "multipleOf": 0.5, "exclusiveMinimum": 0},
            {"type": "number", "description": "A multiple of 0.5; more than 0."},
            {"type": "number", "description": "A multiple of 0.5; more than 0."},
        ),
        (
            {"type": "string", "pattern": "^(?=a).$", "format": "uri"},
            {"type": "string", "description": 'Matches the regular expression "^(?=a).$"; in the format "uri".'},
            {"type": "string", "format": "uri", "description": 'Matches the regular expression "^(?=a).$".'},
            {"type": "string", "description": 'Matches the regular expression "^(?=a).$"; in the format "uri".'},
        ),
        (
            {"type": "string", "pattern": r"^\d+$", "format": "date"},
            {"type": "string", "pattern": r"^\d+$", "format": "date"},
            {"type": "string", "pattern": r"^\d+$", "format": "date"},
            {"type": "string", "format": "date", "description": 'Matches the regular expression "^\\\\d+$".'},
        ),
        (
            {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 5, "uniqueItems": True},
            {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 5, "description": "No item twice."},
            {"type": "array", "items": TEXT, "minItems": 1, "description": "At most 5 items; no item twice."},
            {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 5, "description": "No item twice."},
        ),
        (
            {"const": "a"},
            {"type": "string", "const": "a"},
            {"type": "string", "const": "a"},
            {"type": "string", "enum": ["a"]},
        ),
        ({"enum": [1, None]}, *([{"type": ["integer", "null"], "enum": [1, None]}] * 3)),
        ({"oneOf": [TEXT, NULL]}, *([{"anyOf": [TEXT, NULL]}] * 3)),
        (
            {"type": "string", "not": {"const": "x"}, "x-mine": 1, "title": "T", "examples": ["a"]},
            *(
                [
                    {
                        "type": "string",
                        "title": "T",
                        "description": 'Does not fit {"const":"x"}; x-mine 1; for example ["a"].',
                    }
                ]
                * 3
            ),
        ),
    ],
)
def test_a_keyword_that_a_provider_does_not_take_is_said_in_words(
    schema: Schema, openai: Schema, anthropic: Schema, google: Schema
) -> None:
    assert part("openai", schema) == openai
    assert part("anthropic", schema) == anthropic
    assert part("google", schema) == google


@each(
    ("optional", "nullable"),
    [
        (TEXT, {"type": ["string", "null"]}),
        (TEXT | {"description": "d"}, {"type": ["string", "null"], "description": "d"}),
        ({"type": ["string", "integer"]}, {"type": ["string", "integer", "null"]}),
        (
            {"type": "string", "enum": ["a"], "description": "d"},
            {"anyOf": [{"type": "string", "enum": ["a"]}, NULL], "description": "d"},
        ),
        ({"anyOf": [TEXT, {"type": "integer"}]}, {"anyOf": [TEXT, {"type": "integer"}, NULL]}),
        ({"anyOf": [TEXT, NULL]}, {"anyOf": [TEXT, NULL]}),
        (NULL, NULL),
        ({"$ref": "#/$defs/A"}, {"anyOf": [{"$ref": "#/$defs/A"}, NULL]}),
        (closed({}), {"anyOf": [closed({}), NULL]}),
    ],
)
def test_an_optional_property_may_be_null_on_openai_and_stays_optional_elsewhere(
    optional: Schema, nullable: Schema
) -> None:
    schema = closed({"b": TEXT, "a": optional, "c": TEXT}, ["c", "b"]) | {"$defs": {"A": closed({})}}
    sent = fitted("openai", schema)
    assert sent["required"] == list(sent["properties"]) == ["b", "a", "c"]
    assert sent["properties"]["a"] == nullable
    for provider in ("anthropic", "google"):
        sent = fitted(provider, schema)
        assert sent["required"] == ["c", "b"]
        assert list(sent["properties"]) == ["b", "a", "c"]
        assert sent["properties"]["a"] == optional


def tree(**properties: Schema) -> Schema:
    node = closed({"name": TEXT, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}} | properties)
    return closed({"root": {"$ref": "#/$defs/Node"}}) | {"$defs": {"Node": node}}


@pytest.mark.parametrize("provider", ["anthropic", "google"])
def test_recursion_is_unrolled_and_ends_in_json_text(provider: str) -> None:
    sent = fitted(provider, tree())
    assert list(sent["$defs"]) == ["Node", "Node_2", "Node_3", "Node_4"]
    assert sent["$defs"]["Node"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Node_2"}
    assert sent["$defs"]["Node_4"]["properties"]["children"]["items"] == {
        "type": "string",
        "description": 'A value in the form of "Node", written as JSON text.',
    }


@pytest.mark.parametrize("provider", ["anthropic", "google"])
def test_an_unrolled_schema_grows_by_its_levels_only(provider: str) -> None:
    names = [f"N{number}" for number in range(30)]
    links = {name: {"anyOf": [{"$ref": f"#/$defs/{name}"}, NULL]} for name in names[:7]}
    definitions = {name: closed({"text": TEXT} | (links if name in names[:2] else {})) for name in names}
    if provider == "anthropic":  # here each union counts
        definitions = {
            "N0": closed({"a": {"$ref": "#/$defs/N1"}}),
            "N1": closed({"a": {"anyOf": [{"$ref": "#/$defs/N0"}, NULL]}}),
        }
    sent = fitted(provider, closed({"a": {"$ref": "#/$defs/N0"}}) | {"$defs": definitions})
    assert len(json.dumps(sent)) < 4 * len(json.dumps(definitions)) + 1000


def test_a_recursive_value_that_may_be_a_text_ends_without_json_text() -> None:
    # A JSON text could not be told from a text that is meant as it is.
    choices = {"anyOf": [TEXT, {"type": "array", "items": {"$ref": "#/$defs/Value"}}]}
    sent = fitted("anthropic", closed({"a": {"$ref": "#/$defs/Value"}}) | {"$defs": {"Value": choices}})
    assert sent["$defs"]["Value_4"]["anyOf"][1]["items"] == {"anyOf": [TEXT], "description": "Not nested deeper."}


def test_recursion_stays_on_openai() -> None:
    assert fitted("openai", tree()) == tree()


def test_anthropic_gets_fewer_levels_where_each_level_counts_against_a_limit() -> None:
    optional = {f"o{number}": TEXT for number in range(9)}
    schema = tree()
    schema["$defs"]["Node"]["properties"] |= optional
    sent = fitted("anthropic", schema)
    assert len(sent["$defs"]) == 4
    schema["$defs"]["Node"]["properties"] |= {f"p{number}": TEXT for number in range(9)}
    assert len(fitted("anthropic", schema)["$defs"]) == 2


def counted(sent: Schema) -> tuple[int, int]:
    parts = [found for _, found in parts_of_schema(sent)]
    optional = sum(len(set(found.get("properties", ())) - set(found.get("required", ()))) for found in parts)
    unions = sum(len(found.get("anyOf", ())) > 1 or isinstance(found.get("type"), list) for found in parts)
    return optional, unions


@each(
    ("plain", "nullable", "default", "expected"),
    [
        (24, 0, 0, (24, 0)),
        (40, 0, 0, (24, 16)),
        (0, 40, 0, (24, 16)),
        (20, 20, 0, (24, 16)),
        (0, 24, 16, (24, 16)),
        (41, 0, 0, None),
        (0, 41, 0, None),
        (0, 0, 17, None),
    ],
)
def test_anthropics_limits_are_kept_as_long_as_the_meaning_allows_it(
    plain: int, nullable: int, default: int, expected: tuple[int, int] | None
) -> None:
    properties = {f"p{number}": TEXT for number in range(plain)}
    properties |= {f"n{number}": {"anyOf": [TEXT, NULL]} for number in range(nullable)}
    properties |= {f"d{number}": {"anyOf": [TEXT, NULL], "description": 'Default: "x".'} for number in range(default)}
    if expected is None:
        assert "Anthropic's limit" in refusal("anthropic", closed(properties, []))
    else:
        assert counted(fitted("anthropic", closed(properties, []))) == expected


def test_anthropics_limits_count_over_all_schemas_of_a_request() -> None:
    tools = [(f"tools[{number}].parameters", closed({"a": TEXT, "b": TEXT}, [])) for number in range(20)]
    sent = anthropic_schemas(tools)
    assert sum(counted(schema)[0] for schema in sent) == 24
    with pytest.raises(ProviderFailedError, match="optional properties together"):
        anthropic_schemas([*tools, ("response_type", closed({"a": TEXT}, []))])
    with pytest.raises(ProviderFailedError, match="at most 20 strict tools in a request, not 21"):
        anthropic_schemas([*tools, ("tools[20].parameters", closed({}))])


def nested(levels: int) -> Schema:
    schema = TEXT
    for _ in range(levels):
        schema = closed({"a": schema})
    return schema


@each(
    ("schema", "words"),
    [
        (
            nested(11),
            "OpenAI's limit: a schema may have 10 levels of objects and lists (at $.a.a.a.a.a.a.a.a.a.a of its schema)",
        ),
        (closed({f"p{number}": TEXT for number in range(5001)}), "5,000 properties; this one has 5,001"),
        (
            closed({"x" * 60_001: TEXT, "y" * 60_000: TEXT}),
            "120,000 characters in all names, enums and constants together",
        ),
        (closed({"a": TEXT | {"enum": [str(number) for number in range(1001)]}}), "1,000 values in all enums"),
        (
            closed({"b": {"type": "array", "items": TEXT | {"enum": [f"{number:061}" for number in range(251)]}}}),
            "(at $.b[] of",
        ),
        ({"type": "array", "items": TEXT}, "takes only an object as the whole answer"),
        (closed({"a": True}), "(at $.a of its schema)"),
        (closed({"a": {}}), "each part of a schema needs a type (at $.a of"),
        (closed({"a": {"type": "array"}}), "a list needs one type for all its items"),
        (closed({"a": {"type": "object", "additionalProperties": TEXT}}), "no object with free keys"),
        (closed({"a": {"anyOf": TEXT}}), "anyOf takes a list"),
    ],
)
def test_a_schema_beyond_openais_limits_is_refused_with_the_limit_and_the_place(schema: Schema, words: str) -> None:
    assert words in refusal("openai", schema)


def test_a_schema_at_openais_limits_is_taken() -> None:
    assert fitted("openai", nested(10)) == nested(10)
    enum = closed({"a": TEXT | {"enum": [str(number) for number in range(1000)]}})
    assert fitted("openai", enum) == enum


LOOSE = closed({"city": TEXT | {"minLength": 2}, "note": TEXT}, ["city"])


def sent_schemas(api: str, **fields: Any) -> tuple[Any, Any]:
    """Return the schemas of the first tool and of the answer, as they are sent."""
    body = body_of(api, tools=[Tool("f", "d", LOOSE, True)], **fields)
    return {
        "openai-chat": lambda: (
            body["tools"][0]["function"]["parameters"],
            body["response_format"]["json_schema"]["schema"],
        ),
        "openai-responses": lambda: (body["tools"][0]["parameters"], body["text"]["format"]["schema"]),
        "anthropic": lambda: (body["tools"][0]["input_schema"], body["output_config"]["format"]["schema"]),
        "google": lambda: (
            body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"],
            body["generationConfig"]["responseJsonSchema"],
        ),
    }[api]()


@pytest.mark.parametrize("api", HOSTS)
def test_schemas_are_fitted_only_where_the_run_asks_for_it(api: str) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "City", "schema": LOOSE, "strict": True}}
    assert sent_schemas(api, response_format=wanted) == (LOOSE, LOOSE)
    provider = api.partition("-")[0]
    expected = fitted(provider, LOOSE)
    assert expected != LOOSE
    assert sent_schemas(api, response_format=wanted, fits_schemas=True) == (expected, expected)
    own = {"type": "json_schema", "json_schema": {"name": "City", "schema": LOOSE}}
    assert sent_schemas(api, response_format=own, fits_schemas=True) == (expected, LOOSE)


def test_a_function_without_parameters_is_strict_too() -> None:
    body = body_of("openai-chat", tools=[Tool("f", strict=True)], fits_schemas=True, messages=[Message("user", "hi")])
    assert body["tools"][0]["function"]["parameters"] == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
