"""Inputs that took quadratic time, or more: each is read in a fraction of a second, or refused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from headrace.types import ReasoningDelta, ReasoningPart, ToolCallDelta
from headrace.wire.messages import Failed, Finished
from headrace_workers.providers.shared import answer_limits as limits
from headrace_workers.providers.shared.answer_limits import (
    LIGHT,
    MAX_CALLS,
    MAX_DEPTH,
    MIB,
    LimitError,
    SearchedWords,
)
from headrace_workers.runs.event_merging import merge_neighbours, pieces_of
from headrace_workers.runs.outgoing_events import OutgoingEvents
from tests.waiting import cpu_slack
from tests.workers.providers.example_answers import APIS
from tests.workers.providers.heavy_json import CHEAP, JSON, data, read, refused
from tests.workers.runs.driven import Driven


@pytest.mark.parametrize("api", APIS)
def test_nested_choices_are_searched_once(api: str) -> None:
    """Each level was searched twice: forty levels took longer than a day."""
    nested = b'{"text":""}'
    for key in (b"choices", b"content", b"candidates", b"message", b"output") * 12:
        nested = b'{"type":"x","%b":[%b,{"type":"x"}]}' % (key, nested)
    run = Driven(api=api, stream=False).respond(headers=JSON)
    began = time.thread_time()
    run.receive(
        b'{"choices":[%b,%b],"candidates":[%b,%b],"output":[%b],"content":[%b],"stop_reason":"x","status":"completed"}'
        % ((nested,) * 6)
    )
    run.complete()

    assert run.terminal is not None
    assert time.thread_time() - began < CHEAP * cpu_slack()


def test_calls_at_one_place_and_at_many_are_found_at_once() -> None:
    run = Driven(sequence_limit=10**9, character_limit=10**12).respond()
    calls = [{"index": 0, "id": f"c{at}", "function": {"name": "f"}} for at in range(MAX_CALLS - 1)]
    run.receive(data({"choices": [{"delta": {"tool_calls": calls}}]}))
    again = [{"index": 0, "id": "c1", "function": {"arguments": " "}} for _ in range(20_000)]
    event = data({"choices": [{"delta": {"tool_calls": again}}]})
    began = time.thread_time()
    run.receive(event)

    assert time.thread_time() - began < CHEAP * cpu_slack()


RESPONSE_CALLS: dict[str, dict[str, Any]] = {
    "a delta by its place": {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": " "},
    "a delta by its item": {"type": "response.function_call_arguments.delta", "item_id": "i0", "delta": " "},
    "a delta of no call": {"type": "response.function_call_arguments.delta", "output_index": 10**6, "delta": " "},
    "arguments that are whole": {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": ""},
    "an item": {
        "type": "response.output_item.added",
        "output_index": MAX_CALLS - 2,
        "item": {"type": "function_call", "call_id": f"c{MAX_CALLS - 2}"},
    },
}


@pytest.mark.parametrize("kind", RESPONSE_CALLS)
def test_the_call_of_a_response_is_found_at_once_among_many(kind: str) -> None:
    """Each piece of arguments searched all calls: half a millisecond if a run had as many calls as it may have."""
    run = Driven(api="openai-responses", sequence_limit=10**9, character_limit=10**12).respond()
    begun = [
        {"type": "response.output_item.added", "output_index": at, "item": {"type": "function_call", "id": f"i{at}"}}
        for at in range(MAX_CALLS - 1)
    ]
    for event in begun:
        event["item"] |= {"call_id": f"c{event['output_index']}", "name": "f"}  # type: ignore[operator]
    for start in range(0, len(begun), 1000):
        run.receive(data(*begun[start : start + 1000]))
    many = data(*[RESPONSE_CALLS[kind]] * 4000)
    began = time.thread_time()
    read(run, many)

    assert not run.core.has_ended
    assert time.thread_time() - began < CHEAP * cpu_slack()


@pytest.mark.parametrize("kind", ["words", "other words", "arguments"])
def test_whole_items_after_many_pieces_are_compared_in_linear_time(kind: str) -> None:
    run = Driven(api="openai-responses", sequence_limit=10**9, character_limit=10**12).respond()
    call = {"type": "response.output_item.added", "item": {"type": "function_call", "call_id": "c", "name": "f"}}
    piece = {"type": "response.output_text.delta", "delta": "a"}
    item = {
        "type": "message",
        "content": [{"type": "output_text", "text": "b" * (1000 if kind == "other words" else 1)}],
    }
    whole: dict[str, Any] = {"type": "response.output_item.done", "item": item}
    if kind == "arguments":
        run.receive(data(call))
        piece = {"type": "response.function_call_arguments.delta", "delta": "a"}
        whole = {"type": "response.function_call_arguments.done", "arguments": ""}
    many = data(*[piece] * 20_000)
    for _ in range(5):
        read(run, many)
    many = data(*[whole] * 1000)
    began = time.thread_time()
    read(run, many)

    assert not run.core.has_ended
    assert time.thread_time() - began < CHEAP * cpu_slack()


def test_blocks_are_closed_once() -> None:
    """Each ``message_delta`` searched all blocks: half a millisecond if a run had as many blocks as it may have."""
    run = Driven(api="anthropic", sequence_limit=10**9, character_limit=10**12).respond()
    blocks = [
        {"type": "content_block_start", "index": at, "content_block": {"type": "text"}} for at in range(MAX_CALLS - 1)
    ]
    run.receive(data(*blocks))
    many = data(*[{"type": "message_delta", "delta": {}, "usage": {}}] * 8000)
    began = time.thread_time()
    read(run, many)

    assert not run.core.has_ended
    assert time.thread_time() - began < CHEAP * cpu_slack()


def test_unknown_candidates_of_one_event_are_checked_once() -> None:
    run = Driven(api="google").respond()
    began = time.thread_time()
    run.receive(data({"candidates": [{"content": {"parts": [{}]}}] * 10_000}))

    assert time.thread_time() - began < CHEAP * cpu_slack()


def test_a_search_begins_at_the_last_match_and_has_a_limit() -> None:
    said = SearchedWords("a" * 4_000_000 + "b" * 1000)
    for _ in range(1000):
        assert said.holds("b")
    for _ in range(15):
        assert not said.holds("c")
    with pytest.raises(LimitError, match="64 MiB of content to check"):
        said.holds("c")


def test_many_pieces_are_joined_in_linear_time() -> None:
    began = time.thread_time()
    merged = merge_neighbours([ReasoningDelta("ab") for _ in range(100_000)])
    assert merged == [ReasoningDelta("ab" * 100_000)]
    calls = [ToolCallDelta(0, "c", "f", "{"), *(ToolCallDelta(0, arguments="ab") for _ in range(100_000))]
    assert merge_neighbours([*calls, ToolCallDelta(1, "d", "g", "{}")]) == [
        ToolCallDelta(0, "c", "f", "{" + "ab" * 100_000),
        ToolCallDelta(1, "d", "g", "{}"),
    ]

    assert time.thread_time() - began < CHEAP * cpu_slack()


@pytest.mark.parametrize(
    "make", [str, ReasoningDelta, lambda text: ToolCallDelta(0, "c", "f", text)], ids=["text", "reasoning", "arguments"]
)
def test_a_huge_piece_is_sent_in_parts_in_linear_time(make: Callable[[str], Any]) -> None:
    event = make("x" * 3_000_000)
    outflow = OutgoingEvents(10**9, 0)
    outflow.pending.append(event)
    taken: list[Any] = []
    began = time.thread_time()
    for limit in range(1000, 3_001_000, 1000):
        outflow.allow_more(10**9, limit)
        taken += outflow.take()[1]

    assert merge_neighbours(taken) == [event]
    assert outflow.pending == []
    assert time.thread_time() - began < CHEAP * cpu_slack()
    assert pieces_of(event, 10**7) == [event]


SAYS: dict[str, bytes] = {
    "openai-chat": b'{"choices":[{"index":1,"delta":{"content":HOLE}}]}',
    "openai-responses": b'{"type":"response.output_text.delta","delta":HOLE}',
    "anthropic": b'{"type":"error","error":HOLE}',
    "google": b'{"candidates":[{"index":1,"content":{"parts":[{"text":HOLE}]}}]}',
}
HALVES = {
    "low": b"\\udc00a",
    "high": b"\\uD83Da",
    "behind backslashes": b"\\\\ud83d\\ude00",
    "apart": b"\\ud83d\\\\\\ude00",
    "bytes": b"\xed\xa0\x80a",
    "pairs of bytes": b"\xed\xa0\xbd\xed\xb8\x80",
}


@pytest.mark.parametrize("api", SAYS)
@pytest.mark.parametrize("half", HALVES)
def test_millions_of_lone_halves_of_characters_are_refused(api: str, half: str) -> None:
    """Each half took a microsecond, again and again, whenever a text was joined: 7 MiB of halves took 7 seconds."""
    run = Driven(api=api, sequence_limit=10**9, character_limit=10**12).respond()
    event = b"data: " + SAYS[api].replace(b"HOLE", b'"%b"' % (HALVES[half] * (7 * MIB // len(HALVES[half])))) + b"\n\n"
    began = time.thread_time()
    run.receive(event)

    assert "halves of characters" in refused(run)
    assert time.thread_time() - began < CHEAP * cpu_slack()


@pytest.mark.parametrize("api", ["openai-chat", "openai-responses", "google"])
def test_halves_in_many_small_events_are_counted_together(api: str) -> None:
    run = Driven(api=api, sequence_limit=10**9, character_limit=10**12).respond()
    event = b"data: " + SAYS[api].replace(b"HOLE", b'"' + b"\\udc00a" * 3000 + b'"') + b"\n\n"
    for _ in range(10):
        run.receive(event)

    assert "halves of characters" in refused(run)


@pytest.mark.parametrize(
    "whole",
    [
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":HOLE}}]},"finishReason":"STOP"}]}',
        b'{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}],"x":HOLE}',
    ],
    ids=["arguments", "unknown"],
)
def test_halves_in_a_whole_answer_are_refused(whole: bytes) -> None:
    run = Driven(api="google", stream=False).respond(headers=JSON)
    run.receive(whole.replace(b"HOLE", b'{"a":"%b"}' % (b"\\udc00a" * MIB)))
    began = time.thread_time()
    run.complete()

    assert "halves of characters" in refused(run)
    assert time.thread_time() - began < CHEAP * cpu_slack()


@pytest.mark.parametrize("many", ["\U0001f600" * 50_000, "\ud558\ub298" * 100_000], ids=["smileys", "Korean"])
@pytest.mark.parametrize("is_ascii", [True, False])
def test_whole_characters_never_count_as_halves(many: str, is_ascii: bool) -> None:
    """One lone half beside them makes the slow reader read the event."""
    run = Driven(sequence_limit=10**9, character_limit=10**12).respond()
    said = json.dumps({"choices": [{"delta": {"content": many}}]}, ensure_ascii=is_ascii)
    run.receive(b"data: " + said.replace('"}}', '\\ud83d"}}').encode() + b"\n\n")
    run.receive(b'data: {"choices":[{"delta":{"content":"\\ude00"},"finish_reason":"stop"}]}\n\n', b"data: [DONE]\n\n")

    assert isinstance(run.terminal, Finished)
    assert run.text == many + "\U0001f600"


def chat_calls(*calls: dict[str, Any]) -> bytes:
    return data({"choices": [{"delta": {"tool_calls": list(calls)}}]})


def test_checks_for_complete_arguments_have_a_limit() -> None:
    """For each piece with a name, all arguments before it were joined and decoded: one event took half a minute."""
    run = Driven(sequence_limit=10**9, character_limit=10**12).respond()
    run.receive(chat_calls({"index": 0, "function": {"name": "f", "arguments": '{"a":"' + "a" * MIB}}))
    began = time.thread_time()
    run.receive(chat_calls(*[{"index": 0, "function": {"name": "f", "arguments": "}"}}] * 2000))

    assert "cannot be told apart" in refused(run)
    assert time.thread_time() - began < CHEAP * cpu_slack()


def test_the_name_of_a_tool_has_a_limit() -> None:
    run = Driven(sequence_limit=10**9, character_limit=10**12).respond()
    for place in range(5):
        run.receive(chat_calls({"index": 0, "function": {"name": f"{place}" + "x" * 1000, "arguments": "1"}}))

    assert "4096 characters in the name" in refused(run)


def test_whole_messages_are_compared_with_a_long_answer_a_few_times_only() -> None:
    run = Driven(sequence_limit=10**9, character_limit=10**12).respond()
    run.receive(*[data({"choices": [{"delta": {"content": "a" * MIB}}]})] * 8)
    run.receive(data({"choices": [{"delta": {"content": "b"}}]}))
    message = {"index": 0, "message": {"content": "a" * 400 + "b"}}
    began = time.thread_time()
    run.receive(data({"choices": [message] * 100}))

    assert "whole messages" in refused(run)
    assert time.thread_time() - began < CHEAP * cpu_slack()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ["$['" + "a" * (4 * MIB) + "']"],
        lambda: [f"$.k{place}" + "[99]" * 60 for place in range(1000)],
        lambda: [f"$.k{place}" + "[99]" * 30 for place in range(1000)],
        lambda: ["$" + ".a" * 30 + f".k{place}" for place in range(30_000)],
    ],
    ids=["long", "deep", "gaps", "many"],
)
def test_paths_of_arguments_are_limited(make: Callable[[], list[str]]) -> None:
    """A path of 14 MiB took gigabytes to match. A path with gaps made 6,000 elements from 300 bytes."""
    pieces = [{"jsonPath": path, "numberValue": 1} for path in make()]
    call = {"name": "f", "willContinue": True, "partialArgs": pieces}
    run = Driven(api="google").respond()
    began = time.thread_time()
    run.receive(data({"candidates": [{"content": {"parts": [{"functionCall": call}]}}]}))

    assert run.failure.kind == "provider_protocol"
    assert time.thread_time() - began < CHEAP * cpu_slack()


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"text": "a" * 4 * MIB},
        lambda: {"text": "a", "signature": "s" * MIB},
        lambda: {f"k{at}": 1 for at in range(5000)},
    ],
    ids=["text", "signature", "keys"],
)
def test_pieces_of_reasoning_details_are_joined_once(make: Callable[[], dict[str, Any]]) -> None:
    """Each piece copied all text before it: an event of 64 KiB took a minute."""
    first = make()
    run = Driven(stream=False).respond()
    kind = {"type": "reasoning.text", "index": 0}
    run.receive(data({"choices": [{"delta": {"reasoning_details": [kind | first]}}]}))
    began = time.thread_time()
    run.receive(data({"choices": [{"delta": {"reasoning_details": [kind | {"text": "b"}] * 10_000}}]}))
    run.receive(data({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}), b"data: [DONE]\n\n")

    assert time.thread_time() - began < CHEAP * cpu_slack()
    assert isinstance(run.terminal, Finished)
    message = run.terminal.message
    assert message is not None
    part = message.content[0]
    assert isinstance(part, ReasoningPart)
    assert part.provider_data is not None
    (detail,) = part.provider_data["reasoning_details"]
    assert detail == kind | first | {"text": first.get("text", "") + "b" * 10_000}


_DEEP = "[" * (MAX_DEPTH + 1) + "1" + "]" * (MAX_DEPTH + 1)


def whole_of_calls(api: str, inputs: list[Any]) -> bytes:
    if api == "anthropic":
        blocks = [{"type": "tool_use", "id": "c", "name": "f", "input": said} for said in inputs]
        return json.dumps({"type": "message", "content": blocks, "stop_reason": "tool_use"}).encode()
    parts = [{"functionCall": {"name": "f", "args": said}} for said in inputs]
    return json.dumps({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}).encode()


@pytest.mark.parametrize("api", ["anthropic", "google"])
def test_inputs_of_calls_in_a_weighed_body_are_not_weighed_again(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weighed: list[int] = []
    monkeypatch.setattr(limits, "weigh", lambda data: weighed.append(len(data)))
    run = Driven(api=api, stream=False).respond(headers=JSON)
    run.receive(whole_of_calls(api, [{"a": "x" * 4000}] * 100))
    run.complete()

    assert isinstance(run.terminal, Finished)
    assert len(run.terminal.tool_calls) == 100
    assert weighed == []


def test_an_input_that_is_text_within_a_body_is_weighed_by_itself() -> None:
    run = Driven(api="anthropic", stream=False).respond(headers=JSON)
    run.receive(whole_of_calls("anthropic", ['{"a":' + _DEEP + ',"b":"' + "x" * LIGHT + '"}']))
    run.complete()

    assert isinstance(run.terminal, Failed)
    assert f"{MAX_DEPTH} levels" in run.terminal.reason
