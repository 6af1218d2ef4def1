"""Structured output through real processes: each wire format, each way of a client, and each ending of an answer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pydantic
import pytest

from headrace import Client, InvalidRequestError, OutputValidationError, RateLimitError
from headrace.testing import SimulatedProvider
from tests.cases import each
from tests.conftest import HELLO, simulate
from tests.e2e.provider_runs import MODELS, PROVIDERS, WAYS, last_body, run


class Line(pydantic.BaseModel):
    name: str
    price: float = pydantic.Field(ge=0)


class Invoice(pydantic.BaseModel):
    number: int
    lines: list[Line]


class Weather(msgspec.Struct):
    city: str
    sky: Literal["clear", "cloudy"]


@dataclass
class Point:
    x: int
    y: int


TOOL = {"name": "look", "parameters": {"type": "object", "properties": {}}}
INVOICE = '{"number": 7, "lines": [{"name": "Brötchen 🥐", "price": 0.5}]}'
THE_INVOICE = Invoice(number=7, lines=[Line(name="Brötchen 🥐", price=0.5)])


@pytest.mark.parametrize("name", PROVIDERS)
def test_an_answer_is_an_object_on_every_wire_format(client: Client, provider: SimulatedProvider, name: str) -> None:
    for way in WAYS:
        result = run(client, name, HELLO, way, {"text": INVOICE, "reasoning": "Hm."}, response_type=Invoice)

        assert result.parsed == THE_INVOICE
        assert result.text == INVOICE
    assert "lines" in str(last_body(provider))


@each(
    ("annotation", "text", "expected"),
    [
        (Weather, '{"city": "Rome", "sky": "clear"}', Weather("Rome", "clear")),
        (Point, '{"x": 1, "y": 2}', Point(1, 2)),
        (list[Point] | None, '{"value": [{"x": 1, "y": 2}]}', [Point(1, 2)]),
        (dict[str, Point], '{"value": [{"key": "a", "value": {"x": 1, "y": 2}}]}', {"a": Point(1, 2)}),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1}', {"a": 1}),
    ],
)
def test_any_type_that_json_can_hold_is_taken(client: Client, annotation: Any, text: str, expected: Any) -> None:
    assert run(client, "openai", HELLO, "sync", {"text": text}, response_type=annotation).parsed == expected


def test_an_answer_that_the_simulated_model_makes_up_fits(client: Client) -> None:
    result = client.run_local(model="gpt-4o", messages=HELLO, response_type=Weather)

    assert isinstance(result.parsed, Weather)


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_does_not_fit_raises_from_the_result(client: Client, way: str) -> None:
    text = '{"number": 7, "lines": [{"name": "a", "price": -1}]}'
    with pytest.raises(OutputValidationError) as raised:
        run(client, "openai", HELLO, way, {"text": text}, response_type=Invoice)

    assert raised.value.path == "$.lines[0].price"
    assert raised.value.text == text
    assert raised.value.usage is not None
    assert raised.value.usage.output_tokens > 0


def test_iterating_yields_the_text_of_an_answer_that_does_not_fit(client: Client) -> None:
    said = simulate(text="no JSON")
    with client.run_local(
        model="gpt-4o", messages=HELLO, response_type=Invoice, stream=True, custom_options=said
    ) as stream:
        assert "".join(stream) == "no JSON"
        error = stream.result.exception()
        assert isinstance(error, OutputValidationError)
        assert stream.result.exception() is error
        with pytest.raises(OutputValidationError, match="is not JSON"):
            stream.result.result()


@each(
    ("name", "script", "words"),
    [
        ("openai", {"text": "", "refusal": "I cannot."}, "the model refused: I cannot."),
        ("openai-responses", {"text": "", "refusal": "I cannot."}, "the model refused: I cannot."),
        ("openai", {"text": '{"number": 7, "li', "finish_reason": "length"}, "max_output_tokens cut the answer off"),
        ("anthropic", {"text": '{"number": 7, "li', "finish_reason": "max_tokens"}, "max_output_tokens cut"),
        ("google", {"text": '{"number": 7, "li', "finish_reason": "MAX_TOKENS"}, "max_output_tokens cut"),
        ("anthropic", {"text": "No.", "finish_reason": "refusal"}, "content filter stopped the answer: No."),
        ("google", {"text": "", "finish_reason": "SAFETY"}, "content filter stopped the answer"),
    ],
)
def test_an_answer_that_is_not_whole_says_why(client: Client, name: str, script: dict[str, Any], words: str) -> None:
    with pytest.raises(OutputValidationError, match=words):
        run(client, name, HELLO, "sync streamed", script, response_type=Invoice)


@pytest.mark.parametrize("name", ["openai", "google"])
def test_tools_are_called_before_the_answer(client: Client, name: str) -> None:
    calling = {"tool_calls": [{"name": "look"}]}
    first = run(client, name, HELLO, "sync", calling, tools=[TOOL], response_type=Invoice)

    assert first.parsed is None
    assert first.tool_calls[0].name == "look"

    seen = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "tool_name": "look", "content": "7"}
    second = run(
        client, name, [*HELLO, first.message, seen], "sync", {"text": INVOICE}, tools=[TOOL], response_type=Invoice
    )
    assert second.parsed == THE_INVOICE


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_answer_grows_on_every_wire_format(client: Client, name: str) -> None:
    chunks = ['{"number": 7, "li', 'nes": [{"na', 'me": "Bröt', 'chen", "price": 0.5}]}']
    said: dict[str, Any] = {
        "provider": name,
        "model": MODELS[name],
        "messages": HELLO,
        "custom_options": simulate(chunks=chunks),
    }
    stream = client.run_local(**said, response_type=Invoice, stream=True)
    values = list(stream.partials())

    assert values[-1] == {"number": 7, "lines": [{"name": "Brötchen", "price": 0.5}]}
    assert stream.result.result().parsed.lines[0].name == "Brötchen"

    async def grow() -> list[Any]:
        stream = await client.arun_local(**said, response_type=Invoice, stream=True)
        return [value async for value in stream.partials()]

    assert asyncio.run(grow())[-1] == values[-1]


def test_an_aborted_stream_has_no_object_and_no_error(client: Client) -> None:
    said = simulate(chunks=['{"number"', ": 7"], stall_after=1)
    stream = client.run_local(model="gpt-4o", messages=HELLO, response_type=Invoice, stream=True, custom_options=said)
    next(iter(stream))
    stream.abort()

    result = stream.result.result()

    assert result.aborted
    assert result.parsed is None


def test_the_error_of_a_failed_run_stays(client: Client) -> None:
    with pytest.raises(RateLimitError):
        run(client, "openai", HELLO, "sync streamed", {"status": 429}, response_type=Invoice)


def test_a_validator_runs_in_the_thread_that_asks(client: Client) -> None:
    threads: list[int] = []

    class Noting(msgspec.Struct):
        x: int

        def __post_init__(self) -> None:
            threads.append(threading.get_ident())

    said = simulate(text='{"x": 1}')
    stream = client.run_local(model="gpt-4o", messages=HELLO, response_type=Noting, stream=True, custom_options=said)
    concurrent.futures.wait([stream.result])
    assert threads == []
    stream.result.result()
    stream.result.result()

    asyncio.run(client.arun_local(model="gpt-4o", messages=HELLO, response_type=Noting, custom_options=said))
    assert threads == [threading.get_ident()] * 2


def test_a_result_of_a_stream_may_be_awaited_through_asyncio(client: Client) -> None:
    said = simulate(text=INVOICE)
    stream = client.run_local(model="gpt-4o", messages=HELLO, response_type=Invoice, stream=True, custom_options=said)

    async def wait() -> Invoice:
        return (await asyncio.wrap_future(stream.result)).parsed

    assert asyncio.run(wait()) == THE_INVOICE


class Unfit:
    """A class without a schema."""


@each(
    ("arguments", "argument", "words"),
    [
        ({"response_type": Unfit}, "response_type", "Unfit has no JSON schema"),
        ({"response_type": "Invoice"}, "response_type", "takes a type"),
        ({"response_type": {"type": "objekt"}}, "response_type.type", "is not a JSON schema"),
        ({"response_type": Invoice, "response_format": {"type": "object"}}, "response_type", "not both"),
        ({"response_typ": Invoice}, "response_typ", "response_type"),
    ],
)
def test_a_wrong_response_type_is_refused_before_anything_is_sent(
    client: Client, provider: SimulatedProvider, arguments: dict[str, Any], argument: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words) as raised:
        client.run_local(model="gpt-4o", messages=HELLO, **arguments)

    assert raised.value.argument == argument
    assert provider.requests() == []
