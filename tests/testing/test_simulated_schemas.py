"""The simulated APIs check JSON schemas as strictly as the real ones: of the answer, and of strict tools."""

from __future__ import annotations

from typing import Any

from headrace.testing.anthropic.rules import refusal_of as anthropic_refusal
from headrace.testing.google.rules import refusal_of as google_refusal
from headrace.testing.openai_chat.rules import refusal_of as chat_refusal
from headrace.testing.openai_responses.rules import refusal_of as responses_refusal
from tests.cases import each

JSON = dict[str, Any]
TEXT: JSON = {"type": "string"}
ASK = [{"role": "user", "content": "hi"}]


def closed(properties: JSON, required: list[str] | None = None) -> JSON:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def refusals_of_openai(schema: JSON, *, strict: bool = True) -> list[str]:
    """Return what Chat and Responses say about a schema of the answer, and of a tool."""
    named = {"name": "City", "schema": schema, "strict": strict}
    function = {"name": "f", "parameters": schema, "strict": strict}
    found = [
        chat_refusal(
            {"model": "gpt-5", "messages": ASK, "response_format": {"type": "json_schema", "json_schema": named}}
        ),
        chat_refusal({"model": "gpt-5", "messages": ASK, "tools": [{"type": "function", "function": function}]}),
        responses_refusal({"model": "gpt-5", "input": "hi", "text": {"format": {"type": "json_schema"} | named}}),
        responses_refusal({"model": "gpt-5", "input": "hi", "tools": [{"type": "function"} | function]}),
    ]
    return [refusal.message for refusal in found if refusal is not None]


@each(
    ("schema", "words"),
    [
        (
            closed({"a": TEXT}, []),
            "In context=(), 'required' is required to be supplied and to be an array including every",
        ),
        (closed({"a": closed({"b": TEXT}, [])}), "In context=('properties', 'a'), 'required' is required"),
        (closed({}, ["b"]), "Extra required key 'b' supplied."),
        ({"type": "object", "properties": {}, "required": []}, "'additionalProperties' is required to be supplied"),
        (closed({"a": {"type": "array"}}), "In context=('properties', 'a'), array schema missing items."),
        (closed({"a": {}}), "In context=('properties', 'a'), schema must have a 'type' key."),
        (closed({"a": TEXT | {"default": "x"}}), "'default' is not permitted."),
        (closed({"a": TEXT | {"maxLength": 3}}), "'maxLength' is not permitted."),
        (closed({"a": TEXT | {"format": "uri"}}), "'uri' is not a valid format."),
        (closed({"a": TEXT | {"pattern": "(?=a)"}}), "look-around is not supported."),
        (closed({"a": {"anyOf": [TEXT], "oneOf": [TEXT]}}), "'oneOf' is not permitted."),
        (closed({"a": {"type": "array", "items": TEXT, "uniqueItems": True}}), "'uniqueItems' is not permitted."),
        (
            closed({"a": {"$ref": "#/$defs/A", "description": "d"}}) | {"$defs": {"A": TEXT}},
            "$ref cannot have keywords",
        ),
        (closed({"a": {"$ref": "#/$defs/B"}}), "which was not found in the schema."),
        (closed({"a": TEXT}) | {"$defs": {"A": closed({"b": TEXT}, [])}}, "In context=('$defs', 'A'), 'required' is"),
        (closed({"a": TEXT | {"enum": [str(number) for number in range(1001)]}}), "at most 1000 enum values"),
    ],
)
def test_openai_refuses_a_strict_schema_that_breaks_a_rule(schema: JSON, words: str) -> None:
    found = refusals_of_openai(schema)
    assert [words in message for message in found] == [True] * 4, found
    assert found[0].startswith("Invalid schema for response_format 'City': ")
    assert found[1].startswith("Invalid schema for function 'f': ")
    assert refusals_of_openai(schema, strict=False) == []


def refusals_of_anthropic(*schemas: JSON, model: str = "claude-opus-5", messages: Any = None) -> list[str]:
    body = {"model": model, "max_tokens": 99, "messages": messages or ASK}
    tools = [{"name": f"f{number}", "input_schema": schema, "strict": True} for number, schema in enumerate(schemas)]
    wanted = {"output_config": {"format": {"type": "json_schema", "schema": schemas[0]}}}
    version = "2026-10-21"
    found = [anthropic_refusal(body | wanted, version), anthropic_refusal(body | {"tools": tools}, version)]
    return [refusal.message for refusal in found if refusal is not None]


