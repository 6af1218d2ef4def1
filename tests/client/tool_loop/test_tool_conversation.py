"""What comes next in a conversation with tools: a pure decision, without a model and without a thread."""

from __future__ import annotations

import json
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace
from headrace.errors import InvalidRequestError, RunTimeoutError
from headrace.tool_loop.tool_conversation import ToolConversation
from headrace.tool_loop.tool_run import conversation_of
from headrace.tool_loop.tools_result import RunToolsResult
from headrace.tool_loop.turn_calls import TurnCalls
from headrace.types import Message, Part, ReasoningPart, StreamResult, ToolCall, ToolCallPart, Usage

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello {{name}}"}]


def double(n: int) -> int:
    return 2 * n


@headrace.tool(timeout=5, raises=LookupError)
def look_up(word: str) -> str:
    raise KeyError(word)


def conversation(**arguments: Any) -> ToolConversation:
    max_turns = arguments.pop("max_turns", 10)
    said: Any = {"model": "gpt-4o", "messages": HELLO, "variables": {"name": "Ada"}, "tools": [double, look_up]}
    return conversation_of(said | arguments, max_turns, now=100.0)


def answer(text: str = "", *calls: tuple[str, dict[str, Any]], **fields: Any) -> StreamResult:
    made = [ToolCall(f"c{index}", name, arguments) for index, (name, arguments) in enumerate(calls)]
    parts: list[Part] = [ToolCallPart(call.id, call.name, call.arguments) for call in made]
    usage = Usage(10, 2, 12, source="provider", server_tool_requests={"web_search_requests": 1})
    facts: dict[str, Any] = {
        "text": text,
        "span_id": "sp_1",
        "trace_id": "tr_1",
        "latency_ms": 5.0,
        "usage": usage,
        "cost": 0.5,
        "provider": "openai",
        "model": "gpt-4o",
        "tool_calls": made,
        "incomplete_tool_calls": [],
        "finish_reason": "tool_calls" if made else "stop",
        "provider_finish_reason": None,
        "message": Message("assistant", parts or text),
        "reasoning": "",
        "refusal": None,
        "attempts": 1,
        "aborted": False,
    }
    return StreamResult(**facts | fields)


def roles(talk: ToolConversation) -> list[str]:
    return [message.role for message in talk.messages]


def test_an_answer_without_calls_ends_the_conversation() -> None:
    talk = conversation()

    assert talk.model_answered(answer("Hi.")) == []
    assert (talk.is_done, talk.stopped) == (True, None)
    assert roles(talk) == ["user", "assistant"]
    assert talk.messages[0].content == "Hello Ada"


def test_calls_are_planned_answered_in_their_order_and_sent_back() -> None:
    talk = conversation(span_id="sp_0123456789abcdef", tool_choice="required", tags=["a"])
    first = talk.next_arguments(100.0)
    assert first["messages"] == HELLO
    calls = talk.model_answered(answer("", ("double", {"n": 2}), ("double", {"n": 3})))
    turn = TurnCalls(calls, None)
    turn.returned(1, 6)
    turn.returned(0, 4)
    talk.tools_answered(turn.answers())

    assert not talk.is_done
    assert [(message.tool_call_id, message.tool_name, message.content) for message in talk.messages[2:]] == [
        ("c0", "double", "4"),
        ("c1", "double", "6"),
    ]
    following = talk.next_arguments(101.0)
    assert following["messages"] == talk.messages
    assert (following["trace_id"], following["parent_span_id"]) == ("tr_1", "sp_1")
    assert (following["tool_choice"], following["tags"]) == ("auto", ["a"])
    assert not {"span_id", "variables"} & following.keys()


@pytest.mark.parametrize("choice", ["required", {"tool": "double"}])
def test_a_choice_that_forces_a_call_counts_once(choice: Any) -> None:
    talk = conversation(tool_choice=choice)
    assert talk.next_arguments(100.0)["tool_choice"] == choice
    talk.model_answered(answer("", ("double", {"n": 2})))
    assert talk.next_arguments(101.0)["tool_choice"] == "auto"


def test_a_call_that_cannot_be_made_has_a_problem_that_names_the_field() -> None:
    calls = conversation().model_answered(answer("", ("double", {"n": "two"}), ("triple", {})))

    assert [call.problem for call in calls] == [
        "n: Expected `int`, got `str`. double takes: n",
        "there is no tool 'triple'; the tools are: double, look_up",
    ]


