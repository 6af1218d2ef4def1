"""What ``stream.partials()`` promises: the answer as it grows, in the form of its type, and at a bounded cost."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.async_streams import AsyncLocalStream
from headrace.errors import InvalidRequestError, ProviderProtocolError, StreamConsumedError
from headrace.runs.partial_answer import PartialAnswer
from headrace.runs.typed_answer import TypedAnswer
from headrace.schemas.response_type import response_type_of
from headrace.streams import LocalStream
from headrace.types import ReasoningDelta, ToolCallDelta
from tests.client.runs.deliveries import SPAN, FakeRun


class Line(msgspec.Struct):
    name: str
    counts: dict[str, int]


class Order(msgspec.Struct):
    lines: list[Line]
    note: str = "none"


TEXT = '{"lines": [{"name": "Äpfel", "counts": [{"key": "a", "value": 1}]}], "note": null}'
WHOLE = {"lines": [{"name": "Äpfel", "counts": {"a": 1}}]}


def in_thread(run: FakeRun, annotation: Any, piece: Callable[[], bool]) -> list[Any]:
    """Return all partial values of a run. ``piece`` lets one further piece arrive, or ends the run."""
    stream = LocalStream[Any](run.delivery, TypedAnswer(response_type_of(annotation)))
    values = stream.partials()
    found = []
    while piece():
        found.append(next(values))
    return [*found, *values]


def in_task(run: FakeRun, annotation: Any, piece: Callable[[], bool]) -> list[Any]:
    async def read() -> list[Any]:
        stream = AsyncLocalStream[Any](run.delivery, TypedAnswer(response_type_of(annotation)))
        values = stream.partials()
        found = []
        while piece():
            found.append(await anext(values))
        return [*found, *[value async for value in values]]

    return asyncio.run(read())


either = pytest.mark.parametrize("partials", [in_thread, in_task])


def told(run: FakeRun, *pieces: str) -> Callable[[], bool]:
    """Let the pieces arrive one by one; the last one together with the end."""
    left = list(pieces)

    def piece() -> bool:
        run.says(left.pop(0))
        if not left:
            run.ends()
        return bool(left)

    return piece


@either
def test_the_answer_grows_and_the_last_value_is_whole(partials: Any) -> None:
    run = FakeRun()
    cuts = (0, 23, 40, 63, len(TEXT))
    pieces = [TEXT[start:end] for start, end in itertools.pairwise(cuts)]

    assert partials(run, Order, told(run, *pieces)) == [
        {"lines": [{"name": "Äp"}]},
        {"lines": [{"name": "Äpfel", "counts": {}}]},
        WHOLE,
    ]


@either
def test_pieces_that_change_nothing_give_no_value(partials: Any) -> None:
    run = FakeRun()
    run.says('{"value"', ": [", "1", " ", "]", "}")
    run.ends()

    assert partials(run, list[int], lambda: False) == [[1]]


@either
def test_other_events_and_fences_are_passed_over(partials: Any) -> None:
    run = FakeRun()
    run.says(ReasoningDelta("Hm."), "```json\n", ToolCallDelta(0, "1", "f", "{}"), '{"value": ["a', '"]}\n```')
    run.ends()

    assert partials(run, list[str], lambda: False) == [["a"]]


@either
def test_a_text_that_is_no_json_gives_no_value(partials: Any) -> None:
    run = FakeRun()
    run.says("Here", " it is")
    run.ends()

    assert partials(run, Order, lambda: False) == []


@either
def test_the_error_of_the_run_comes_after_what_has_arrived(partials: Any) -> None:
    run = FakeRun()
    found: list[Any] = []

    def piece() -> bool:
        if not found:
            run.says('{"value": [1')
            found.append(True)
            return True
        run.delivery.give_up(ProviderProtocolError(SPAN, "cut"))
        return False

    with pytest.raises(ProviderProtocolError):
        partials(run, list[int], piece)


def test_an_abort_ends_the_values() -> None:
    run = FakeRun()
    run.says('{"value": [1')
    stream = LocalStream[Any](run.delivery, TypedAnswer(response_type_of(list[int])))
    values = stream.partials()

    assert next(values) == [1]
    stream.abort()
    assert next(values, "ended") == "ended"


def test_a_stream_is_read_once() -> None:
    run = FakeRun()
    run.ends()
    stream = LocalStream[Any](run.delivery, TypedAnswer(response_type_of(Order)))
    assert list(stream.partials()) == []

    with pytest.raises(StreamConsumedError):
        stream.partials()


@pytest.mark.parametrize("kind", [LocalStream, AsyncLocalStream])
def test_a_run_without_a_response_type_has_no_partial_values_and_is_not_consumed(kind: Any) -> None:
    run = FakeRun()
    stream = kind(run.delivery)

    with pytest.raises(InvalidRequestError, match="response_type: is missing") as raised:
        stream.partials()
    assert raised.value.argument == "response_type"
    stream.consume()


# The cost.


def test_a_reader_pauses_so_that_reading_takes_a_fifth_of_its_time() -> None:
    times = iter([10.0, 10.01, 10.01, 10.02, 10.1])
    partial = PartialAnswer(response_type_of(Order), lambda: next(times))
    partial.add([TEXT])

    assert partial.read()
    assert partial.value == WHOLE
    assert [partial.pause() for _ in range(3)] == [pytest.approx(0.04), pytest.approx(0.03), 0.0]


def test_a_cheap_reading_needs_no_pause() -> None:
    times = iter([10.0, 10.0001, 10.0001])
    partial = PartialAnswer(response_type_of(Order), lambda: next(times))
    partial.add([TEXT])

    assert partial.read()
    assert partial.pause() == 0.0


def test_what_arrives_during_a_pause_is_read_together() -> None:
    ticks = iter(range(1000))
    partial = PartialAnswer(response_type_of(list[int]), lambda: next(ticks) / 10)
    partial.add(['{"value": [1'])
    assert partial.read()
    for piece in (", 2", ", 3", "]", "}"):
        partial.add([piece])

    assert partial.read()
    assert partial.value == [1, 2, 3]
    assert not partial.read()


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2), max_size=3), st.data())
def test_the_last_value_is_whole_however_the_text_is_cut(value: list[dict[str, str]], data: st.DataObject) -> None:
    portable = {"value": [[{"key": key, "value": item} for key, item in entry.items()] for entry in value]}
    text = json.dumps(portable, ensure_ascii=data.draw(st.booleans()))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    partial = PartialAnswer(response_type_of(list[dict[str, str]]), lambda: 0.0)
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        partial.add([text[start:end]])
        partial.read()

    assert partial.value == value
