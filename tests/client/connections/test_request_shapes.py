"""A call of a known shape gets the same plan as the general way gives: the same request, and the same errors."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connections.request_shapes import MAX_KEY_BYTES, MAX_SHAPES, RequestShapes, parts_of
from headrace.connections.run_starter import PlannedRun, RunStarter
from headrace.errors import InvalidRequestError
from headrace.runs.typed_answer import typed_answer_of
from headrace.settings.settings import Settings, with_built_in
from headrace.wire.codec import decode_request
from tests.cases import each

TOOL = {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}}
TEXTS = st.text(max_size=20)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "robot"]), "content": TEXTS},
    optional={"name": TEXTS},
)
MESSAGES = st.one_of(TEXTS, st.lists(MESSAGE, max_size=3))
ARGUMENTS = st.fixed_dictionaries(
    {"model": st.sampled_from(["gpt-4o", "claude-x", "nobody"])},
    optional={
        "temperature": st.sampled_from([1, 1.0, True, 3, np.float64(1), np.int64(1)]),
        "seed": st.sampled_from([1, np.int64(1), np.bool_(True), True]),
        "tools": st.sampled_from([[TOOL], [], "look"]),
        "custom_options": st.sampled_from([{"n": 1}, {"n": True}, {"n": b"1"}, {"messages": []}]),
        "stop_sequences": st.sampled_from([["a"], ("a",), "a"]),
        "tags": st.sampled_from([["a", "b"], None]),
        "user_id": st.one_of(st.none(), TEXTS, st.just(7)),
        "session_id": st.one_of(TEXTS, st.none()),
        "span_id": st.sampled_from(["sp_0123456789abcdef", "sp_0"]),
        "trace_id": st.sampled_from(["tr_0123456789abcdef", "", None]),
        "parent_span_id": st.sampled_from(["sp_fedcba9876543210", "tr_fedcba9876543210"]),
        "variables": st.just({"a": "b"}),
        "fallbacks": st.just(["gpt-4o-mini"]),
        "send_trace": st.booleans(),
        "max_retries": st.sampled_from([0, 5]),
    },
)


def starter() -> RunStarter:
    return RunStarter(None, 1.0, {}, with_built_in(Settings(), {}))


STARTER = starter()
"""Its shapes are those of all examples before: so later examples find them."""


def comparable(planned: PlannedRun, arguments: dict[str, Any]) -> tuple[Any, ...]:
    """Return all of a plan but the ids that were made for it. The request is compared as it is read, and by its size."""
    plan, trace_id = planned.plan, planned.trace_id
    request = decode_request(plan.request)
    assert request.trace_id == trace_id
    others = msgspec.structs.asdict(plan) | {"request": b"", "span_id": arguments.get("span_id")}
    if plan.fallback is not None:
        others["fallback"] = plan.fallback.model
    return msgspec.structs.replace(request, trace_id=arguments.get("trace_id") or ""), len(plan.request), others


def outcome(plan: Any, arguments: dict[str, Any]) -> tuple[Any, ...]:
    try:
        return comparable(plan(), arguments)
    except InvalidRequestError as error:
        return (str(error), error.argument)


@given(ARGUMENTS, MESSAGES, MESSAGES, st.booleans())
def test_a_call_has_the_plan_or_the_error_of_the_general_way(
    arguments: dict[str, Any], one: Any, other: Any, stream: Any
) -> None:
    for messages in (one, one, other):
        call: Any = {**arguments, "messages": messages}
        known = outcome(lambda call=call: STARTER.plan_call(call, "messages", stream=stream), call)
        general = outcome(lambda call=call: starter().plan_run(call, stream=stream)[0], call)

        assert known == general


@each(
    ("first", "later", "argument"),
    [
        ({"seed": np.int8(1)}, {"seed": np.bool_(True)}, "seed"),
        ({"temperature": 1}, {"temperature": True}, "temperature"),
        ({"span_id": "sp_0123456789abcdef"}, {"span_id": "sp_0123456789ABCDEF"}, "span_id"),
        ({"trace_id": "tr_0123456789abcdef"}, {"trace_id": "tr_"}, "trace_id"),
        ({"parent_span_id": "sp_0123456789abcdef"}, {"parent_span_id": 7}, "parent_span_id"),
        ({"user_id": "ann"}, {"user_id": b"ann"}, "user_id"),
        ({"session_id": "s"}, {"session_id": "\ud800"}, "session_id"),
        ({"messages": "x"}, {"messages": "\ud800"}, "messages"),
    ],
)
def test_a_wrong_call_after_right_ones_raises(first: dict[str, Any], later: dict[str, Any], argument: str) -> None:
    made, rest = starter(), {"model": "gpt-4o", "messages": "x"}
    for _ in range(3):
        made.plan_call({**rest, **first}, "messages")
    with pytest.raises(InvalidRequestError) as caught:
        made.plan_call({**rest, **later}, "messages")

    assert caught.value.argument == argument


def test_stream_is_a_bool_also_for_a_known_shape() -> None:
    made, call, one = starter(), {"model": "gpt-4o", "messages": "x"}, 1
    for _ in range(3):
        assert made.plan_call(call, "messages", stream=True).plan.streams
        assert not made.plan_call(call, "messages", stream=False).plan.streams
    with pytest.raises(InvalidRequestError, match="stream"):
        made.plan_call(call, "messages", stream=one)  # type: ignore[arg-type]


def test_each_response_type_has_its_own_schema() -> None:
    made, call = starter(), {"model": "gpt-4o", "messages": "x"}
    types = [typed_answer_of(kind).response_type for kind in (list[int], list[str], list[int])]
    for response_type in types * 3:
        plan = made.plan_call(call, "messages", response_type=response_type).plan

        assert decode_request(plan.request).response_format == response_type.response_format


def test_embeddings_are_calls_too() -> None:
    made, call = starter(), {"model": "text-embedding-3-small", "dimensions": 8}
    for texts in ("a", "b", ["c"], ["d", "e"], ["f"], "g"):
        planned = made.plan_call({**call, "input": texts, "user_id": "ann"}, "input")
        request = decode_request(planned.plan.request)

        assert request.inputs == ([texts] if isinstance(texts, str) else texts)
        assert (request.dimensions, request.user_id, request.trace_id) == (8, "ann", planned.trace_id)


def test_the_key_is_that_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    made = starter()
    for key in ("sk-one", "sk-one", "sk-two", "sk-three"):
        monkeypatch.setenv("OPENAI_API_KEY", key)

        assert made.plan_call({"model": "gpt-4o", "messages": "x"}, "messages").plan.api_key == key


def test_the_second_call_of_a_shape_is_remembered_and_not_the_first() -> None:
    made, shapes = starter(), RequestShapes()
    parts = parts_of({"model": "gpt-4o", "messages": "x"}, "messages")
    planned, request = made.plan_run({"model": "gpt-4o", "messages": "x"}, stream=False)
    shapes.note(parts, planned.plan, request, None)
    before = shapes.of(parts)
    shapes.note(parts, planned.plan, request, None)

    shape = shapes.of(parts)
    assert before is None
    assert shape is not None
    assert shape.plan.request == b"", "a request may be large, and a shape is kept for long"


@each(("size", "count"), [(1, MAX_SHAPES + 1), (MAX_KEY_BYTES, 2)])
def test_shapes_are_forgotten_when_there_are_too_many(size: int, count: int) -> None:
    made, shapes = starter(), RequestShapes()
    planned, request = made.plan_run({"model": "gpt-4o", "messages": "x"}, stream=False)
    first = parts_of({"model": "gpt-4o", "messages": "x"}, "messages")
    shapes.note(first, planned.plan, request, None)
    shapes.note(first, planned.plan, request, None)
    for number in range(count):
        further = parts_of({"model": "gpt-4o", "messages": "x", "tags": ["x" * size, str(number)]}, "messages")
        shapes.note(further, planned.plan, request, None)

    assert shapes.of(first) is None
