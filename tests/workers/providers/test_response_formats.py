"""``response_format`` means the same in each form and on each wire format. Nothing is changed silently."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.types import Message, Tool, ToolCallPart
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderFailure, ProviderSettings
from tests.cases import each

HOSTS = {
    "openai-chat": ("openai", "https://api.openai.com/v1"),
    "openai-responses": ("openai-responses", "https://api.openai.com/v1"),
    "anthropic": ("anthropic", "https://api.anthropic.com"),
    "google": ("google", "https://generativelanguage.googleapis.com"),
}
MODELS = {"anthropic": "claude-opus-4-6", "google": "gemini-3-pro"}

LOOSE: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
STRICT: dict[str, Any] = LOOSE | {"additionalProperties": False}


def body_of(api: str, **fields: Any) -> dict[str, Any]:
    name, url = HOSTS[api]
    fields = {"messages": [Message("user", "hi")]} | fields
    run = RunRequest(provider=name, model=MODELS.get(api, "gpt-4o"), stream=True, **fields)
    sent = json.loads(
        WIRE_FORMATS[api].api.build_request(run, ProviderSettings(name=name, api=api, base_url=url), "k").body
    )
    assert isinstance(sent, dict)
    return sent


def sent_format(api: str, wanted: dict[str, Any]) -> Any:
    body = body_of(api, response_format=wanted)
    return {
        "openai-chat": lambda: body["response_format"],
        "openai-responses": lambda: body["text"]["format"],
        "anthropic": lambda: body["output_config"]["format"],
        "google": lambda: body["generationConfig"],
    }[api]()


def refusal_of(api: str, **fields: Any) -> ProviderFailure:
    with pytest.raises(ProviderFailedError) as caught:
        body_of(api, **fields)
    assert caught.value.failure.kind == "invalid_request"
    return caught.value.failure


def spellings(schema: dict[str, Any], **named: Any) -> list[dict[str, Any]]:
    fields = {"schema": schema} | named
    return [
        {"type": "json_schema", "json_schema": fields},
        {"type": "json_schema", "json_schema": fields | {"description": None}},
        {"type": "json_schema", **fields},
        {"format": {"type": "json_schema", **fields}},
    ]


@pytest.mark.parametrize("api", HOSTS)
@pytest.mark.parametrize("schema", [LOOSE, STRICT])
def test_each_form_of_a_schema_asks_for_the_same(api: str, schema: dict[str, Any]) -> None:
    bare = sent_format(api, schema)
    for wanted in [*spellings(schema), {"type": "json_object", "schema": schema}]:
        assert sent_format(api, wanted) == bare


def test_name_description_and_strict_are_kept_if_the_format_has_them() -> None:
    fields = {"name": "Place", "description": "where", "strict": True, "schema": LOOSE}
    for wanted in spellings(LOOSE, name="Place", description="where", strict=True)[::2]:
        assert sent_format("openai-chat", wanted) == {"type": "json_schema", "json_schema": fields}
        assert sent_format("openai-responses", wanted) == {"type": "json_schema", **fields}
        assert sent_format("anthropic", wanted) == {"type": "json_schema", "schema": LOOSE}
        assert sent_format("google", wanted) == {"responseMimeType": "application/json", "responseJsonSchema": LOOSE}


@pytest.mark.parametrize(
    ("schema", "is_strict"),
    [
        (LOOSE, False),
        (STRICT, True),
        ({"type": "object", "properties": {}, "additionalProperties": False}, True),
        (STRICT | {"required": []}, False),
        (STRICT | {"properties": {"city": {"type": "string", "default": "x"}}}, False),
        (STRICT | {"properties": {"city": {"type": "string", "maxLength": 3}}}, False),
        (STRICT | {"properties": {"city": {"type": "string", "format": "uri"}}}, False),
        (STRICT | {"properties": {"city": {"type": ["string", "null"], "description": "d", "title": "t"}}}, True),
        (STRICT | {"properties": {"city": LOOSE}}, False),
        (STRICT | {"properties": {"city": {"type": "array"}}}, False),
        (STRICT | {"properties": {"city": {"type": "array", "items": STRICT}}}, True),
        (STRICT | {"properties": {"city": {"anyOf": [STRICT, {"type": "null"}]}}}, True),
        (STRICT | {"properties": {"city": {"anyOf": [LOOSE, {"type": "null"}]}}}, False),
        (STRICT | {"properties": {"city": {"oneOf": [STRICT]}}}, False),
        (STRICT | {"properties": {"city": {"$ref": "#/$defs/c"}}, "$defs": {"c": STRICT}}, True),
        (STRICT | {"properties": {"city": {"$ref": "#/$defs/c"}}, "$defs": {"c": LOOSE}}, False),
        (STRICT | {"properties": {"city": {"$ref": "#/$defs/c", "default": 1}}, "$defs": {"c": STRICT}}, False),
        ({"type": "array", "items": STRICT}, False),
        ({"anyOf": [STRICT]}, False),
        (STRICT | {"properties": {"city": True}}, False),
    ],
)
def test_a_schema_is_sent_as_strict_only_if_it_follows_the_rules(schema: dict[str, Any], *, is_strict: bool) -> None:
    for api in ("openai-chat", "openai-responses"):
        sent = sent_format(api, schema)
        fields = sent.get("json_schema", sent)
        assert fields.get("strict") is (True if is_strict else None)
        assert fields["schema"] == schema


def test_the_callers_value_of_strict_is_sent() -> None:
    for strict in (True, False):
        sent = sent_format("openai-chat", {"type": "json_schema", "schema": LOOSE, "strict": strict})
        assert sent["json_schema"]["strict"] is strict


@each("api", HOSTS)
@each(
    ("wanted", "place"),
    [
        ({"type": "json_schema", "schema": LOOSE, "stric": True}, "response_format.stric"),
        ({"type": "json_schema", "json_schema": {"schema": LOOSE, "x": 1}}, "response_format.json_schema.x"),
        ({"type": "json_schema", "json_schema": {"schema": LOOSE}, "strict": True}, "response_format.strict"),
        ({"type": "json_schema", "json_schema": LOOSE}, "response_format.json_schema.type"),
        ({"type": "json_schema", "json_schema": [LOOSE]}, "response_format.json_schema"),
        ({"type": "json_schema"}, "response_format.schema"),
        ({"type": "json_schema", "schema": LOOSE, "name": "my place"}, "response_format.name"),
        ({"type": "json_schema", "schema": LOOSE, "strict": "yes"}, "response_format.strict"),
        ({"type": "json_schema", "schema": LOOSE, "description": 1}, "response_format.description"),
        ({"type": "json_object", "strict": True}, "response_format.strict"),
        ({"type": "text", "schema": LOOSE}, "response_format.schema"),
        ({"type": "grammar", "grammar": "g"}, "response_format.type"),
        ({"format": {"type": "grammar"}}, "response_format.format.type"),
        ({"format": {"type": "json_schema"}}, "response_format.format.schema"),
        ({"format": {"type": "json_schema", "json_schema": {"x": 1}}}, "response_format.format.json_schema.x"),
        ({"format": {"type": "text", "x": 1}}, "response_format.format.x"),
        ({"format": {"x": 1}}, "response_format.format"),
        ({"responseJsonSchema": LOOSE}, "response_format"),
        ({}, "response_format"),
    ],
)
def test_an_invalid_response_format_is_refused_with_its_path(api: str, wanted: dict[str, Any], place: str) -> None:
    assert refusal_of(api, response_format=wanted).argument == place


def test_a_bare_schema_may_have_any_keyword_of_json_schema() -> None:
    for schema in ({"type": ["object", "null"], "x-mine": 1}, {"$ref": "#/$defs/a", "$defs": {"a": LOOSE}}):
        assert sent_format("anthropic", schema)["schema"] == schema


@pytest.mark.parametrize("api", HOSTS)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_have_is_refused_with_its_path(api: str, number: float) -> None:
    tools = [Tool("f", parameters={"type": "object", "properties": {"x": {"enum": [1, number]}}})]
    assert str(refusal_of(api, tools=tools).argument).endswith(".properties.x.enum[1]")
    call = Message("assistant", [ToolCallPart("c", "f", {"a": [{"b": number}]})])
    history = [Message("user", "hi"), call, Message("tool", "x", tool_call_id="c")]
    assert str(refusal_of(api, messages=history).argument).endswith(".a[0].b")
    assert refusal_of(api, custom_options={"x": {"y": number}}).argument == "x.y"
