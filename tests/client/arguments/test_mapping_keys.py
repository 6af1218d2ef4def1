"""What is promised of each key that a caller gives: it reaches the worker, or it is refused by its name."""

from __future__ import annotations

import enum
from collections import deque
from types import MappingProxyType
from typing import Any, cast

import msgspec
import pytest
from django.utils.safestring import mark_safe

from headrace.arguments.checked_request import (
    build_embedding_request,
    build_options,
    build_request,
    check_names,
)
from headrace.arguments.original_paths import original_path
from headrace.arguments.run_arguments import EmbeddingArguments, RunArguments
from headrace.errors import InvalidRequestError
from headrace.types import ImagePart, Message, ReasoningPart, TextPart, Tool, ToolCallPart
from headrace.wire.codec import decode_request, encode_request
from headrace.wire.run_request import RunRequest
from tests.cases import each

HELLO = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
MARK = {"type": "ephemeral"}


def build(**changes: Any) -> RunRequest:
    """Check the arguments as the client does, and return the request as the worker decodes it."""
    arguments = cast("RunArguments", {"model": "gpt-4o", "messages": HELLO} | changes)
    check_names(arguments, RunArguments)
    build_options(arguments)
    request = build_request(arguments, stream=False, trace_id="tr_0123456789abcdef", providers=["openai"])
    return decode_request(encode_request(request))


def message(**given: Any) -> Message:
    return build(messages=[given]).messages[0]


def part(**given: Any) -> Any:
    return message(role="user", content=[given]).content[0]


def call(**given: Any) -> Any:
    return message(role="assistant", tool_calls=[given]).content[0]


def tool(**given: Any) -> Tool:
    return build(tools=[given]).tools[0]


def refusal(**changes: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        build(**changes)
    return caught.value


# Messages and parts.


def test_further_keys_of_a_message_go_along() -> None:
    sent = message(role="assistant", content="Hi", reasoning_content="Hm.", cache_control=MARK)

    assert sent == Message("assistant", "Hi", extra={"reasoning_content": "Hm.", "cache_control": MARK})


def test_a_name_is_the_tool_s_in_an_answer_and_the_speaker_s_elsewhere() -> None:
    assert message(role="tool", content="5", tool_call_id="c", name="f") == Message("tool", "5", "c", "f")
    assert message(role="tool", content="5", tool_call_id="c", tool_name="f") == Message("tool", "5", "c", "f")
    for role in ("system", "developer", "user", "assistant"):
        assert message(role=role, content="Hi", name="Ann").extra == {"name": "Ann"}


def test_the_toolset_of_an_answer_is_no_slip_of_its_tool_s_name() -> None:
    sent = message(role="tool", content="5", tool_call_id="c", toolset_name="computer")

    assert sent == Message("tool", "5", "c", extra={"toolset_name": "computer"})


def test_a_message_of_the_model_may_have_no_content_where_it_has_something_else() -> None:
    legacy = {"name": "f", "arguments": "{}"}

    assert message(role="assistant", content=None, function_call=legacy).extra == {"function_call": legacy}


@pytest.mark.parametrize(
    "answer", [Message("assistant"), Message("assistant", [TextPart("a"), ToolCallPart("c", "f", {})])]
)
def test_a_message_that_was_made_a_dict_is_the_same_message(answer: Message) -> None:
    assert message(**msgspec.json.decode(msgspec.json.encode(answer))) == answer


def test_a_key_without_a_value_is_as_if_it_was_not_given() -> None:
    dumped = {"role": "assistant", "content": "Hi", "refusal": None, "audio": None, "tool_calls": None, "name": None}

    assert message(**dumped) == Message("assistant", "Hi")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "text", "text": "x", "cache_control": MARK}, TextPart("x", extra={"cache_control": MARK})),
        ({"type": "reasoning", "text": "x", "status": "done"}, ReasoningPart("x", extra={"status": "done"})),
        (
            {"type": "image", "url": "https://x/y.png", "detail": "high", "cache_control": MARK},
            ImagePart("https://x/y.png", extra={"detail": "high", "cache_control": MARK}),
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "high"}, "cache_control": MARK},
            ImagePart("https://x/y.png", extra={"detail": "high", "cache_control": MARK}),
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://x/y.png", "format": "image/png"}},
            ImagePart("https://x/y.png", extra={"image_url": {"format": "image/png"}}),
        ),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
            ImagePart(data="AA==", media_type="image/png"),
        ),
        ({"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}, ImagePart("https://x/y.png")),
        (
            {"type": "tool_call", "id": "c", "name": "f", "arguments": {"a": 1}, "cache_control": MARK},
            ToolCallPart("c", "f", {"a": 1}, extra={"cache_control": MARK}),
        ),
        (
            {"type": "text", "text": "x", "provider_data": {"a": [1]}, "extra": {"citations": []}},
            TextPart("x", {"a": [1]}, {"citations": []}),
        ),
    ],
    ids=lambda value: value.get("type") if isinstance(value, dict) else "",
)
def test_further_keys_of_a_part_go_along(given: dict[str, Any], expected: Any) -> None:
    assert part(**given) == expected
    assert message(role="user", content=[expected]).content == [expected]


