"""Short lines, records and texts become rows."""

from __future__ import annotations

from typing import Any

import msgspec
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import Message
from headrace.batch.row import BadRow, Row
from headrace.batch.row_estimate import input_tokens_of
from headrace.batch.rows.prompt_template import PromptTemplate
from headrace.batch.rows.row_options import RowOptions, RowProvider
from headrace.batch.rows.row_reader import RowReader
from headrace.errors import InvalidRequestError
from tests.cases import each

HELLO = [{"role": "user", "content": "Hello"}]


def read(given_line: dict[str, Any], **options: Any) -> Row:
    row = RowReader(RowOptions(model="gpt-4o", **options)).read_mapping(1, given_line)
    assert isinstance(row, Row), row
    return row


def refused(given_line: Any, **options: Any) -> BadRow:
    reader = RowReader(RowOptions(**({"model": "gpt-4o"} | options)))
    row = reader.read_line(1, msgspec.json.encode(given_line))
    assert isinstance(row, BadRow), row
    return row


# Short lines.


def test_a_short_line_has_the_arguments_of_a_run() -> None:
    row = read({"id": "a", "messages": HELLO, "temperature": 0.5, "tags": ["x"], "max_output_tokens": None})

    assert (row.id, row.kind, row.form) == ("a", "chat", "short")
    assert row.arguments == {"model": "gpt-4o", "messages": HELLO, "temperature": 0.5, "tags": ["x"]}


def test_a_prompt_is_one_message_of_the_user() -> None:
    assert read({"prompt": "Hello"}).arguments["messages"] == "Hello"


