"""Limits on one answer: everything that grows with an answer has a limit. How JSON is weighed is in test_json_weighing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from headrace.spans.span import ContentToolCall, SpanContent
from headrace_workers.providers.shared.answer_limits import (
    LIGHT,
    MAX_CALLS,
    MAX_CONTINUATIONS,
    MAX_KEPT,
    MAX_TEXT,
    MAX_WIDE_TEXT,
    MIB,
    KeptMemory,
    LimitError,
)
from headrace_workers.providers.shared.sse import EventTooLargeError, SSEParser
from headrace_workers.runs.transcript import Transcript
from headrace_workers.spans.run_span import is_heavy
from tests.repetition import only_long
from tests.waiting import cpu_slack
from tests.workers.providers.example_answers import APIS
from tests.workers.providers.heavy_json import CHEAP, JSON, data, list_of, read, refused
from tests.workers.runs.driven import CLOSE_ONE, Driven

# JSON that is too heavy is not decoded.


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("is_whole", [False, True], ids=["streamed", "whole"])
def test_json_over_a_limit_ends_its_run_with_a_reason_and_is_not_decoded(api: str, is_whole: bool) -> None:
    heavy = b'{"x": [' + b"[]," * (5 * MIB) + b"[]]}"
    run = Driven(api=api, stream=not is_whole).respond(headers=JSON if is_whole else None)
    began = time.thread_time()
    run.receive(heavy if is_whole else b"data: " + heavy + b"\n\n")
    if is_whole:
        run.complete()

    assert "values and keys" in refused(run)
    assert time.thread_time() - began < 2 * CHEAP * cpu_slack()  # read in one piece, here


@pytest.mark.parametrize("number", [b"1e308", b"9" * 4200], ids=["exponents", "digits"])
def test_an_error_body_that_is_slow_to_decode_is_reported_by_its_status(number: bytes) -> None:
    began = time.thread_time()
    run = Driven().respond(status=429, headers=JSON)
    run.receive(b'{"error":{"message":"a"},"x":' + list_of(number, 60_000 // len(number)) + b"}")
    run.complete()

    assert run.failure.kind == "rate_limit"
    assert time.thread_time() - began < CHEAP / 5 * cpu_slack()


# Events.


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("line", [b"data:{}\r\r", b":\r", b"{}\r"], ids=["events", "comments", "lines"])
def test_a_body_that_is_no_answer_is_not_read_as_millions_of_events(line: bytes, is_stream: bool) -> None:
    """Such a body looked like one string without end, so it was not weighed; its lines took ten seconds of one turn."""
    run = Driven(stream=is_stream).respond(headers=JSON)
    run.receive(b'{"\r')
    for _ in range(16):
        run.receive(line * (MIB // len(line)))
    began = time.thread_time()
    run.complete()

    assert run.failure.kind == "provider_protocol"
    assert time.thread_time() - began < CHEAP * cpu_slack()


def test_blank_lines_within_a_line_of_json_are_not_read_at_once() -> None:
    run = Driven().respond(headers=JSON)
    began = time.thread_time()
    run.receive(b"{" + b"\r" * 8 * MIB + b"}\nx")
    run.complete()

    assert run.failure.kind == "provider_protocol"
    assert time.thread_time() - began < CHEAP * cpu_slack()


@pytest.mark.parametrize("string", [b'"",', b'"\\\\",', b'\\"\\\\"'], ids=["short", "escaped", "odd"])
def test_a_line_of_json_has_a_limit_of_strings(string: bytes) -> None:
    began = time.thread_time()
    with pytest.raises(LimitError):
        SSEParser().feed(b":\n[" + string * (8 * MIB // len(string)) + b"]\n")
    assert time.thread_time() - began < CHEAP / 2 * cpu_slack()


def test_an_event_has_a_limit_of_lines() -> None:
    parser = SSEParser()
    for _ in range(10):
        parser.feed(b"data: ab\n" * 10_000)
    with pytest.raises(EventTooLargeError, match="100000 lines"):
        parser.feed(b"data: ab\n")


def test_a_string_without_end_is_searched_once() -> None:
    """The search began again at each quote: 64 KiB took half a minute."""
    began = time.thread_time()
    SSEParser().feed(b'{"' + b'\\"' * 200_000 + b"\n\n")
    SSEParser().feed(b'{"' + b'\\"' * 200_000 + b"\\\n\n")

    assert time.thread_time() - began < CHEAP * cpu_slack()


def test_blank_lines_after_a_line_of_json_are_not_kept() -> None:
    run = Driven().respond(headers=JSON)
    for _ in range(200):
        run.receive(b"\n" * 256 * 1024 if run.core.response.body else b'{"a": 1}\n')

    assert len(run.core.response.body) <= LIGHT + 256 * 1024


# The whole of a run.


@pytest.mark.parametrize(("piece", "limit"), [("x" * 100_000, MAX_TEXT), ("😀" * 50_000, MAX_WIDE_TEXT)])
@pytest.mark.parametrize("field", ["content", "reasoning", "refusal"])
@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_stream_that_does_not_end_has_a_limit_of_text(piece: str, limit: int, field: str, is_streamed: bool) -> None:
    run = Driven(stream=is_streamed, sequence_limit=10**9, character_limit=10**12).respond()
    event = data({"choices": [{"delta": {field: piece}}]})
    commands: Any = ()
    for _ in range(limit // len(piece) + 3):
        commands = run.receive(event)
        if run.core.has_ended:
            break

    assert commands == CLOSE_ONE
    assert f"{limit} characters" in refused(run)
    if field == "content":
        assert len(run.text + run.failure.partial_text) >= limit


def test_a_long_answer_is_ascii_from_its_beginning_to_its_end() -> None:
    for first, second in ("ä", "x"), ("x", "ä"):
        run = Driven(sequence_limit=10**9, character_limit=10**12, transcript=Transcript()).respond()
        run.receive(data({"choices": [{"delta": {"content": first}}]}))
        for _ in range(MAX_WIDE_TEXT // 100_000 + 1):
            run.receive(data({"choices": [{"delta": {"content": "x" * 100_000}}]}))
        run.receive(data({"choices": [{"delta": {"content": second}}]}))

        assert "not all of them are ASCII" in refused(run)


def test_a_span_of_millions_of_control_characters_is_kept_without_its_content() -> None:
    assert is_heavy(SpanContent(text="\0" * 2 * MIB))
    assert is_heavy(SpanContent(tool_calls=[ContentToolCall("c", "f", "\n" * 2 * MIB)]))
    assert not is_heavy(SpanContent(text="x" * 16 * MIB))
    assert not is_heavy(SpanContent(text="a line\n" * 1_000_000))


@pytest.mark.parametrize("make", [lambda: "x" * (MAX_TEXT + 1), lambda: "ä" + "x" * MAX_WIDE_TEXT])
def test_a_whole_answer_has_the_same_limit_of_text(make: Callable[[], str]) -> None:
    text = make()
    run = Driven(stream=False).respond(headers=JSON)
    run.receive(json.dumps({"choices": [{"message": {"content": text}}]}, ensure_ascii=False).encode())
    run.complete()

    assert "characters" in refused(run)


def test_a_large_body_that_is_no_answer_is_read_as_an_event_in_another_turn() -> None:
    run = Driven(api="google", stream=False).respond(headers=JSON)
    run.receive(b'{"candidates":[{"content":{"parts":"' + b'\\"{\\"a\\":' * 200_000 + b'"}}]}')
    run.core.limit_turn(lambda: False)
    run.complete()
    turns = 1
    while run.core.is_behind:
        run.carry_out(run.core.next_turn(0.0))
        turns += 1

    assert run.failure.kind == "provider_protocol"
    assert turns == 3  # weighed, read, tried as an event


def test_a_run_has_a_limit_of_tool_calls() -> None:
    run = Driven(sequence_limit=10**9, character_limit=10**12).respond()
    for start in range(0, MAX_CALLS + 100, 100):
        calls = [{"index": at, "id": f"c{at}", "function": {"name": "f"}} for at in range(start, start + 100)]
        run.receive(data({"choices": [{"delta": {"tool_calls": calls}}]}))

    assert f"{MAX_CALLS} tool calls" in refused(run)


KEPT: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "reasoning details": [("openai-chat", {"choices": [{"delta": {"reasoning_details": [{"type": "x", "x": "HOLE"}]}}]})],
    "annotations": [("openai-chat", {"choices": [{"delta": {"content": "a", "annotations": [{"x": "HOLE"}]}}]})],
    "choices": [("openai-chat", {"choices": [{"index": 1, "delta": {"content": "HOLE"}}]})],
    "items": [("openai-responses", {"type": "response.output_item.done", "item": {"type": "x_call", "x": "HOLE"}})],
    "blocks": [("anthropic", {"type": "content_block_start", "index": 0, "content_block": {"type": "x_result", "x": "HOLE"}})],
    "citations": [
        ("anthropic", {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}}),
        ("anthropic", {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": "HOLE"}}),
    ],
    "parts": [("google", {"candidates": [{"content": {"parts": [{"executableCode": {"code": "HOLE"}}]}}]})],
    "candidates": [("google", {"candidates": [{"index": 1, "content": {"parts": [{"text": "HOLE"}]}}]})],
}  # fmt: skip


TEXTS = ("choices", "candidates")
"""The kinds that can be filled with text only, not with elements."""


@pytest.mark.parametrize(
    ("filler", "kind"),
    [
        *(("bytes", kind) for kind in (*TEXTS, "items", *only_long(*sorted(KEPT.keys() - {*TEXTS, "items"})))),
        *(("elements", kind) for kind in KEPT if kind not in TEXTS),
    ],
)
def test_what_a_run_keeps_beside_its_text_has_a_limit(filler: str, kind: str) -> None:
    *before, (api, event) = KEPT[kind]
    run = Driven(api=api, sequence_limit=10**9, character_limit=10**12).respond()
    run.receive(*(data(first) for _, first in before))
    kept = b'"' + b"x" * MIB + b'"' if filler == "bytes" else list_of(b"[]", 60_000)
    said = data(event).replace(b'"HOLE"', kept)
    for _ in range(80):
        run.receive(said)
        if run.core.has_ended:
            break

    assert refused(run)


@pytest.mark.parametrize("field", ["content", "refusal", "candidate"])
def test_the_parts_of_another_choice_count_as_kept_memory(field: str) -> None:
    parts = [{"refusal" if field == "refusal" else "text": "a"}] * 5000
    if field == "candidate":
        api, event = "google", {"candidates": [{"index": 1, "content": {"parts": parts}}]}
    else:
        api, event = "openai-chat", {"choices": [{"index": 1, "delta": {field: parts}}]}
    run = Driven(api=api, sequence_limit=10**9, character_limit=10**12).respond()
    said = data(event)
    for _ in range(100):
        run.receive(said)
        if run.core.has_ended:
            break

    assert "beside its text" in refused(run)


def test_the_memory_that_is_kept_is_estimated_from_bytes_and_elements() -> None:
    kept = KeptMemory()
    for _ in range(MAX_KEPT // (1_001_000)):
        kept.add(b"x" * 1_000_000)
    with pytest.raises(LimitError, match="64 MiB beside its text"):
        kept.add(b"x" * 1_000_000)
    kept = KeptMemory()
    for _ in range(MAX_KEPT // (40_000 * 66)):
        kept.add(b"[]," * 20_000)
    with pytest.raises(LimitError, match="64 MiB beside its text"):
        kept.add(b"[]," * 20_000)


def continued(run: Driven, token: str) -> None:
    answer = {
        "candidates": [
            {"content": {"parts": [{"text": "a"}]}, "finishReason": "CONTINUATION", "continuationToken": token}
        ]
    }
    run.receive(data(answer))
    run.complete()


def test_an_answer_is_continued_a_hundred_times_at_most() -> None:
    run = Driven(api="google", sequence_limit=10**9, character_limit=10**12).respond()
    for number in range(MAX_CONTINUATIONS):
        continued(run, f"token {number}")
        assert not run.core.has_ended
        run.core.continue_request(run.sent_request())
        run.respond()
    continued(run, "one more")

    assert f"{MAX_CONTINUATIONS} continuations" in refused(run)


def test_the_token_of_a_continuation_has_a_limit() -> None:
    run = Driven(api="google").respond()
    continued(run, "x" * 65_537)

    assert "65536 characters in the token" in refused(run)


@pytest.mark.parametrize("unit", [b"{}\n", b"data: x\n\n", b"data: {}\r\r", b"\n"])
def test_the_limits_hold_for_a_continuation_in_one_piece(unit: bytes) -> None:
    run = Driven(api="google").respond()
    continued(run, "token")
    run.core.continue_request(run.sent_request())
    run.respond(headers=JSON)
    began = time.thread_time()
    run.receive(b"x\n" + unit * (16 * MIB // len(unit)))
    run.complete()

    assert refused(run)
    assert time.thread_time() - began < 2 * CHEAP * cpu_slack()


@pytest.mark.parametrize(("lanes", "is_streamed"), [(2, True), (1000, False), *only_long((2, False), (1000, True))])
def test_many_alternating_pieces_of_calls_are_joined_in_linear_time(lanes: int, is_streamed: bool) -> None:
    transcript = Transcript()
    run = Driven(stream=is_streamed, sequence_limit=10**9, character_limit=10**12, transcript=transcript).respond()
    first = [{"index": at, "id": f"c{at}", "function": {"name": "f", "arguments": '{"a":"'}} for at in range(lanes)]
    run.receive(data({"choices": [{"delta": {"tool_calls": first}}]}))
    pieces = [{"index": at % lanes, "function": {"arguments": "ab"}} for at in range(4000)]
    event = data({"choices": [{"delta": {"tool_calls": pieces}}]})
    for _ in range(30):
        read(run, event)
    last = [{"index": at, "function": {"arguments": '"}'}} for at in range(lanes)]
    read(run, data({"choices": [{"delta": {"tool_calls": last}, "finish_reason": "tool_calls"}]}))
    began = time.thread_time()
    run.terminal = read(run, b"data: [DONE]\n\n")
    said = run.core.for_span().received

    assert time.thread_time() - began < CHEAP * cpu_slack()
    assert said is not None
    assert said.tool_calls == run.finished.tool_calls
    assert len(said.tool_calls) == lanes
    assert json.loads(said.tool_calls[1].arguments) == {"a": "ab" * (120_000 // lanes)}


LONG: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("openai-chat", {"choices": [{"delta": {"content": "four"}}], "obfuscation": "x" * 100}),
    "reasoning": ("openai-chat", {"choices": [{"delta": {"reasoning_content": "four"}}], "obfuscation": "x" * 100}),
    "arguments": ("openai-chat", {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "four"}}]}}]}),
    "alternatives": ("openai-chat", {"choices": [{"index": 3, "delta": {"content": "four"}}], "obfuscation": "x" * 100}),
    "a response's text": ("openai-responses", {"type": "response.output_text.delta", "delta": "four", "obfuscation": "x" * 100}),
    "thinking": (
        "anthropic", {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "four"}}
    ),
    "an input": (
        "anthropic", {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "four"}}
    ),
    "pings": ("anthropic", {"type": "ping"}),
    "Google's text": ("google", {"candidates": [{"content": {"parts": [{"text": "four"}]}}], "usageMetadata": {}}),
    "Google's arguments": (
        "google",
        {"candidates": [{"content": {"parts": [{"functionCall": {
            "partialArgs": [{"jsonPath": "$.a", "stringValue": "four", "willContinue": True}], "willContinue": True
        }}]}}]},
    ),
}  # fmt: skip
STARTS: dict[str, dict[str, Any]] = {
    "arguments": {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}}]},
    "an input": {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "tool_use", "id": "c", "name": "f"},
    },
    "Google's arguments": {
        "candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "willContinue": True}}]}}]
    },
}


@pytest.mark.parametrize("kind", LONG)
def test_the_longest_answers_that_models_give_are_far_from_every_limit(kind: str) -> None:
    """50,000 tokens, each in its own event: far more than models send today."""
    api, event = LONG[kind]
    run = Driven(api=api, sequence_limit=10**9, character_limit=10**12).respond()
    run.receive(data(STARTS[kind]) if kind in STARTS else b"")
    many = data(event) * 1000
    for _ in range(50):
        read(run, many)

    assert not run.core.has_ended