def test_the_last_turn_calls_its_functions_too_so_that_the_history_is_complete() -> None:
    talk = conversation(max_turns=1)
    calls = talk.model_answered(answer("", ("double", {"n": 2})))
    talk.tools_answered([call.returned("4") for call in calls])

    assert (talk.is_done, talk.stopped) == (True, "max_turns")
    assert roles(talk) == ["user", "assistant", "tool"]
    assert talk.result(101.0).finish_reason == "tool_calls"


def test_a_call_of_a_tool_without_a_function_ends_the_conversation_and_stays_open() -> None:
    talk = conversation(tools=[double, {"name": "ask_human"}])
    calls = talk.model_answered(answer("", ("double", {"n": 2}), ("ask_human", {})))
    talk.tools_answered([call.returned("4") for call in calls])

    assert [call.call.name for call in calls] == ["double"]
    assert (talk.is_done, talk.stopped) == (True, "unanswered_calls")
    assert roles(talk) == ["user", "assistant", "tool"]


def test_a_paused_turn_goes_on_without_a_message_of_the_user_and_its_text_counts() -> None:
    talk = conversation()
    assert talk.model_answered(answer("It ", provider_finish_reason="pause_turn")) == []
    assert not talk.is_done
    talk.model_answered(answer("rains."))

    assert roles(talk) == ["user", "assistant", "assistant"]
    assert talk.result(100.5).text == "It rains."


def test_a_turn_that_pauses_at_the_limit_says_so() -> None:
    talk = conversation(max_turns=1)
    talk.model_answered(answer("It ", provider_finish_reason="pause_turn"))

    assert (talk.is_done, talk.stopped) == (True, "max_turns")


def test_an_aborted_answer_leaves_a_complete_history() -> None:
    talk = conversation()
    assert talk.model_answered(answer("", ("double", {"n": 2}), aborted=True)) == []

    assert (talk.is_done, talk.stopped) == (True, "aborted")
    assert roles(talk) == ["user", "assistant", "tool"]
    assert talk.messages[-1].content == "Error: the program aborted before this call had a result"


def test_an_empty_message_is_not_kept_because_providers_refuse_it() -> None:
    talk = conversation()
    talk.model_answered(answer(""))

    assert roles(talk) == ["user"]


def test_figures_of_all_turns_are_added_up() -> None:
    talk = conversation()
    talk.model_answered(answer("a", ("double", {"n": 2})))
    talk.model_answered(answer("b", usage=Usage(1, 1, 2, source="estimated"), attempts=2))
    result = talk.result(102.5)

    assert result.usage == Usage(11, 3, 14, source="estimated", server_tool_requests={"web_search_requests": 1})
    assert (result.cost, result.attempts, result.latency_ms, result.text) == (1.0, 3, 2500.0, "b")
    assert [turn.text for turn in result.turns] == ["a", "b"]
    assert not result.aborted


def test_the_cost_is_unknown_if_the_cost_of_one_turn_is() -> None:
    talk = conversation()
    talk.model_answered(answer("a", ("double", {"n": 2}), cost=None))
    talk.model_answered(answer("b"))

    assert talk.result(101.0).cost is None


def test_the_time_for_everything_gets_shorter_and_ends() -> None:
    talk = conversation(timeout_ms=3_000)
    talk.model_answered(answer("a", ("double", {"n": 2})))

    assert talk.next_arguments(101.5)["timeout_ms"] == 1_500
    assert talk.next_arguments(102.9999)["timeout_ms"] == 1
    with pytest.raises(RunTimeoutError) as caught:
        talk.next_arguments(103.0)
    assert (caught.value.clock, caught.value.limit, caught.value.partial_text) == ("total", 3.0, "a")


def test_a_call_may_take_as_long_as_its_tool_says() -> None:
    talk = conversation()
    calls = talk.model_answered(answer("", ("double", {"n": 2}), ("look_up", {"word": "a"})))
    turn = TurnCalls(calls, 110.0)
    assert turn.begin(0, 100.0) == [0, 1]

    assert turn.wait_time(101.0) == 4.0
    assert turn.overdue(104.9) == []
    assert turn.overdue(105.0) == [1]
    assert turn.took_too_long(1).error == "Error: the tool has not returned within 5 s"
    assert turn.wait_time(106.0) == 4.0
    assert turn.waited_for() == ["double"]
    assert not turn.is_out_of_time(109.9)
    assert turn.is_out_of_time(110.0)
    assert [event.error is None for event in turn.answers()] == [False, False], "the other call was aborted"


