"""Lines of OpenAI's Batch API become rows: what the provider is sent is what the line says."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from headrace.arguments.checked_request import build_embedding_request, build_request, check_names
from headrace.arguments.run_arguments import EmbeddingArguments, RunArguments
from headrace.batch.row import BadRow, Row
from headrace.batch.rows.row_options import RowOptions, RowProvider
from headrace.batch.rows.row_reader import RowReader
from headrace.settings.provider_table import BUILT_IN
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.wire_format import ProviderSettings
from tests.cases import each

PROVIDERS = {name: RowProvider(url, api) for name, (api, url, _) in BUILT_IN.items()}
READER = RowReader(RowOptions(providers=PROVIDERS))
HELLO = [{"role": "user", "content": "Hello"}]


def line(body: Any, url: str = "/v1/chat/completions", **others: Any) -> bytes:
    return msgspec.json.encode({"custom_id": "r1", "method": "POST", "url": url, "body": body} | others)


def row_of(body: Any, url: str = "/v1/chat/completions", reader: RowReader = READER) -> Row:
    row = reader.read_line(1, line(body, url))
    assert isinstance(row, Row), row
    return row


def problem_of(given: bytes, reader: RowReader = READER) -> tuple[str | None, str]:
    bad = reader.read_line(1, given)
    assert isinstance(bad, BadRow), bad
    return bad.argument, bad.problem


def as_sent(row: Row, api: str = "openai-chat", host: str = "api.openai.com") -> dict[str, Any]:
    """Return the body that a worker sends for a row, with the checks of the client before it.

    Of Azure it is not known which of its models takes what: there nothing is refused.
    """
    arguments: Any = row.arguments
    check_names(arguments, EmbeddingArguments if row.kind == "embeddings" else RunArguments)
    build: Any = build_embedding_request if row.kind == "embeddings" else build_request
    stream = {} if row.kind == "embeddings" else {"stream": False}
    request = build(arguments, **stream, trace_id="tr_0123456789abcdef", providers=list(PROVIDERS))
    settings = ProviderSettings(name="azure", api=api, base_url=f"https://{host}/v1")
    return dict(msgspec.json.decode(WIRE_FORMATS[api].api.build_request(request, settings, "k").body))


# Chat Completions.

NUMBERS = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "frequency_penalty": st.floats(-2, 2),
    "presence_penalty": st.floats(-2, 2),
    "seed": st.integers(-(2**31), 2**31),
    "max_completion_tokens": st.integers(1, 9999),
}
OWN_KEYS = {
    "logit_bias": st.dictionaries(st.sampled_from(["1", "22"]), st.integers(-100, 100)),
    "prompt_cache_key": st.text(max_size=5),
    "safety_identifier": st.text(max_size=5),
    "store": st.booleans(),
    "user": st.text(max_size=5),
    "web_search_options": st.just({"search_context_size": "low"}),
    "guided_json": st.just({"type": "object"}),
    "x-unknown": st.recursive(
        st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=3), st.lists, max_leaves=3
    ),
}
CHAT_BODIES = st.fixed_dictionaries(
    {"model": st.just("gpt-4o"), "messages": st.just(HELLO)},
    optional={
        **{key: st.none() | values for key, values in NUMBERS.items()},
        **OWN_KEYS,
        "stop": st.none() | st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=4),
        "metadata": st.dictionaries(st.text("ab", min_size=1, max_size=4), st.text(max_size=4), min_size=1, max_size=3),
        "service_tier": st.sampled_from(["auto", "flex"]),
        "response_format": st.just({"type": "json_object"}),
        "verbosity": st.sampled_from(["low", "high"]),
    },
)


@given(CHAT_BODIES)
def test_each_key_of_a_chat_row_is_sent_as_it_is(body: dict[str, Any]) -> None:
    assert as_sent(row_of(body)) == {key: value for key, value in body.items() if value is not None}


@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=4) | st.lists(st.integers())))
def test_no_key_of_a_body_vanishes(others: dict[str, Any]) -> None:
    body = {"model": "gpt-4o", "messages": HELLO} | others
    row = READER.read_line(1, line(body))
    if isinstance(row, Row):
        kept = str(row.arguments)
        for key, value in others.items():
            if value is not None and value not in ([], {}, False, 1):
                assert repr(value).strip("[]'\"") in kept or key in {"stop", "tools"}


def test_keys_of_openai_that_are_named_otherwise_here_are_mapped() -> None:
    row = row_of({"model": "gpt-4o", "messages": HELLO, "max_tokens": 7, "stop": "END", "n": 1, "stream": False})

    assert row.arguments == {
        "model": "gpt-4o",
        "messages": HELLO,
        "max_output_tokens": 7,
        "stop_sequences": ["END"],
    }


def test_the_user_is_kept_with_the_span_and_sent_only_where_it_is_known() -> None:
    openai = row_of({"model": "gpt-4o", "messages": HELLO, "user": "u1"})
    anthropic = row_of({"model": "claude-sonnet-5", "messages": HELLO, "user": "u1"})

    assert (openai.arguments["user_id"], openai.arguments["custom_options"]) == ("u1", {"user": "u1"})
    assert anthropic.arguments["user_id"] == "u1"
    assert "custom_options" not in anthropic.arguments


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@each(
    ("choice", "read"),
    [
        ("auto", "auto"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "f"}}, {"tool": "f"}),
    ],
)
def test_a_choice_of_tools_is_sent_as_it_was_written(choice: Any, read: Any) -> None:
    body = {
        "model": "gpt-4o",
        "messages": HELLO,
        "tools": [TOOL],
        "tool_choice": choice,
        "parallel_tool_calls": False,
    }
    row = row_of(body)

    assert row.arguments["tool_choice"] == read
    assert as_sent(row) == body


def test_a_choice_without_a_form_here_is_passed_on() -> None:
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]}}
    body = {"model": "gpt-4o", "messages": HELLO, "tools": [TOOL], "tool_choice": allowed}

    assert as_sent(row_of(body)) == body


def test_without_tools_there_is_nothing_to_choose() -> None:
    row = row_of(
        {"model": "gpt-4o", "messages": HELLO, "tools": [], "tool_choice": "none", "parallel_tool_calls": True}
    )

    assert row.arguments == {"model": "gpt-4o", "messages": HELLO}


@each(
    ("body", "argument"),
    [
        ({"model": "gpt-4o", "messages": HELLO, "n": 2}, "body.n"),
        ({"model": "gpt-4o", "messages": HELLO, "stream": True}, "body.stream"),
        (
            {"model": "gpt-4o", "messages": HELLO, "max_tokens": 1, "max_completion_tokens": 2},
            "body.max_completion_tokens",
        ),
        ({"model": "gpt-4o", "messages": []}, "body.messages"),
        ({"model": "gpt-4o"}, "body.messages"),
        ({"model": "gpt-4o", "messages": "Hello"}, "body.messages"),
        ({"messages": HELLO}, "model"),
        ({"model": 7, "messages": HELLO}, "model"),
        ({"model": ["gpt-4o"], "messages": HELLO}, "model"),
        ({"model": "llama-3", "messages": HELLO}, "model"),
        ([], "body"),
        (None, "body"),
    ],
)
def test_a_body_that_cannot_be_run_is_a_bad_row_that_names_the_place(body: Any, argument: str) -> None:
    assert problem_of(line(body))[0] == argument


@each(
    ("others", "argument"),
    [
        ({"url": "/v1/completions"}, "url"),
        ({"url": 7}, "url"),
        ({"method": "GET"}, "method"),
        ({"temperature": 0.5}, "temperature"),
        ({"custom_id": ""}, "custom_id"),
        ({"custom_id": None}, "custom_id"),
        ({"custom_id": True}, "custom_id"),
        ({"custom_id": "x" * 2000}, "custom_id"),
    ],
)
def test_a_line_that_is_no_batch_line_is_a_bad_row(others: dict[str, Any], argument: str) -> None:
    assert problem_of(line({"model": "gpt-4o", "messages": HELLO}, **others))[0] == argument


@each("url", ["/v1/chat/completions", "/chat/completions", "chat/completions", "v1/chat/completions"])
def test_the_version_in_the_url_may_be_left_out(url: str) -> None:
    assert row_of({"model": "gpt-4o", "messages": HELLO}, url).kind == "chat"


@each(
    "torn",
    [b"{", b"", b"null", b"7", b"[]", b'"x"', b'{"custom_id": "a", "body"', b'{"a": "\xff"}', b"[" * 100_000, b"\x00"],
)
def test_a_torn_line_is_a_bad_row_with_its_number(torn: bytes) -> None:
    bad = READER.read_line(17, torn)

    assert isinstance(bad, BadRow)
    assert (bad.number, bad.id) == (17, "line-17")


@given(st.binary(max_size=60))
def test_no_bytes_are_anything_but_a_row_or_a_bad_row(data: bytes) -> None:
    assert isinstance(READER.read_line(1, data), Row | BadRow)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["custom_id", "body", "url", "model", "messages", "input", "tools", "id", "prompt", "text"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_is_anything_but_a_row_or_a_bad_row(value: Any) -> None:
    assert isinstance(READER.read_line(1, msgspec.json.encode(value)), Row | BadRow)
    if isinstance(value, dict):
        for url in ("/v1/chat/completions", "/v1/responses", "/v1/embeddings"):
            assert isinstance(READER.read_line(1, line(value, url)), Row | BadRow)


def test_the_id_of_a_bad_row_is_its_own_where_it_can_be_read() -> None:
    bad = READER.read_line(3, line({"model": "gpt-4o"}))

    assert isinstance(bad, BadRow)
    assert (bad.id, bad.form) == ("r1", "openai")


# Models and providers.


def test_a_model_is_the_line_s_own_else_that_of_the_options() -> None:
    reader = RowReader(RowOptions(model="gpt-4o-mini", providers=PROVIDERS))

    assert row_of({"messages": HELLO}, reader=reader).arguments["model"] == "gpt-4o-mini"
    assert row_of({"model": "gpt-4o", "messages": HELLO}, reader=reader).arguments["model"] == "gpt-4o"


def test_a_provider_of_the_options_has_all_models() -> None:
    local = {"local": RowProvider("http://127.0.0.1:8000/v1", "openai-chat")}
    reader = RowReader(RowOptions(provider="local", providers=local))
    row = row_of({"model": "llama-3", "messages": HELLO}, reader=reader)

    assert row.arguments == {"model": "llama-3", "messages": HELLO, "provider": "local"}


# Responses.


@each(
    ("model", "arguments"),
    [
        ("gpt-4o", {"model": "gpt-4o", "provider": "openai-responses"}),
        ("openai/gpt-4o", {"model": "gpt-4o", "provider": "openai-responses"}),
        ("openai-responses/gpt-4o", {"model": "openai-responses/gpt-4o"}),
        ("claude-sonnet-5", {"model": "claude-sonnet-5"}),
    ],
)
def test_a_responses_row_reaches_the_responses_api_of_openai(model: str, arguments: dict[str, Any]) -> None:
    row = row_of({"model": model, "input": "Hello"}, "/v1/responses")

    assert row.arguments == arguments | {"messages": [{"role": "user", "content": "Hello"}]}


def test_a_provider_at_another_address_keeps_its_responses_rows() -> None:
    own = PROVIDERS | {"openai": RowProvider("https://gateway.example/v1", "openai")}
    reader = RowReader(RowOptions(providers=own))

    assert row_of({"model": "gpt-4o", "input": "Hello"}, "/v1/responses", reader).arguments["model"] == "gpt-4o"


RESPONSES_BODIES = st.fixed_dictionaries(
    {"model": st.just("gpt-4o"), "input": st.just([{"type": "message", "role": "user", "content": "Hello"}])},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "max_output_tokens": st.integers(16, 999),
        "text": st.sampled_from(
            [{"format": {"type": "json_object"}}, {"verbosity": "low"}, {"format": {"type": "text"}}]
        ),
        "reasoning": st.sampled_from([{"effort": "low", "summary": "detailed"}, {"context": "auto"}]),
        "metadata": st.just({"a": "b"}),
        "include": st.just(["file_search_call.results"]),
        "previous_response_id": st.text(max_size=4),
        "truncation": st.sampled_from(["auto", "disabled"]),
        "store": st.booleans(),
        "max_tool_calls": st.integers(1, 5),
        "prompt_cache_key": st.text(max_size=4),
        "user": st.text(max_size=4),
        "tools": st.just([{"type": "web_search"}]),
        "x-unknown": st.integers(-(2**63), 2**64 - 1) | st.lists(st.text(max_size=2)),
    },
)


@given(RESPONSES_BODIES)
def test_each_key_of_a_responses_row_is_sent_as_it_is(body: dict[str, Any]) -> None:
    sent = as_sent(row_of(body, "/v1/responses"), "openai-responses")
    sent.setdefault("include", [])
    for key, value in body.items():
        if key == "include":
            assert set(value) <= set(sent["include"])
        elif key == "reasoning":
            assert sent[key] == {"summary": "auto"} | value if "effort" in value else sent[key] == value
        else:
            assert sent[key] == value, key
    assert sent.keys() - body.keys() <= {"store", "include"}


CONVERSATION = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}], "encrypted_content": "e"},
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Let me look.", "annotations": []}],
    },
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Bern"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
    {"role": "assistant", "content": "It rains."},
    {"role": "user", "content": "Thanks"},
]


def test_a_conversation_of_items_reaches_openai_as_it_is() -> None:
    body = {"model": "gpt-5", "input": CONVERSATION, "instructions": "You are a clerk."}
    sent = as_sent(row_of(body, "/v1/responses"), "openai-responses")["input"]

    assert sent[0] == {"type": "message", "role": "system", "content": "You are a clerk."}
    assert sent[3:6] == CONVERSATION[2:5]
    assert sent[6] == CONVERSATION[5]
    assert [item.get("content") for item in sent[7:]] == ["It rains.", "Thanks"]


def test_a_conversation_of_items_reaches_other_providers_in_their_form() -> None:
    row = row_of({"model": "claude-sonnet-5", "input": CONVERSATION, "max_output_tokens": 50}, "/v1/responses")
    sent = as_sent(row, "anthropic")

    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert sent["messages"][1]["content"][-1] == {
        "type": "tool_use",
        "id": "call_1",
        "name": "weather",
        "input": {"city": "Bern"},
    }
    assert sent["max_tokens"] == 50


@each(
    ("item", "argument"),
    [
        ({"type": "item_reference", "id": "x"}, "body.input[0]"),
        ({"type": 7}, "body.input[0].type"),
        ("Hello", "body.input[0]"),
        ({"content": "Hello"}, "body.input[0]"),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{"}, "body.input[0].arguments"),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": 7}, "body.input[0].arguments"),
        ({"type": "function_call_output", "output": "x"}, "body.input[0].call_id"),
        ({"role": "assistant", "content": [{"type": "output_image"}]}, "body.input[0].content"),
    ],
)
def test_an_item_that_cannot_be_read_is_named(item: Any, argument: str) -> None:
    assert problem_of(line({"model": "gpt-4o", "input": [item]}, "/v1/responses"))[0] == argument


@each(
    ("body", "argument"),
    [
        ({"input": ""}, "body.input"),
        ({"input": []}, "body.input"),
        ({}, "body.input"),
        ({"input": "x", "instructions": 7}, "body.instructions"),
        ({"input": "x", "background": True}, "body.background"),
        ({"input": "x", "stream": True}, "body.stream"),
    ],
)
def test_a_responses_body_that_cannot_be_run_is_a_bad_row(body: dict[str, Any], argument: str) -> None:
    assert problem_of(line({"model": "gpt-4o"} | body, "/v1/responses"))[0] == argument


def test_log_probabilities_of_a_responses_row_are_asked_for() -> None:
    body = {"model": "gpt-4o", "input": "x", "include": ["message.output_text.logprobs"], "top_logprobs": 0}
    row = row_of(body, "/v1/responses")

    assert row.arguments["logprobs"] is True
    assert "top_logprobs" not in row.arguments
    assert "custom_options" not in row.arguments


def test_a_choice_of_a_responses_row_is_sent_as_it_was_written() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True}
    body = {"model": "gpt-4o", "input": "x", "tools": [tool], "tool_choice": {"type": "function", "name": "f"}}
    sent = as_sent(row_of(body, "/v1/responses"), "openai-responses")

    assert (sent["tools"], sent["tool_choice"]) == (body["tools"], body["tool_choice"])


# Embeddings.


def test_an_embeddings_row_is_a_run_embedding() -> None:
    body = {
        "model": "text-embedding-3-small",
        "input": ["a", "b"],
        "dimensions": 8,
        "encoding_format": "float",
        "user": "u",
    }
    row = row_of(body, "/v1/embeddings")

    assert row.kind == "embeddings"
    assert row.arguments == {
        "model": "text-embedding-3-small",
        "input": ["a", "b"],
        "dimensions": 8,
        "user_id": "u",
        "custom_options": {"user": "u"},
    }


@each(
    ("body", "argument"),
    [
        ({"input": [[1, 2]]}, "body.input"),
        ({"input": [1, 2]}, "body.input"),
        ({"input": ""}, "body.input"),
        ({"input": {"a": 1}}, "body.input"),
        ({}, "body.input"),
        ({"input": "x", "encoding_format": "int8"}, "body.encoding_format"),
    ],
)
def test_an_embeddings_body_that_cannot_be_run_is_a_bad_row(body: dict[str, Any], argument: str) -> None:
    assert problem_of(line({"model": "text-embedding-3-small"} | body, "/v1/embeddings"))[0] == argument
