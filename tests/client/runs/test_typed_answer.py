"""How an answer is read into its response_type: what fits, what does not, and answers that have no object."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import HeadraceError, OutputValidationError
from headrace.runs.typed_answer import TypedAnswer, with_parsed
from headrace.schemas.response_type import response_type_of
from headrace.types import Message, RunLocalResult, StreamResult, ToolCall, Usage
from tests.cases import each

SPAN = "sp_0123456789abcdef"
USAGE = Usage(5, 7, 12, source="provider")


class Line(msgspec.Struct):
    name: str
    price: float


class Invoice(msgspec.Struct):
    lines: list[Line]


FITS = '{"lines": [{"name": "Äpfel 🍏", "price": 1.5}]}'
PARSED = Invoice([Line("Äpfel 🍏", 1.5)])


def answered(text: str, *, aborted: bool | None = None, **fields: Any) -> RunLocalResult:
    facts: dict[str, Any] = {
        "text": text,
        "span_id": SPAN,
        "trace_id": "tr_0123456789abcdef",
        "latency_ms": 1.0,
        "usage": USAGE,
        "cost": None,
        "provider": "openai",
        "model": "gpt-4o",
        "tool_calls": [],
        "incomplete_tool_calls": [],
        "finish_reason": "stop",
        "provider_finish_reason": "stop",
        "message": Message("assistant", text),
        "reasoning": "",
        "refusal": None,
        "attempts": 1,
        **fields,
    }
    return RunLocalResult(**facts) if aborted is None else StreamResult(**facts, aborted=aborted)


def read(text: str, annotation: Any = Invoice, **fields: Any) -> RunLocalResult | OutputValidationError:
    return with_parsed(answered(text, **fields), response_type_of(annotation))


@each(
    "text",
    [
        FITS,
        f"\n  {FITS}\n",
        f"```json\n{FITS}\n```",
        f"```\n{FITS}```\n",
        f"\ufeff{FITS}",
        FITS.replace("Ä", "\\u00c4").replace("🍏", "\\ud83c\\udf4f"),
    ],
)
def test_an_answer_that_fits_is_parsed(text: str) -> None:
    result = read(text)

    assert isinstance(result, RunLocalResult)
    assert result.parsed == PARSED
    assert result.text == text


@each(
    ("text", "path", "words"),
    [
        ('{"lines": [{"name": "a", "price": "b"}]}', "$.lines[0].price", "Expected `float`, got `str`"),
        ('{"lines": [{"name": "a"}]}', "$.lines[0]", "missing required field `price`"),
        ("[]", "$", "the answer does not fit: Expected `object`, got `array`"),
        ("", "$", "the answer has no text"),
        ("```json\n```", "$", "the answer has no text"),
        (f"Here it is: {FITS}", "$", "is not JSON"),
        (f"{FITS} {FITS}", "$", "is not JSON"),
        (FITS[:-1], "$", "is not JSON"),
        ("NaN", "$", "is not JSON"),
        ('{"lines": "\\ud800"}', "$", "is not JSON"),
        ("[" * 100_000, "$", ""),
    ],
)
def test_an_answer_that_does_not_fit_is_an_error_with_text_path_and_usage(text: str, path: str, words: str) -> None:
    error = read(text)

    assert isinstance(error, OutputValidationError)
    assert (error.span_id, error.text, error.path, error.usage) == (SPAN, text, path, USAGE)
    assert words in error.reason
    assert error.reason in str(error) or "\n" in error.reason
    assert "\n" not in str(error)


@each(
    ("fields", "words"),
    [
        ({"refusal": "I cannot."}, "the model refused: I cannot."),
        ({"finish_reason": "max_tokens"}, "max_output_tokens cut the answer off after 7 tokens"),
        ({"finish_reason": "content_filter"}, "content filter stopped the answer"),
        ({"finish_reason": "error"}, "ended the answer with an error"),
    ],
)
def test_an_answer_that_is_not_whole_says_why(fields: dict[str, Any], words: str) -> None:
    error = read(FITS, **fields)

    assert isinstance(error, OutputValidationError)
    assert words in error.reason
    assert error.path == "$"


@each(
    "fields",
    [
        {"aborted": True},
        {"finish_reason": "tool_calls", "tool_calls": [ToolCall("1", "f", {})]},
        {"tool_calls": [ToolCall("1", "f", {})]},
    ],
)
def test_a_run_without_an_answer_has_nothing_parsed(fields: dict[str, Any]) -> None:
    result = read('{"lines": [{', **fields)

    assert isinstance(result, RunLocalResult)
    assert result.parsed is None


@each("problem", [KeyError(1), StopIteration(1), asyncio.CancelledError(1), RuntimeError(1)])
def test_a_validator_that_raises_anything_is_an_error_of_the_answer(problem: BaseException) -> None:
    class Touchy(pydantic.BaseModel):
        x: int

        @pydantic.field_validator("x")
        @classmethod
        def _fails(cls, _: int) -> int:
            raise problem

    error = read('{"x": 1}', Touchy)

    assert isinstance(error, OutputValidationError)
    assert f"a validator raised {type(problem).__name__}: 1" in error.reason
    assert error.__cause__ is problem


@each("problem", [KeyboardInterrupt(), SystemExit(1)])
def test_a_validator_may_end_the_program(problem: BaseException) -> None:
    class Ending(msgspec.Struct):
        x: int

        def __post_init__(self) -> None:
            raise problem

    with pytest.raises(type(problem)):
        read('{"x": 1}', Ending)


@given(st.text() | st.text(alphabet='{}[]":,`\\ud\n1 '))
def test_any_text_is_an_object_or_an_error_of_the_answer(text: str) -> None:
    found = read(text)

    assert isinstance(found, RunLocalResult | OutputValidationError)


def test_an_error_of_pydantic_is_the_cause() -> None:
    class Model(pydantic.BaseModel):
        x: int

    error = read('{"x": "y"}', Model)

    assert isinstance(error, OutputValidationError)
    assert error.path == "$.x"
    assert isinstance(error.__cause__, pydantic.ValidationError)


SCHEMA = {
    "type": "object",
    "properties": {"size": {"type": "integer", "minimum": 1}, "tags": {"type": "object"}},
    "required": ["size"],
}


def test_an_answer_to_a_json_schema_is_a_plain_value() -> None:
    result = read('{"size": 3, "tags": [{"key": "a", "value": "1"}]}', SCHEMA)

    assert isinstance(result, RunLocalResult)
    assert result.parsed == {"size": 3, "tags": {"a": 1}}


def test_an_answer_that_does_not_fit_a_json_schema_has_its_path() -> None:
    error = read('{"size": 0}', SCHEMA)

    assert isinstance(error, OutputValidationError)
    assert (error.path, error.reason) == ("$.size", "0 is less than the minimum of 1")


@each(
    ("schema", "argument", "words"),
    [
        ({"type": "objekt"}, "response_type.type", "is not valid under any"),
        ({"properties": {"a": {"pattern": "("}}}, "response_type.properties.a.pattern", "is not a 'regex'"),
        ({"type": "json_schema", "json_schema": {}}, "response_type", "OpenAI's form goes into response_format"),
        ({"$ref": "#/$defs/x"}, "response_type", "leads nowhere"),
        ({"type": "object", "not": {"$ref": "#"}}, "response_type", "refers to itself without end"),
    ],
)
def test_a_wrong_json_schema_is_refused(schema: dict[str, Any], argument: str, words: str) -> None:
    with pytest.raises(HeadraceError, match=words) as raised:
        response_type_of(schema)

    assert getattr(raised.value, "argument", None) == argument


def test_a_type_gives_its_name_to_the_schema() -> None:
    assert response_type_of(Invoice).response_format["json_schema"]["name"] == "Invoice"
    assert response_type_of(list[Invoice]).response_format["json_schema"]["name"] == "response"
    assert response_type_of({"title": "An order, ü"}).response_format["json_schema"]["name"] == "An_order"


def test_an_answer_is_read_once_for_all_threads() -> None:
    calls: list[int] = []

    class Counted(msgspec.Struct):
        x: int

        def __post_init__(self) -> None:
            calls.append(self.x)

    reader = TypedAnswer(response_type_of(Counted))
    result = answered('{"x": 1}')
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(reader.read(result))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert calls == [1]
    assert len({id(one) for one in found}) == 1
