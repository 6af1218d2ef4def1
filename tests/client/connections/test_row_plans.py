"""A row of a known shape gets the same plan as any run: the same request, byte for byte, and the same errors."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connections.row_plans import RowPlans
from headrace.connections.run_starter import RunStarter
from headrace.errors import InvalidRequestError
from headrace.runs.run_plan import RunPlan
from headrace.settings.settings import Settings, with_built_in
from headrace.types import Message
from headrace.wire.codec import decode_request

STARTER = RunStarter(None, 1.0, {}, with_built_in(Settings(), {}))
CHAT = {"model": "gpt-4o", "temperature": 1, "tags": ["a"], "custom_options": {"n": 1}}
AMBIGUOUS = {**CHAT, "custom_options": {"messages": []}}
TEXTS = st.text(min_size=1, max_size=30)
MESSAGES = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "developer", "user", "assistant"]),
        TEXTS,
    ),
    min_size=1,
    max_size=3,
)


def plans() -> RowPlans:
    made = RowPlans(STARTER, {"priority": "batch", "max_retries": 5})
    made.begin_group()
    return made


def comparable(plan: RunPlan, trace_id: str) -> tuple[Any, ...]:
    """Return all of a plan but the ids. The request is compared as it is encoded, and as it is read."""
    request = decode_request(plan.request)
    assert request.trace_id == trace_id
    without = plan.request.replace(trace_id.encode(), b"")
    others = msgspec.structs.asdict(plan) | {"span_id": "", "request": b""}
    return msgspec.structs.replace(request, trace_id=""), without, others


@given(st.sampled_from([CHAT, AMBIGUOUS]), st.one_of(MESSAGES, TEXTS), st.one_of(MESSAGES, TEXTS))
def test_a_further_row_of_a_shape_has_the_plan_that_a_first_row_has(
    shared: dict[str, Any], one: Any, other: Any
) -> None:
    used = plans()
    used.plan({**shared, "messages": one}, is_embedding=False)
    further = used.plan({**shared, "messages": other}, is_embedding=False)
    first = plans().plan({**shared, "messages": other}, is_embedding=False)

    assert comparable(further.plan, further.trace_id) == comparable(first.plan, first.trace_id)
    assert further.plan.span_id != first.plan.span_id


@given(st.one_of(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)))
def test_embeddings_too(inputs: Any) -> None:
    used, arguments = plans(), {"model": "text-embedding-3-small", "dimensions": 8}
    used.plan({**arguments, "input": "first"}, is_embedding=True)
    used.plan({**arguments, "input": ["first"]}, is_embedding=True)
    further = used.plan({**arguments, "input": inputs}, is_embedding=True)
    first = plans().plan({**arguments, "input": inputs}, is_embedding=True)

    assert comparable(further.plan, further.trace_id) == comparable(first.plan, first.trace_id)


@pytest.mark.parametrize(
    ("changed", "argument"),
    [
        ({"temperature": True}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "contents": "x"}]}, "messages[0].contents"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": []}, "messages"),
        ({"messages": ""}, "messages"),
        ({"mesages": "x"}, "mesages"),
    ],
)
def test_a_wrong_row_after_a_right_one_raises_what_any_run_raises(changed: dict[str, Any], argument: str) -> None:
    used = plans()
    used.plan({**CHAT, "messages": "first"}, is_embedding=False)
    with pytest.raises(InvalidRequestError) as caught:
        used.plan({**CHAT, "messages": "x", **changed}, is_embedding=False)

    assert caught.value.argument == argument


def test_an_empty_message_is_kept() -> None:
    used = plans()
    used.plan({**CHAT, "messages": "first"}, is_embedding=False)
    found = used.plan({**CHAT, "messages": [{"role": "assistant", "content": ""}]}, is_embedding=False)

    assert decode_request(found.plan.request).messages == [Message(role="assistant", content="")]


def test_values_that_are_equal_but_of_another_type_are_another_shape() -> None:
    used = plans()
    found = [
        used.plan({"model": "gpt-4o", "custom_options": {"n": value}, "messages": "x"}, is_embedding=False)
        for value in (1, True, 1.0, 1)
    ]

    kept = [decode_request(row.plan.request).custom_options["n"] for row in found]
    assert [(type(value), value) for value in kept] == [(int, 1), (bool, True), (float, 1.0), (int, 1)]


def test_a_row_with_its_own_ids_or_variables_keeps_them() -> None:
    used, own = plans(), {"span_id": "sp_0123456789abcdef", "trace_id": "tr_0123456789abcdef"}
    used.plan({**CHAT, "messages": "first"}, is_embedding=False)
    found = used.plan(
        {**CHAT, **own, "variables": {"n": "3"}, "messages": [{"role": "user", "content": "{{n}}"}]},
        is_embedding=False,
    )

    assert (found.plan.span_id, found.trace_id) == (own["span_id"], own["trace_id"])
    assert decode_request(found.plan.request).messages[0].content == "3"


def test_the_key_and_the_address_are_those_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    used = plans()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one")
    first = used.plan({**CHAT, "messages": "first"}, is_embedding=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-two")
    used.begin_group()
    second = used.plan({**CHAT, "messages": "second"}, is_embedding=False)

    assert [first.plan.api_key, second.plan.api_key] == ["sk-one", "sk-two"]
    assert first.plan.account != second.plan.account
