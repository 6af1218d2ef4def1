"""Reads recorded responses with the pure part of a wire format, and compares the result with that of the official SDK.

The recordings are no part of the project: HEADRACE_WIRE says where they are. Knows no provider; what differs between them
is in :class:`Comparison`. ``compare`` takes an outcome wherever it came from: ``tests/replay`` hands it what a client got.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.types import (
    Message,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RunEvent,
    ToolCallDelta,
    Usage,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.sse import SSEParser
from headrace_workers.providers.shared.wire_format import Completion, ProviderApi, ProviderFailedError, ProviderFailure

ROOT = Path(__file__).resolve().parents[2]
WIRE = Path(os.environ.get("HEADRACE_WIRE", ROOT.parent / "shared" / "wire"))
MAX_BYTEWISE = 200_000

needs_recordings = pytest.mark.skipif(not (WIRE / "index.json").exists(), reason=f"no recordings in {WIRE}")
"""For ``pytestmark`` of each test of recordings."""

_EVENT_END = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")

Call = tuple[str, str, str]
"""Id, name and arguments of a tool call."""


class Recording(msgspec.Struct, frozen=True):
    """One recording. ``reads`` are the lengths of the network reads, where they are known; header names are lower case."""

    name: str
    status: int
    headers: dict[str, str]
    body: bytes
    reads: list[int]
    expected: dict[str, Any]


class AnswerOutcome(msgspec.Struct, frozen=True):
    """What a response came to, from its events, its completion and its failure; through a client or without one."""

    text: str
    reasoning: str
    refusal: str
    calls: list[Call]
    usage: Usage
    completion: Completion | None
    failure: ProviderFailure | None


def word_of(error: dict[str, Any]) -> Any:
    """Return an error's code; where that is a figure, its type, if it has one, which says more."""
    code = error["code"] or error["type"]
    return error["type"] or code if str(code).isdigit() else code


class Comparison(msgspec.Struct, frozen=True):
    """How one provider's recordings are compared.

    ``usage`` gives the six figures of :class:`Usage` for the SDK's own (never called for None), ``finish_word`` the provider's
    finish reason, ``error_code`` the code of an HTTP error, ``is_cut`` says of a stream without error that it must fail since
    its end is missing. ``wrong`` names the cases whose expectation is wrong: in which fields (text, reasoning, refusal,
    tool_calls, usage, finish_reason, error, model), and why.
    """

    api: ProviderApi
    usage: Callable[[dict[str, Any]], tuple[int, ...]]
    is_cut: Callable[[Recording], bool]
    finish_word: Callable[[dict[str, Any]], str | None] = lambda expected: expected["finish_reason"]
    error_code: Callable[[dict[str, Any]], Any] = word_of
    wrong: dict[str, tuple[set[str], str]] = {}
    request: RunRequest = RunRequest(provider="p", model="m", messages=[Message("user", "hi")], stream=True)


def case_names(wire: str) -> list[str]:
    """Return the names of the recordings of a wire format: ``openai.chat``, ``anthropic.messages`` …"""
    if not (WIRE / "index.json").exists():
        return []
    return [case["name"] for case in _index() if case["wire"] == wire]


def load(name: str) -> Recording:
    """Read one recording."""
    folder = WIRE / name
    response = json.loads((folder / "response.json").read_text())
    reads = folder / "chunks.json"
    return Recording(
        name=name,
        status=response["status"],
        headers={key.lower(): value for key, value in response["headers"]},
        body=(folder / "body").read_bytes(),
        reads=json.loads(reads.read_text()) if reads.exists() else [],
        expected=json.loads((folder / "expected.json").read_text()),
    )


def check(reading: Comparison, name: str) -> None:
    """Map one recording, in three chunkings where it is a stream, and compare the outcome."""
    case = load(name)
    if case.status != 200:
        failure = reading.api.read_error(case.status, case.headers, case.body)
        compare(reading, case, AnswerOutcome("", "", "", [], Usage(), None, failure))
        return
    outcomes = [outcome_of(reading, case, reads) for reads in chunkings(case)]
    assert all(outcome == outcomes[0] for outcome in outcomes[1:])
    compare(reading, case, outcomes[0])