def test_further_keys_of_a_nested_tool_call_go_along_each_where_it_stood() -> None:
    function = {"name": "f", "arguments": '{"a": 1}', "strict": True}
    signature = {"google": {"thought_signature": "xyz"}}

    sent = call(id="c", type="function", function=function, extra_content=signature, index=0)

    assert sent == ToolCallPart(
        "c", "f", {"a": 1}, extra={"extra_content": signature, "index": 0, "function": {"strict": True}}
    )


@pytest.mark.parametrize("arguments", [None, "", "null", "{}"])
def test_no_arguments_of_a_call_are_an_empty_object(arguments: str | None) -> None:
    assert call(id="c", function={"name": "f", "arguments": arguments}) == ToolCallPart("c", "f", {})
    if not arguments:
        assert part(type="tool_call", id="c", name="f", arguments=None) == ToolCallPart("c", "f", {})


# Tools.


@pytest.mark.parametrize("schema", ["parameters", "input_schema", "inputSchema", "parametersJsonSchema"])
@pytest.mark.parametrize("is_nested", [False, True], ids=["flat", "nested"])
def test_a_tool_s_schema_is_taken_under_the_name_of_each_provider(schema: str, is_nested: bool) -> None:
    given = {"name": "f", "description": "does f", schema: SCHEMA}

    sent = tool(type="function", function=given) if is_nested else tool(**given)

    assert sent == Tool("f", "does f", SCHEMA)


def test_keys_beside_a_function_go_along() -> None:
    function = {"name": "f", "parameters": SCHEMA, "response": {"type": "string"}}

    sent = tool(type="function", function=function, strict=True, cache_control=MARK)

    assert sent == Tool(
        "f",
        parameters=SCHEMA,
        strict=True,
        extra={"cache_control": MARK, "function": {"response": {"type": "string"}}},
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 5, "cache_control": MARK},
            Tool("web_search", type="web_search_20250305", extra={"max_uses": 5, "cache_control": MARK}),
        ),
        ({"type": "web_search"}, Tool("", type="web_search")),
        (
            {"type": "mcp", "server_label": "x", "require_approval": "never"},
            Tool("", type="mcp", extra={"server_label": "x", "require_approval": "never"}),
        ),
        ({"type": "custom", "custom": {"name": "f"}}, Tool("", type="custom", extra={"custom": {"name": "f"}})),
        (
            {"type": "custom", "name": "f", "description": "does f", "input_schema": SCHEMA},
            Tool("f", "does f", SCHEMA, type="custom"),
        ),
        ({"google_search": {}}, Tool("", type="google_search")),
        (
            {"google_search": {"exclude_domains": ["x.com"]}},
            Tool("", type="google_search", extra={"exclude_domains": ["x.com"]}),
        ),
        ({"codeExecution": MappingProxyType({})}, Tool("", type="codeExecution")),
        (
            {"type": "openrouter:web_search", "parameters": {"max_results": 5}},
            Tool("", parameters={"max_results": 5}, type="openrouter:web_search"),
        ),
        (
            {"type": "vendor_20300101", "name": "v", "input_schema": SCHEMA, "inputSchema": {}},
            Tool("v", type="vendor_20300101", extra={"input_schema": SCHEMA, "inputSchema": {}}),
        ),
    ],
    ids=lambda value: str(value.get("type", min(value))) if isinstance(value, dict) else "",
)
def test_a_tool_of_the_provider_s_own_keeps_its_type_and_its_settings(given: dict[str, Any], expected: Tool) -> None:
    assert tool(**given) == expected
    assert build(tools=[expected]).tools == [expected]