@each(
    ("schema", "words"),
    [
        ({"type": "object", "properties": {}}, "'additionalProperties' must be explicitly set to false"),
        (closed({"a": TEXT | {"minLength": 1}}), ".properties.a: For '['string']' type, properties minLength are not"),
        (
            closed({"a": {"type": "integer", "minimum": 1, "maximum": 2}}),
            "properties maximum, minimum are not supported",
        ),
        (closed({"a": {"type": "array", "items": TEXT, "minItems": 2}}), "'minItems' values other than 0 or 1"),
        (closed({"a": TEXT | {"pattern": r"\bx"}}), "Invalid regex pattern"),
        (closed({"a": TEXT | {"format": "uri-reference"}}), "format 'uri-reference' is not supported"),
        (
            closed({"a": {"$ref": "#/$defs/A"}}) | {"$defs": {"A": closed({"a": {"$ref": "#/$defs/A"}})}},
            "Circular reference",
        ),
        (closed({"a": {"$ref": "#/$defs/B"}}), "Unresolvable reference"),
        (closed({"a": {}}), "Schema type is required"),
        (closed({f"p{number}": TEXT for number in range(25)}, []), "25 optional parameters"),
        (
            closed({f"p{number}": {"type": ["string", "null"]} for number in range(17)}),
            "17 parameters with union types",
        ),
    ],
)
def test_anthropic_refuses_a_schema_that_breaks_a_rule(schema: JSON, words: str) -> None:
    found = refusals_of_anthropic(schema)
    assert [words in message for message in found] == [True, True], found


def test_anthropic_counts_its_limits_over_all_strict_tools() -> None:
    optional = closed({f"p{number}": TEXT for number in range(13)}, [])
    assert "26 optional parameters" in refusals_of_anthropic(optional, optional)[0]
    assert "Too many strict tools" in refusals_of_anthropic(*[closed({})] * 21)[0]


def test_anthropic_refuses_what_does_not_go_with_a_schema() -> None:
    cited = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "d"},
        "citations": {"enabled": True},
    }
    assert "citations" in refusals_of_anthropic(closed({}), messages=[{"role": "user", "content": [cited]}])[0]
    assert "not supported by this model" in refusals_of_anthropic(closed({}), model="claude-sonnet-4-0")[0]
    assert "strict tools are not supported" in refusals_of_anthropic(closed({}), model="claude-sonnet-4-0")[1]
    prefill = [*ASK, {"role": "assistant", "content": "{"}]
    assert len(refusals_of_anthropic(closed({}), model="claude-opus-4-5", messages=prefill)) == 1


def refusal_of_google(schema: JSON) -> str:
    config = {"responseMimeType": "application/json", "responseJsonSchema": schema}
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    function = {"name": "f", "parametersJsonSchema": schema}
    calling = {"functionCallingConfig": {"mode": "VALIDATED"}}
    refusal = google_refusal(body | {"generationConfig": config})
    of_tool = google_refusal(body | {"tools": [{"functionDeclarations": [function]}], "toolConfig": calling})
    assert (refusal is None) == (of_tool is None)
    return "" if refusal is None else refusal.message


@each(
    ("schema", "words"),
    [
        (closed({"a": TEXT | {"pattern": "a"}}), 'Unknown name "pattern"'),
        (closed({"a": {"const": 1}}), 'Unknown name "const"'),
        (
            closed({"a": {"$ref": "#/$defs/A", "description": "d"}}) | {"$defs": {"A": TEXT}},
            "$ref must not have siblings",
        ),
        (
            closed({"a": {"$ref": "#/$defs/A"}}) | {"$defs": {"A": closed({"a": {"$ref": "#/$defs/A"}})}},
            "a recursive $ref",
        ),
        (closed({"a": {"type": "text"}}), "Invalid value"),
    ],
)
def test_google_refuses_a_schema_that_breaks_a_rule(schema: JSON, words: str) -> None:
    assert words in refusal_of_google(schema), refusal_of_google(schema)


def test_google_takes_a_recursion_that_begins_in_an_optional_property() -> None:
    node = closed({"next": {"$ref": "#/$defs/Node"}, "name": TEXT}, ["name"])
    assert refusal_of_google(closed({"a": {"$ref": "#/$defs/Node"}}) | {"$defs": {"Node": node}}) == ""


def test_gemini_before_3_takes_no_tools_together_with_a_json_answer() -> None:
    body = {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "generationConfig": {"responseMimeType": "application/json"},
        "tools": [{"functionDeclarations": [{"name": "f"}]}],
    }
    assert "is unsupported" in str(google_refusal(body, "gemini-2.5-flash"))
    assert google_refusal(body, "gemini-3-pro") is None