def compare(reading: Comparison, case: Recording, outcome: AnswerOutcome) -> None:
    """Raise AssertionError where an outcome is not the expected one."""
    wrong, _ = reading.wrong.get(case.name, (set[str](), ""))
    if case.status != 200:
        check_error(reading, outcome, case, wrong)
    elif case.expected["error"] is None and reading.is_cut(case):
        check_cut(outcome, case, wrong)
    else:
        check_outcome(reading, outcome, case, wrong)


def chunkings(case: Recording) -> list[list[bytes]]:
    """Return a body all at once, as it was recorded, and one byte at a time."""
    ways = [[case.body]]
    if case.reads:
        ways.append(as_recorded(case))
    if len(case.body) < MAX_BYTEWISE:
        ways.append(bytewise(case))
    return ways


def as_recorded(case: Recording) -> list[bytes]:
    """Return a body in the network reads of the recording; if they are not known, event by event."""
    if not case.reads:
        return [event for event in _EVENT_END.split(case.body) if event]
    pieces, start = [], 0
    for size in case.reads:
        pieces.append(case.body[start : start + size])
        start += size
    return [*pieces, case.body[start:]] if start < len(case.body) else pieces


def bytewise(case: Recording) -> list[bytes]:
    """Return a body one byte at a time."""
    return [case.body[at : at + 1] for at in range(len(case.body))]


def outcome_of(reading: Comparison, case: Recording, reads: list[bytes]) -> AnswerOutcome:
    """Map a response with status 200, as the worker does: a JSON body whole, anything else as a stream."""
    if case.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        return read_body(reading, b"".join(reads))
    return replay(reading, reads)


def replay(reading: Comparison, reads: list[bytes]) -> AnswerOutcome:
    """Map a stream."""
    parser, mapper = SSEParser(), reading.api.open_stream(reading.request)
    events: list[RunEvent] = []
    completion, failure = None, None
    try:
        for read in reads:
            for name, data in parser.feed(read):
                mapper.feed(name, data, events)
        for name, data in parser.finish():
            mapper.feed(name, data, events)
        completion = mapper.finish()
    except ProviderFailedError as error:
        failure = error.failure
    return AnswerOutcome(
        "".join(event for event in events if isinstance(event, str)),
        "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        "".join(event.text for event in events if isinstance(event, RefusalDelta)),
        assemble([event for event in events if isinstance(event, ToolCallDelta)]),
        completion.usage if completion else mapper.usage,
        completion,
        failure,
    )


def read_body(reading: Comparison, body: bytes) -> AnswerOutcome:
    """Map a whole response."""
    try:
        whole = reading.api.read_body(reading.request, body)
    except ProviderFailedError as error:
        return AnswerOutcome("", "", "", [], Usage(), None, error.failure)
    message = whole.message
    assert message is not None
    parts = [] if isinstance(message.content, str) else message.content
    reasoning = "".join(part.text for part in parts if isinstance(part, ReasoningPart))
    calls = [(call.id, call.name, call.arguments) for call in whole.tool_calls]
    return AnswerOutcome(message.text, reasoning, whole.refusal or "", calls, whole.usage, whole, None)


def assemble(deltas: list[ToolCallDelta]) -> list[Call]:
    """Put tool calls together; their indexes must count up in order of appearance."""
    calls: list[list[str]] = []
    for delta in deltas:
        if delta.index == len(calls):
            calls.append(["", "", ""])
        call = calls[delta.index]
        call[0], call[1] = delta.id or call[0], delta.name or call[1]
        call[2] += delta.arguments
    return [(call_id, name, arguments) for call_id, name, arguments in calls]


def check_cut(outcome: AnswerOutcome, case: Recording, wrong: set[str]) -> None:
    """A stream without its end fails, after all that had come."""
    assert outcome.failure is not None
    assert outcome.failure.kind == "provider_protocol"
    check_content(outcome, case, wrong)


