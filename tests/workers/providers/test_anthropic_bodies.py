"""Responses in one piece in the wire format anthropic: answers and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.types import Message, ReasoningPart, TextPart, ToolCallPart, Usage
from headrace.wire.messages import ToolCallText
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.anthropic.api import API
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailedError, ProviderFailure

REQUEST = RunRequest(provider="anthropic", model="claude", messages=[], stream=False)

JSON = dict[str, Any]


def read(body: JSON | bytes) -> Completion:
    return API.read_body(REQUEST, body if isinstance(body, bytes) else json.dumps(body).encode())


def opaque(**block: Any) -> JSON:
    return {"api": "anthropic", "block": block}


def test_a_whole_body_gives_the_same_and_a_message() -> None:
    content = [
        {"type": "thinking", "thinking": "why", "signature": "s"},
        {"type": "text", "text": "t", "citations": None},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}, "caller": {"type": "direct"}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {}, "caller": {"type": "code", "tool_id": "c"}},
    ]
    usage = {"input_tokens": 3, "output_tokens": 2}
    whole = read({"model": "claude-x", "content": content, "stop_reason": "tool_use", "usage": usage})
    assert whole == Completion(
        finish_reason="tool_calls",
        provider_finish_reason="tool_use",
        usage=Usage(3, 2, 5, source="provider"),
        tool_calls=[ToolCallText("a", "f", '{"x":1}'), ToolCallText("b", "g", "{}")],
        model="claude-x",
        message=Message(
            "assistant",
            [
                ReasoningPart("why", opaque(type="thinking", signature="s")),
                TextPart("t"),
                ToolCallPart("a", "f", {"x": 1}),
                ToolCallPart("b", "g", {}, opaque(caller={"type": "code", "tool_id": "c"})),
            ],
        ),
    )


def test_a_plain_body_gives_a_plain_message() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    whole = read({"content": content, "stop_reason": "max_tokens"})
    assert (whole.message, whole.finish_reason) == (Message("assistant", "ab"), "max_tokens")
    assert read({"content": [], "stop_reason": "refusal"}).message == Message("assistant", "")


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, "provider_unavailable", "m"),
        ({"id": "x"}, "provider_protocol", "the response holds no message"),
        (b"[]", "provider_protocol", "the response holds no message"),
        (b"<html><title>Hi", "provider_protocol", "the response is not a message but an HTML page (Hi)"),
        (b"", "provider_protocol", "the response is not a message but an empty body"),
    ],
)
def test_a_body_that_is_no_answer_fails(body: JSON | bytes, kind: str, reason: str) -> None:
    with pytest.raises(ProviderFailedError) as caught:
        read(body)
    assert (caught.value.failure.kind, caught.value.failure.reason) == (kind, reason)


@pytest.mark.parametrize(
    ("status", "kind", "may_retry"),
    [
        (400, "invalid_request", False),
        (401, "authentication", False),
        (402, "invalid_request", False),
        (403, "authentication", False),
        (404, "invalid_request", False),
        (408, "provider_unavailable", True),
        (413, "invalid_request", False),
        (422, "invalid_request", False),
        (429, "rate_limit", True),
        (500, "provider_unavailable", True),
        (502, "provider_unavailable", True),
        (503, "provider_unavailable", True),
        (504, "provider_unavailable", True),
        (529, "provider_unavailable", True),
    ],
)
def test_a_status_tells_the_kind(status: int, kind: Any, may_retry: bool) -> None:
    body = b'{"type":"error","error":{"type":"t","message":"m"},"request_id":"r2"}'
    failure = ProviderFailure(
        kind, "m", status_code=status, request_id="r1", code="t", may_retry=may_retry, is_final=status == 402
    )
    assert API.read_error(status, {"request-id": "r1"}, body) == failure
    assert API.read_error(status, {}, body).request_id == "r2"


def test_a_spending_limit_keeps_its_code_and_its_wait() -> None:
    error = {"type": "rate_limit_error", "message": "m", "details": {"error_code": "enforced_spend_limit_reached"}}
    failure = API.read_error(429, {"retry-after": "7"}, json.dumps({"type": "error", "error": error}).encode())
    assert (failure.kind, failure.code, failure.retry_after) == ("rate_limit", "enforced_spend_limit_reached", 7.0)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'"m"', b'{"error":"m"}', b'{"error":{"details":[]}}'])
def test_an_error_body_of_a_proxy_is_read(body: bytes) -> None:
    failure = API.read_error(503, {}, body)
    assert failure.kind == "provider_unavailable"
    assert failure.reason