def test_a_line_with_input_embeds() -> None:
    row = read({"input": ["a", "b"], "dimensions": 8, "model": "text-embedding-3-small"})

    assert row.kind == "embeddings"
    assert row.arguments == {"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 8}


def test_objects_of_headrace_are_taken_from_python() -> None:
    row = read({"messages": [Message("user", "Hello")]})

    assert row.arguments["messages"] == [Message("user", "Hello")]


@each(
    ("given_id", "read_id"),
    [("a", "a"), (7, "7"), (0, "0"), (None, "row-1"), ("", "row-1"), ("世界", "世界")],
)
def test_an_id_is_a_text_or_a_number_else_made_of_the_line(given_id: Any, read_id: str) -> None:
    assert read({"id": given_id, "prompt": "x"}).id == read_id


def test_the_id_may_be_a_custom_id() -> None:
    assert read({"custom_id": "c", "prompt": "x"}).id == "c"


@each(
    ("line", "argument", "advice"),
    [
        ({"prompt": "x", "max_tokens": 5}, "max_tokens", "max_output_tokens"),
        ({"prompt": "x", "temprature": 1}, "temprature", "temperature"),
        ({"prompt": "x", "stream": False}, "stream", "whole answers"),
        ({"prompt": "x", "provider_api_key": "sk-1"}, "provider_api_key", "OPENAI_API_KEY"),
        ({"input": "x", "temperature": 1}, "temperature", "custom_options"),
        ({"prompt": "x", "body": {}}, "body", "custom_id"),
        ({"prompt": "x", "messages": HELLO}, None, "messages and prompt"),
        ({"id": "a"}, None, "nothing to run"),
        ({"prompt": 5}, "prompt", "takes a text that is not empty"),
        ({"prompt": ""}, "prompt", "takes a text that is not empty"),
        ({"messages": {"role": "user", "content": "x"}}, "messages", "or a non-empty list of messages"),
        ({"messages": []}, "messages", "takes a text"),
        ({"input": [], "model": "text-embedding-3-small"}, "input", "or a non-empty list of texts"),
        ({"id": 1.5, "prompt": "x"}, "id", "whole number"),
        ({"id": [], "prompt": "x"}, "id", "whole number"),
    ],
)
def test_a_wrong_key_is_named_with_advice(line: dict[str, Any], argument: str | None, advice: str) -> None:
    bad = refused(line)

    assert bad.argument == argument
    assert advice in bad.problem
    assert "sk-1" not in bad.problem


def test_a_row_may_name_its_own_provider_and_the_options_go_first() -> None:
    providers = {"one": RowProvider("http://1", "openai-chat"), "two": RowProvider("http://2", "openai-chat")}
    line = {"prompt": "x", "model": "m", "provider": "one"}

    assert read(line, providers=providers).arguments["provider"] == "one"
    assert read(line, providers=providers, provider="two").arguments["provider"] == "two"
    assert refused(line | {"provider": "three"}, providers=providers).argument == "provider"


# What completes rows.


def test_arguments_of_all_rows_are_taken_where_a_row_has_none() -> None:
    shared = {"temperature": 0.1, "custom_options": {"a": 1, "b": 1}}
    row = read({"prompt": "x", "custom_options": {"b": 2}}, arguments=shared)

    assert row.arguments["temperature"] == 0.1
    assert row.arguments["custom_options"] == {"a": 1, "b": 2}
    assert read({"prompt": "x", "temperature": 0.9}, arguments=shared).arguments["temperature"] == 0.9
    assert "temperature" not in read({"input": "x"}, arguments=shared).arguments
    assert shared == {"temperature": 0.1, "custom_options": {"a": 1, "b": 1}}


def test_a_system_message_is_added_where_there_is_none() -> None:
    own = [{"role": "developer", "content": "Mine"}, *HELLO]

    assert read({"prompt": "x"}, system="Be {brief}").arguments["messages"] == [
        {"role": "system", "content": "Be {brief}"},
        {"role": "user", "content": "x"},
    ]
    assert read({"messages": HELLO}, system="S").arguments["messages"] == [{"role": "system", "content": "S"}, *HELLO]
    assert read({"messages": own}, system="S").arguments["messages"] == own
    assert read({"input": "x"}, system="S").arguments["input"] == "x"


@each(
    ("options", "argument"),
    [
        ({"prompt": "{a}", "embed": "a"}, "embed"),
        ({"embed": "a", "system": "S"}, "system"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": "{a"}, "prompt"),
        ({"prompt": "{}"}, "prompt"),
        ({"prompt": "a}"}, "prompt"),
        ({"model": ""}, "model"),
        ({"arguments": {"max_tokens": 5}}, "max_tokens"),
        ({"arguments": {"messages": []}}, "messages"),
        ({"provider": "x", "providers": {"y": RowProvider("http://y")}}, "provider"),
    ],
)
def test_wrong_options_are_told_before_a_row_is_read(options: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        RowReader(RowOptions(**options))

    assert caught.value.argument == argument


# Templates.


@pytest.mark.parametrize("value", [None, float("nan"), pandas.NA, pandas.NaT])
def test_a_value_that_is_missing_is_not_put_into_a_prompt(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="text: has no value here"):
        PromptTemplate("{text}").fill({"text": value})


def test_a_template_is_filled_from_a_record() -> None:
    record = {"text": "a {b}", "n n": 7, "list": [1, "é"], "yes": True}

    assert PromptTemplate("T: {text}, {n n}, {list}, {yes} {{x}}").fill(record) == 'T: a {b}, 7, [1,"é"], true {x}'


@given(
    st.text(), st.text(st.characters(exclude_characters="{} \t\n\r"), min_size=1).map(str.strip).filter(bool), st.text()
)
def test_a_text_is_in_the_prompt_as_it_is(before: str, column: str, value: str) -> None:
    template = PromptTemplate(before.replace("{", "{{").replace("}", "}}") + "{" + column + "}")

    assert template.columns == (column,)
    assert template.fill({column: value}) == before + value


def test_a_record_with_a_prompt_is_a_row_with_the_id_of_its_column() -> None:
    row = read({"id": 7, "text": "x", "temperature": "warm"}, prompt="S: {text}")

    assert (row.id, row.form, row.arguments) == ("7", "table", {"model": "gpt-4o", "messages": "S: x"})


def test_a_column_can_be_embedded() -> None:
    row = read({"text": "x"}, embed="text")

    assert (row.kind, row.arguments) == ("embeddings", {"model": "gpt-4o", "input": "x"})


def test_a_column_that_the_first_record_lacks_is_an_error_of_the_template() -> None:
    reader = RowReader(RowOptions(model="gpt-4o", prompt="{txt}"))
    with pytest.raises(InvalidRequestError, match="'txt', which is not there; there are: 'id', 'text'") as caught:
        reader.read_record(1, {"id": 1, "text": "x"})

    assert caught.value.argument == "prompt"


def test_a_column_that_a_later_record_lacks_is_a_bad_row() -> None:
    reader = RowReader(RowOptions(model="gpt-4o", prompt="{text}"))
    assert isinstance(reader.read_record(1, {"text": "x"}), Row)

    for record in ({"id": 5, "other": 1}, {"id": 5, "text": None}, {"id": 5, "text": b"x"}):
        bad = reader.read_record(2, record)
        assert isinstance(bad, BadRow)
        assert (bad.id, bad.argument) == ("5", "text")


def test_a_text_is_a_prompt_itself_or_the_column_text() -> None:
    plain = RowReader(RowOptions(model="gpt-4o")).read_text(3, "Hello {x}")
    filled = RowReader(RowOptions(model="gpt-4o", prompt="Say: {text}")).read_text(3, "Hello {x}")

    assert isinstance(plain, Row)
    assert isinstance(filled, Row)
    assert (plain.id, plain.arguments["messages"]) == ("row-3", "Hello {x}")
    assert filled.arguments["messages"] == "Say: Hello {x}"


# Hashes.


@each(
    "change",
    [
        {"messages": "other"},
        {"temperature": 0.6},
        {"seed": 1},
        {"model": "gpt-4o-mini"},
        {"custom_options": {"a": 1}},
        {"fallbacks": ["gpt-4o-mini"]},
        {"response_format": {"type": "object"}},
    ],
)
def test_what_shapes_an_answer_changes_the_hash(change: dict[str, Any]) -> None:
    line = {"messages": "x", "temperature": 0.5}

    assert read(line).hash != read(line | change).hash


@each("change", [{"id": "b"}, {"tags": ["x"]}, {"timeout_ms": 5}, {"max_retries": 1}, {"user_id": "u"}])
def test_what_does_not_shape_an_answer_leaves_the_hash(change: dict[str, Any]) -> None:
    assert read({"prompt": "x"}).hash == read({"prompt": "x"} | change).hash


def test_the_hash_knows_the_template_the_system_message_the_provider_and_its_address() -> None:
    def hash_of(url: str = "http://1", **options: Any) -> bytes:
        providers = {"openai": RowProvider(url, "openai-chat"), "other": RowProvider(url, "openai-chat")}
        return read({"text": "x"}, **{"providers": providers, "prompt": "{text}"} | options).hash

    found = [
        hash_of(),
        hash_of("http://2"),
        hash_of(prompt="{text}!"),
        hash_of(system="S"),
        hash_of(provider="other"),
        hash_of(arguments={"seed": 1}),
    ]
    assert len(set(found)) == len(found)
    assert {len(each_hash) for each_hash in found} == {16}


def test_equal_requests_have_equal_hashes_wherever_their_parts_were_written() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}}
    turned = {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "type": "object"}
    line = {
        "custom_id": "z",
        "url": "/v1/chat/completions",
        "body": {"messages": HELLO, "model": "gpt-4o", "response_format": turned},
    }

    assert (
        read({"messages": HELLO}, arguments={"response_format": schema}).hash
        == read({"messages": HELLO, "response_format": turned}).hash
        == read(line).hash
    )


def test_what_cannot_be_sent_is_a_bad_row() -> None:
    reader = RowReader(RowOptions(model="gpt-4o"))
    for value in ("\ud800", object(), {"a": object()}):
        assert isinstance(reader.read_mapping(1, {"messages": value}), BadRow)


# Estimates.


def test_the_tokens_of_a_row_are_estimated_by_its_bytes() -> None:
    media = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}

    assert input_tokens_of(read({"prompt": "x" * 400})) == 100
    assert 100 < input_tokens_of(read({"messages": [{"role": "user", "content": "x" * 400}]})) < 120
    assert 1000 < input_tokens_of(read({"messages": [{"role": "user", "content": ["x" * 400, media]}]})) < 1200
    assert input_tokens_of(read({"input": ["x" * 40] * 10})) >= 100