def test_a_tool_without_a_name_is_chosen_by_its_type() -> None:
    assert build(tools=[{"type": "web_search"}], tool_choice={"tool": "web_search"}).tool_choice == {
        "tool": "web_search"
    }


def test_a_custom_tool_is_chosen_by_the_name_that_it_has_inside() -> None:
    tools = [{"type": "custom", "custom": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}]

    assert build(tools=tools, tool_choice={"tool": "g"}).tool_choice == {"tool": "g"}
    assert "there are: f, g" in str(refusal(tools=tools, tool_choice={"tool": "custom"}))


# Refused values, with their paths.

SLIPS: list[tuple[str, str, dict[str, Any]]] = [
    ("tools[0].params", "parameters", {"tools": [{"name": "f", "params": {}}]}),
    ("tools[0].schema", "parameters", {"tools": [{"name": "f", "schema": {}}]}),
    ("tools[0].Parameters", "parameters", {"tools": [{"name": "f", "Parameters": {}}]}),
    ("tools[0].desc", "description", {"tools": [{"name": "f", "desc": "x"}]}),
    ("tools[0].fucntion", "function", {"tools": [{"type": "function", "fucntion": {"name": "f"}}]}),
    ("tools[0].fucntion", "function", {"tools": [{"fucntion": {"name": "f"}}]}),
    ("tools[0].function.params", "parameters", {"tools": [{"function": {"name": "f", "params": {}}}]}),
    ("messages[0].contnet", "content", {"messages": [{"role": "user", "content": "x", "contnet": "y"}]}),
    ("messages[0].parts", "content", {"messages": [{"role": "user", "content": "x", "parts": []}]}),
    ("messages[0].toolCalls", "tool_calls", {"messages": [{"role": "assistant", "content": "x", "toolCalls": []}]}),
    (
        "messages[0].content[0].txt",
        "text",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "txt": "y"}]}]},
    ),
    (
        "messages[0].content[0].mime_type",
        "media_type",
        {"messages": [{"role": "user", "content": [{"type": "image", "data": "AA==", "mime_type": "image/png"}]}]},
    ),
    (
        "messages[0].tool_calls[0].function.argument",
        "arguments",
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "argument": "{}"}}]}]},
    ),
]


@pytest.mark.parametrize(("argument", "known", "changes"), SLIPS, ids=[slip[0] for slip in SLIPS])
def test_a_slip_brings_the_key_that_was_meant(argument: str, known: str, changes: dict[str, Any]) -> None:
    error = refusal(**changes)

    assert error.argument == argument
    assert f"did you mean '{known}'?" in str(error)


def with_call(**given: Any) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}} | given]}]}


class BaseModel:
    """Like a pydantic model: official SDKs answer with these, and programs use them for their messages."""


class Model(BaseModel):
    """A message, a part, a tool or a call."""


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("messages[0]", {"messages": [Model()]}),
        ("messages[0].content[0]", {"messages": [{"role": "user", "content": [Model()]}]}),
        ("messages[0].tool_calls[0]", {"messages": [{"role": "assistant", "tool_calls": [Model()]}]}),
        ("tools[0]", {"tools": [Model()]}),
        ("tools[0].parameters", {"tools": [{"name": "f", "parameters": Model()}]}),
        ("response_format", {"response_format": Model()}),
        ("custom_options.metadata", {"custom_options": {"metadata": Model()}}),
    ],
)
def test_a_model_of_pydantic_is_refused_with_what_to_give(argument: str, changes: dict[str, Any]) -> None:
    error = refusal(**changes)

    assert error.argument == argument
    assert str(error).endswith("not Model; give .model_dump(mode='json')")


