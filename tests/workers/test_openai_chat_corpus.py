"""Recorded Chat Completions responses give what the official SDK makes of them, however the network split them.

The recordings are no part of the project: HEADRACE_WIRE says where they are.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.types import Message, ReasoningDelta, RefusalDelta, RunEvent, ToolCallDelta, Usage
from headrace.wire.messages import RunRequest
from headrace_workers.providers.openai_chat import API
from headrace_workers.providers.protocol import Completion, ProviderFailedError, ProviderFailure
from headrace_workers.sse import SSEParser

ROOT = Path(__file__).resolve().parents[2]
WIRE = Path(os.environ.get("HEADRACE_WIRE", ROOT.parent / "shared" / "wire"))
MAX_BYTEWISE = 200_000
EXPECTATION_IS_WRONG: dict[str, tuple[set[str], str]] = {
    "openai-chat--mistral--text--82c5d0": (
        {"text", "reasoning"},
        "the SDK drops content in parts: of the text 144 it keeps 44, of the thinking nothing",
    ),
    "openai-chat--mistral--text--9365bf": ({"reasoning"}, "the SDK drops content in parts, here all of the thinking"),
}
"""Cases whose expectation is wrong: in which fields, and why."""

REQUEST = RunRequest(provider="openai", model="m", messages=[Message("user", "hi")], stream=True)
CASES = [case["name"] for case in json.loads((WIRE / "index.json").read_text())] if WIRE.is_dir() else []
CASES = [name for name in CASES if name.startswith("openai-chat--")]

pytestmark = pytest.mark.skipif(not CASES, reason=f"no recordings in {WIRE}")


class Outcome(msgspec.Struct, frozen=True):
    """What a stream came to, from its events, its completion and its failure."""

    text: str
    reasoning: str
    refusal: str
    calls: list[tuple[str, str, str]]
    usage: Usage
    completion: Completion | None
    failure: ProviderFailure | None


def replay(reads: list[bytes]) -> Outcome:
    parser, mapper = SSEParser(), API.open_stream(REQUEST)
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
    return Outcome(
        "".join(event for event in events if isinstance(event, str)),
        "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        "".join(event.text for event in events if isinstance(event, RefusalDelta)),
        assemble([event for event in events if isinstance(event, ToolCallDelta)]),
        completion.usage if completion else mapper.usage,
        completion,
        failure,
    )


def assemble(deltas: list[ToolCallDelta]) -> list[tuple[str, str, str]]:
    calls: list[list[str]] = []
    for delta in deltas:
        if delta.index == len(calls):
            calls.append(["", "", ""])
        call = calls[delta.index]
        call[0], call[1] = delta.id or call[0], delta.name or call[1]
        call[2] += delta.arguments
    return [(call_id, name, arguments) for call_id, name, arguments in calls]


def split(body: bytes, sizes: list[int]) -> list[bytes]:
    reads, start = [], 0
    for size in sizes:
        reads.append(body[start : start + size])
        start += size
    return [*reads, body[start:]] if start < len(body) else reads


def expected_usage(said: dict[str, Any] | None) -> tuple[int, ...]:
    if not said:
        return (0,) * 6
    names = ("input", "output", "total", "cached", "cache_write", "reasoning")
    count = {name: said[name] or 0 for name in names}
    if count["total"] == count["input"] + count["output"] + count["reasoning"]:
        count["output"] += count["reasoning"]  # headrace's output includes reasoning
    return tuple(count[name] for name in names)


def check_stream(outcome: Outcome, expected: dict[str, Any], wrong: set[str]) -> None:
    suspect = (expected.get("sdk_suspect") or "").partition(":")[0]
    for field in {"text", "reasoning"} - wrong:
        assert getattr(outcome, field) == (expected[field] or "")
    assert outcome.refusal == (expected["refusal"] or "")
    if suspect != "tool_calls":
        calls = [(call["id"] or "", call["name"], call["arguments"] or "") for call in expected["tool_calls"]]
        assert [
            (call[0] if said[0] else "", *call[1:]) for call, said in zip(outcome.calls, calls, strict=True)
        ] == calls
    if expected["error"] is not None:
        assert outcome.failure is not None
        assert outcome.failure.reason == expected["error"]["message"]
        assert outcome.failure.code == str(expected["error"]["code"] or expected["error"]["type"])
        return
    usage = msgspec.structs.astuple(outcome.usage)
    assert usage[:-1] == expected_usage(expected["usage"])
    assert outcome.completion is not None
    assert outcome.completion.provider_finish_reason == expected["finish_reason"]
    assert outcome.completion.model == (expected["model"] or outcome.completion.model)
    assert usage[-1] == ("provider" if expected["usage"] else "none")
    assert [(call.id, call.name) for call in outcome.completion.tool_calls] == [call[:2] for call in outcome.calls]


def is_cut(body: bytes, expected: dict[str, Any]) -> bool:
    return b"[DONE]" not in body and not expected["finish_reason"] and expected["error"] is None


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_response_gives_what_the_official_sdk_makes_of_it(name: str) -> None:
    folder = WIRE / name
    body = (folder / "body").read_bytes()
    response = json.loads((folder / "response.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())
    wrong, _ = EXPECTATION_IS_WRONG.get(name, (set[str](), ""))
    if response["status"] != 200:
        check_error(response, body, expected["error"])
        return
    outcome = replay([body])
    if is_cut(body, expected):
        assert outcome.failure is not None
        assert outcome.failure.kind == "provider_protocol"
        assert outcome.text == (expected["text"] or "")
    else:
        check_stream(outcome, expected, wrong)
    chunks = folder / "chunks.json"
    if chunks.exists():
        assert replay(split(body, json.loads(chunks.read_text()))) == outcome
    if len(body) < MAX_BYTEWISE:
        assert replay([body[i : i + 1] for i in range(len(body))]) == outcome


def check_error(response: dict[str, Any], body: bytes, expected: dict[str, Any]) -> None:
    headers = {name.lower(): value for name, value in response["headers"]}
    failure = API.read_error(response["status"], headers, body)
    assert failure.status_code == expected["status"]
    assert failure.status_code is not None
    kinds = {401: "authentication", 403: "authentication", 429: "rate_limit"}
    usual = "invalid_request" if failure.status_code < 500 else "provider_unavailable"
    assert failure.kind == kinds.get(failure.status_code, usual)
    assert failure.reason
    # The SDK has words of its own where it finds no message.
    if not expected["message"].startswith("Error code:"):
        assert failure.reason == expected["message"].strip()
        assert failure.code == (
            str(expected["code"] or expected["type"]) if expected["code"] or expected["type"] else None
        )
    assert failure.request_id == headers.get("x-request-id")
