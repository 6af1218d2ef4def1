"""Odd answers that fuzzing has found: each run still ends with one terminal message, which arrives at the client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fuzz.fuzzed_exchange import FuzzedExchange, carry_out

DEEP = b"[" * 5000 + b"]" * 5000
SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}


def outcome(api: str, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> str:
    return carry_out(FuzzedExchange(api, status, SSE if headers is None else headers, body, stream=True, choices=1))


def data(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


@pytest.mark.parametrize("api", ["openai-chat", "openai-responses", "anthropic", "google"])
@pytest.mark.parametrize(
    "odd", [DEEP, b"9" * 5000, b'"\\ud800"', b'"\xff"'], ids=["deep", "long", "surrogate", "bytes"]
)
def test_a_part_that_nobody_reads_may_hold_anything(api: str, odd: bytes) -> None:
    for event in (b'{"x": %b}', b'{"error": {"message": "m"}, "x": %b}', b'{"type": "error", "message": %b}'):
        failed = outcome(api, b"data: " + event % odd + b"\n\n")
        assert failed.startswith("failed")
        assert outcome(api, event % odd, JSON).startswith("failed")
        assert outcome(api, event % odd, JSON, status=400) == "failed invalid_request"


@pytest.mark.parametrize("integer", [2**64, 10**30, 10**400])
def test_a_call_with_an_integer_of_any_length_arrives(integer: int) -> None:
    call = {"type": "tool_use", "id": "c1", "name": "f", "input": {"n": integer}}
    message = {"type": "message", "model": "m", "content": [call], "stop_reason": "tool_use"}
    assert outcome("anthropic", json.dumps(message).encode(), JSON) == "finished tool_calls"

    said = {"parts": [{"functionCall": {"name": "f", "args": {"n": integer}}, "thoughtSignature": "c2ln"}]}
    assert outcome("google", data({"candidates": [{"content": said, "finishReason": "STOP"}]})) == "finished tool_calls"

    item = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": json.dumps({"n": integer})}
    output = [{"type": "reasoning", "id": "r1", "summary": [], "encrypted_content": "e"}, item]
    end = {"type": "response.completed", "response": {"model": "m", "status": "completed", "output": output}}
    assert outcome("openai-responses", data(end)) == "finished tool_calls"


def test_opaque_data_that_is_nested_too_deeply_fails_the_run() -> None:
    block = b'{"type": "some_new_block", "x": ' + b"[" * 300 + b"]" * 300 + b"}"
    message = b'{"type": "message", "model": "m", "content": [' + block + b'], "stop_reason": "end_turn"}'

    assert outcome("anthropic", message, JSON) == "failed provider_protocol"


def test_thousands_of_calls_without_arguments_arrive() -> None:
    calls = [{"index": at, "id": f"c{at}", "function": {"name": "f"}} for at in range(3000)]
    chunks = [{"choices": [{"delta": {"tool_calls": [call]}}]} for call in calls]
    end = {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}

    assert outcome("openai-chat", data(*chunks, end) + b"data: [DONE]\n\n") == "finished tool_calls"


@pytest.mark.parametrize("citations", [0.5, 7, "x", {"a": 1}, [None], None])
def test_citations_of_another_type_are_ignored(citations: Any) -> None:
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "citations": citations}}
    cited = {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {"url": "u"}}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}

    assert outcome("anthropic", data(start, cited, end, {"type": "message_stop"})) == "finished stop"


@pytest.mark.parametrize("kind", [[], {}, None, 0, ""])
def test_an_event_with_its_type_only_in_its_name_is_read(kind: Any) -> None:
    end = {"type": kind, "response": {"model": "m", "output": []}}

    assert outcome("openai-responses", b"event: response.completed\n" + data(end)) == "finished stop"