def test_some_calls_of_a_turn_with_very_many_wait_and_their_time_counts_from_their_start() -> None:
    calls = conversation().model_answered(answer("", *[("look_up", {"word": str(number)}) for number in range(70)]))
    turn = TurnCalls(calls, None)

    assert turn.begin(0, 100.0) == [*range(64)]
    assert turn.begin(64, 101.0) == []
    assert turn.begin(60, 103.0) == [64, 65, 66, 67]
    assert turn.overdue(105.0) == [*range(64)]
    assert turn.begin(0, 106.0) == [68, 69]


def test_an_error_is_an_answer_unless_the_tool_says_that_it_ends_everything() -> None:
    calls = conversation().model_answered(answer("", ("double", {"n": 2}), ("look_up", {"word": "a"})))
    turn = TurnCalls(calls, None)

    assert turn.raised(0, ValueError("no")).content == "Error: ValueError: no"
    for error in (KeyError("a"), KeyboardInterrupt(), SystemExit()):
        with pytest.raises(type(error)) as caught:
            turn.raised(1, error)
        assert caught.value is error


def test_a_result_that_no_message_can_hold_is_an_error_for_the_model() -> None:
    calls = conversation().model_answered(answer("", ("double", {"n": 2})))
    told = TurnCalls(calls, None).returned(0, b"x")

    assert told.error is not None
    assert told.error.startswith("Error: the tool returned bytes")


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"max_turns": 0}, "max_turns"),
        ({"max_turns": "10"}, "max_turns"),
        ({"tools": double}, "tools"),
        ({"tools": "double"}, "tools"),
        ({"messages": []}, "messages"),
        ({"variables": {}}, "variables"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": "1s"}, "timeout_ms"),
    ],
)
def test_a_wrong_argument_is_refused_before_the_model_is_asked(arguments: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        conversation(**arguments)
    assert caught.value.argument == argument


def test_results_can_be_compared_pickled_and_written_as_json() -> None:
    talk = conversation()
    talk.model_answered(answer("Hi."))
    result = talk.result(101.0)

    assert msgspec.structs.asdict(result)["messages"] == talk.messages
    assert pickle.loads(pickle.dumps(result)) == result
    assert RunToolsResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def item(kind: str, **fields: Any) -> ReasoningPart:
    return ReasoningPart(provider_data={"item": {"type": kind, **fields}})


@pytest.mark.parametrize(
    ("items", "is_open"),
    [
        ([item("mcp_approval_request", id="m1")], True),
        ([item("web_search_call", id="w1")], False),
        ([item("shell_call", call_id="c1")], True),
        ([item("shell_call", call_id="c1"), item("shell_call_output", call_id="c1")], False),
        ([ReasoningPart("hm")], False),
    ],
)
def test_a_call_of_another_kind_that_the_program_must_answer_ends_the_conversation(
    items: list[Part], is_open: bool
) -> None:
    talk = conversation()
    talk.model_answered(answer("", message=Message("assistant", items)))

    assert (talk.is_done, talk.stopped) == (True, "unanswered_calls" if is_open else None)


TURN = st.tuples(
    st.lists(st.sampled_from(["double", "look_up", "nothing", "ask_human"]), max_size=4),
    st.sampled_from(["", "Some text."]),
    st.booleans(),
    st.sampled_from([None, "pause_turn"]),
)


@given(st.lists(TURN, min_size=1, max_size=8), st.integers(1, 6))
def test_whatever_the_model_does_the_history_is_complete_and_the_limit_holds(
    turns: list[tuple[list[str], str, bool, str | None]], max_turns: int
) -> None:
    talk = conversation(tools=[double, {"name": "ask_human"}], max_turns=max_turns)
    for names, text, aborted, reason in turns:
        if talk.is_done:
            break
        calls = [(name, {"n": 2}) for name in names]
        told = answer(text, *calls, aborted=aborted, provider_finish_reason=reason)
        planned = talk.model_answered(told)
        talk.tools_answered([call.returned("4") for call in planned])

    assert len(talk.turns) <= max_turns
    assert talk.is_done or len(talk.turns) == len(turns)
    if talk.stopped == "unanswered_calls":
        return
    waiting: list[str] = []
    for message in talk.messages:
        if message.role == "tool":
            assert message.tool_call_id == waiting.pop(0), "answers come in the order of the calls"
        else:
            assert not waiting, "each call has its answer before the next message"
        waiting += [call.id for call in message.tool_calls]
    assert not waiting