WITH_SOURCE = {"source": {"type": "url", "url": "https://y"}}


def with_parts(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": parts}]}


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("messages[0].tool_call_id", {"messages": [{"role": "user", "content": "x", "tool_call_id": "c"}]}),
    ("messages[0].tool_name", {"messages": [Message("user", "x", tool_name="f")]}),
    ("messages[0].name", {"messages": [{"role": "tool", "content": "", "tool_call_id": "c", "tool_name": "f", "name": "g"}]}),
    ("messages[0].name", {"messages": [{"role": "user", "content": "x", "name": 5}]}),
    ("messages[0].extra", {"messages": [{"role": "user", "content": "x", "extra": [1]}]}),
    ("messages[0].extra.content", {"messages": [Message("user", "x", extra={"content": "y"})]}),
    ("messages[0].metadata.when[0]", {"messages": [{"role": "user", "content": "x", "metadata": {"when": [b""]}}]}),
    ("messages[0]", {"messages": [cast("Any", {"role": "user", "content": "x", 5: 5})]}),
    ("messages[0].content", {"messages": [{"role": "tool", "tool_call_id": "c1", "content": None}]}),
    ("messages[0].content[1].text", with_parts(TextPart("x"), TextPart(cast("Any", 5)))),
    ("messages[0].content[0].text", with_parts(TextPart("a\ud800"))),
    ("messages[0].content[0].text", with_parts({"type": "text", "text": None})),
    ("messages[0].content[0].provider_data", with_parts(TextPart("x", cast("Any", "y")))),
    ("messages[0].content[0].provider_data.n", with_parts(TextPart("x", {"n": float("nan")}))),
    ("messages[0].content[0].extra.text", with_parts(TextPart("x", extra={"text": "y"}))),
    ("messages[0].content[0].cache_control.ttl", with_parts({"type": "text", "text": "", "cache_control": {"ttl": {1}}})),
    ("messages[0].content[0].url", with_parts(ImagePart(cast("Any", 5)))),
    ("messages[0].content[0].data", with_parts(ImagePart(data=cast("Any", 1), media_type="image/png"))),
    ("messages[0].content[0].source", with_parts({"type": "image", "source": {"type": "content", "content": "x"}})),
    ("messages[0].content[0].url", with_parts({"type": "image_url", "image_url": "https://x", "url": "https://y"})),
    ("messages[0].content[0].data", with_parts(ImagePart("https://x", "AA==", "image/png"))),
    ("messages[0].content[0].url", with_parts({"type": "image", "url": "https://x"} | WITH_SOURCE)),
    ("messages[0].content[0].data", with_parts({"type": "image", "data": "AA=="} | WITH_SOURCE)),
    ("messages[0].content[0].media_type", with_parts({"type": "image", "media_type": "image/png"} | WITH_SOURCE)),
    ("messages[0].content[0].source.url", with_parts({"type": "image", "source": {"type": "url", "url": b"x"}})),
    (
        "messages[0].content[0].source.data",
        with_parts({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": 1}}),
    ),
    ("messages[0].content[0].source", with_parts({"type": "image", "source": {"type": "base64", "data": "AA=="}})),
    ("messages[0].content[0]", with_parts({"type": ["text"], "text": "x"})),
    ("messages[0].content[0].id", with_parts(ToolCallPart(cast("Any", None), "f", {}))),
    ("messages[0].content[0].name", with_parts(ToolCallPart("c", cast("Any", None), {}))),
    ("messages[0].content[0].name", with_parts(ToolCallPart("c", "", {}))),
    ("messages[0].content[0].arguments", with_parts(ToolCallPart("c", "f", cast("Any", "{}")))),
    ("messages[0].content[0].arguments.when", with_parts(ToolCallPart("c", "f", {"when": float("inf")}))),
    ("messages[0].tool_calls[0].id", with_call(id=None)),
    ("messages[0].tool_calls[0].id", with_call(id=5)),
    ("messages[0].tool_calls[0].type", with_call(type="custom")),
    ("messages[0].tool_calls[0].function.name", with_call(function={"name": None})),
    ("messages[0].tool_calls[0].function.name", with_call(function={"name": ""})),
    ("messages[0].tool_calls[0].function", with_call(function={"arguments": "{}"})),
    ("messages[0].tool_calls[0].function.arguments", with_call(function={"name": "f", "arguments": {}})),
    ("messages[0].tool_calls[0].function.arguments", with_call(function={"name": "f", "arguments": "NaN"})),
    ("messages[0].tool_calls[0].function.arguments.n", with_call(function={"name": "f", "arguments": f'{{"n": {2**70}}}'})),
    ("tools[0].name", {"tools": [Tool(cast("Any", 5))]}),
    ("tools[0].description", {"tools": [Tool("f", cast("Any", 5))]}),
    ("tools[0].parameters", {"tools": [Tool("f", parameters=cast("Any", "x"))]}),
    ("tools[0].parameters.properties.x.default", {"tools": [Tool("f", parameters={"properties": {"x": {"default": {1}}}})]}),
    ("tools[0].input_schema.properties[0]", {"tools": [{"name": "f", "input_schema": {"properties": [b""]}}]}),
    ("tools[0].input_schema", {"tools": [{"name": "f", "parameters": SCHEMA, "input_schema": {"type": "array"}}]}),
    ("tools[0].function.name", {"tools": [{"name": "f", "function": {"name": "g"}}]}),
    ("tools[0].function.strict", {"tools": [{"strict": True, "function": {"name": "f", "strict": False}}]}),
    ("tools[0].strict", {"tools": [{"name": "f", "strict": "yes"}]}),
    ("tools[0].type", {"tools": [{"name": "f", "type": 5}]}),
    ("tools[0].function", {"tools": [{"type": "function", "function": "f"}]}),
    ("tools[0].max_uses", {"tools": [{"type": "web_search", "max_uses": float("nan")}]}),
    ("tools[0].extra.input_schema", {"tools": [Tool("f", extra={"input_schema": {}})]}),
    ("tools[0]", {"tools": [{"google_search": {}, "code_execution": {}}]}),
    ("tools[0].google_search.n", {"tools": [{"google_search": {"n": b""}}]}),
    ("custom_options.metadata.when", {"custom_options": {"metadata": {"when": {1, 2}}}}),
    ("response_format.schema.default", {"response_format": {"schema": {"default": b""}}}),
    ("temperature", {"temperature": float("nan")}),
    ("top_p", {"top_p": float("inf")}),
    ("max_output_tokens", {"max_output_tokens": 10**5000}),
    ("stop_sequences[1]", {"stop_sequences": ["a", "\ud800"]}),
    ("variables.a", {"variables": {"a": "\ud800"}}),
    ("user_id", {"user_id": "\ud800"}),
    ("tags[0]", {"tags": ["\ud800"]}),
    ("model", {"model": "gpt-\ud800"}),
    ("reasoning_effort", {"reasoning_effort": "\ud800"}),
]  # fmt: skip


@each(("argument", "changes"), REFUSED)
def test_what_cannot_be_sent_is_refused_with_its_path(argument: str, changes: dict[str, Any]) -> None:
    error = refusal(**changes)

    assert error.argument == argument
    assert str(error).startswith(f"{argument}: ")


# Values that are almost plain.


class Effort(enum.StrEnum):
    HIGH = "high"


class Score(float):
    pass


def test_subclasses_of_str_and_numbers_arrive_as_plain_ones() -> None:
    safe = mark_safe
    given: dict[str, Any] = {
        "model": safe("gpt-4o"),
        "messages": deque(
            [
                {safe("role"): safe("user"), "content": safe("Hello {{name}}")},
                {"role": "user", "content": (MappingProxyType({"type": safe("text"), "text": safe("é")}),)},
                {"role": "tool", "content": safe("5"), "tool_call_id": safe("c"), "name": safe("f")},
            ]
        ),
        "variables": MappingProxyType({"name": safe("Ann")}),
        "tools": ({"name": safe("f"), "parameters": MappingProxyType({"enum": (safe("a"), Effort.HIGH)})},),
        "tool_choice": {"tool": safe("f")},
        "temperature": Score(0.5),
        "reasoning_effort": Effort.HIGH,
        "stop_sequences": (safe("END"),),
        "custom_options": {"seed": True, "logit_bias": {"50": Score(1.5)}},
        "tags": [safe("t")],
        "user_id": safe("u"),
        "session_id": safe("s"),
    }

    assert build(**given) == RunRequest(
        provider="openai",
        model="gpt-4o",
        messages=[Message("user", "Hello Ann"), Message("user", [TextPart("é")]), Message("tool", "5", "c", "f")],
        stream=False,
        tools=[Tool("f", parameters={"enum": ["a", "high"]})],
        tool_choice={"tool": "f"},
        temperature=0.5,
        reasoning_effort="high",
        stop_sequences=["END"],
        custom_options={"seed": True, "logit_bias": {"50": 1.5}},
        tags=["t"],
        user_id="u",
        session_id="s",
        trace_id="tr_0123456789abcdef",
    )


def test_options_are_plain_too() -> None:
    options = build_options(
        {
            "model": "gpt-4o",
            "messages": HELLO,
            "span_id": mark_safe("sp_0123456789abcdef"),
            "provider_api_key": mark_safe("sk-1"),
            "priority": mark_safe("batch"),
            "on_abort": mark_safe("drain"),
        }
    )

    assert {
        type(value) for value in (options.span_id, options.provider_api_key, options.priority, options.on_abort)
    } == {str}


def embedding(**changes: Any) -> RunRequest:
    arguments = cast("EmbeddingArguments", {"model": "text-embedding-3-small", "input": "x"} | changes)
    request = build_embedding_request(arguments, trace_id="tr_0123456789abcdef", providers=["openai"])
    return decode_request(encode_request(request))


def test_texts_to_embed_arrive_as_plain_ones() -> None:
    assert embedding(input=mark_safe("x")).inputs == ["x"]
    assert embedding(input=(mark_safe("x"), "y")).inputs == ["x", "y"]


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("input", {"input": "\ud800"}),
        ("input[1]", {"input": ["x", "\ud800"]}),
        ("input[1]", {"input": ["x", 5]}),
        ("custom_options.user[0]", {"custom_options": {"user": [b""]}}),
        ("dimensions", {"dimensions": float("nan")}),
    ],
)
def test_what_cannot_be_embedded_is_refused_with_its_path(argument: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        embedding(**changes)
    assert caught.value.argument == argument


# Paths as the caller gave them.


@pytest.mark.parametrize(
    ("read", "given"),
    [
        ("messages[1].content[1].cache_control", "messages[1].tool_calls[0].cache_control"),
        ("messages[1].content[2].function.colour", "messages[1].tool_calls[1].function.colour"),
        ("messages[1].content[2].arguments", "messages[1].tool_calls[1].function.arguments"),
        ("messages[1].content[0]", "messages[1].content[0]"),
        ("messages[0].content[0].detail", "messages[0].content[0].image_url.detail"),
        ("messages[0].content[0].colour", "messages[0].content[0].colour"),
        ("tools[0].parameters.properties.x", "tools[0].function.input_schema.properties.x"),
        ("tools[0].name", "tools[0].function.name"),
        ("tools[0].cache_control", "tools[0].cache_control"),
        ("tools[1].type", "tools[1].google_search"),
        ("tools[1].colour", "tools[1].google_search.colour"),
        ("tools[10].type", "tools[10].type"),
        ("temperature", "temperature"),
    ],
)
def test_a_worker_s_refusal_names_the_place_as_the_caller_gave_it(read: str, given: str) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "high"}}
    calls = [{"id": id_, "function": {"name": "f", "arguments": "{}"}} for id_ in ("a", "b")]
    original_paths: dict[str, str] = {}

    build_request(
        {
            "model": "gpt-4o",
            "messages": [
                {"role": "user", "content": [image]},
                {"role": "assistant", "content": "So:", "tool_calls": calls},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "input_schema": SCHEMA}}, {"google_search": {}}],
        },
        stream=False,
        trace_id="tr_0123456789abcdef",
        providers=["openai"],
        original_paths=original_paths,
    )

    assert original_path(read, original_paths) == given