def check_outcome(reading: Comparison, outcome: AnswerOutcome, case: Recording, wrong: set[str]) -> None:
    """Compare a response that reached its end, be it an error."""
    expected = case.expected
    check_content(outcome, case, wrong)
    if expected["error"] is not None:
        assert outcome.failure is not None
        if "error" not in wrong:
            assert outcome.failure.reason == expected["error"]["message"]
            assert outcome.failure.code == str(word_of(expected["error"]))
        return
    completion = outcome.completion
    assert completion is not None, outcome.failure
    if "usage" not in wrong:
        figures = reading.usage(expected["usage"]) if expected["usage"] else (0,) * 6
        *told, requests = msgspec.structs.astuple(outcome.usage)
        assert told == [*figures, "provider" if expected["usage"] else "none"]
        assert isinstance(requests, dict)
    if "finish_reason" not in wrong:
        assert completion.provider_finish_reason == reading.finish_word(expected)
    if "model" not in wrong:
        assert completion.model == (expected["model"] or completion.model)
    assert [(call.id, call.name) for call in completion.tool_calls] == [call[:2] for call in outcome.calls]


def check_content(outcome: AnswerOutcome, case: Recording, wrong: set[str]) -> None:
    """Compare text, reasoning, refusal and tool calls."""
    suspect = (case.expected.get("sdk_suspect") or "").partition(":")[0]
    for field in ("text", "reasoning", "refusal"):
        if field not in wrong and field != suspect:
            assert getattr(outcome, field) == (case.expected[field] or "")
    if "tool_calls" in wrong or suspect == "tool_calls":
        return
    said = case.expected["tool_calls"]
    # The id of a call that came without one is the mapper's.
    got = [(call[0] if want["id"] else "", call[1]) for call, want in zip(outcome.calls, said, strict=True)]
    assert got == [(want["id"] or "", want["name"]) for want in said]
    for call, want in zip(outcome.calls, said, strict=True):
        check_arguments(call[2], want)


def check_arguments(arguments: str, want: dict[str, Any]) -> None:
    """Compare a call's arguments: as text where the SDK keeps the text, else as what it reads from the text."""
    if want["arguments"] is not None or want.get("arguments_json") is None:
        assert arguments == (want["arguments"] or "")
        return
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError:
        parsed = read_cut(arguments)
    assert parsed == want["arguments_json"]


def read_cut(arguments: str) -> Any:
    """Read what is whole of JSON that max_tokens cut, as the SDKs do."""
    for end in range(len(arguments), 0, -1):
        closing: list[str] = []
        for mark in re.sub(r'"(?:[^"\\]|\\.)*"', "", arguments[:end]):
            if mark in "{[":
                closing.insert(0, "}" if mark == "{" else "]")
            elif mark in "}]" and closing:
                closing.pop(0)
        try:
            return json.loads(arguments[:end].rstrip(", \n") + "".join(closing))
        except ValueError:
            pass
    return {}


def check_error(reading: Comparison, outcome: AnswerOutcome, case: Recording, wrong: set[str]) -> None:
    """Compare a response with another status than 200."""
    failure, expected = outcome.failure, case.expected["error"]
    assert failure is not None
    assert failure.status_code == expected["status"] == case.status
    kinds = {401: "authentication", 403: "authentication", 429: "rate_limit"}
    usual = "invalid_request" if case.status < 500 else "provider_unavailable"
    assert failure.kind == kinds.get(case.status, usual)
    assert failure.reason
    # The SDK has words of its own where it finds no message.
    if "error" not in wrong and not expected["message"].startswith("Error code:"):
        assert failure.reason == expected["message"].strip()
        code = reading.error_code(expected)
        assert failure.code == (str(code) if code else None)
    request_id = case.headers.get("x-request-id") or case.headers.get("request-id")
    assert failure.request_id == (request_id or failure.request_id)


@cache
def _index() -> list[dict[str, Any]]:
    index = json.loads((WIRE / "index.json").read_text())
    assert isinstance(index, list)
    return index
