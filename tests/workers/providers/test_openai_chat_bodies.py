"""Responses in one piece in the wire format openai-chat: answers and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.types import (
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    Usage,
)
from headrace.wire.messages import ToolCallText
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.openai_chat.api import API
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailedError, ProviderFailure

REQUEST = RunRequest(provider="openai", model="m", messages=[], stream=False)


def read(body: dict[str, Any] | bytes) -> Completion:
    return API.read_body(REQUEST, body if isinstance(body, bytes) else json.dumps(body).encode())


def test_a_whole_body_gives_the_same_and_a_message() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"x":'}},
    ]
    message = {"role": "assistant", "content": "t", "reasoning": "why", "tool_calls": calls}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    whole = read({"model": "gpt", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})
    assert whole == Completion(
        finish_reason="tool_calls",
        provider_finish_reason="stop",
        usage=Usage(input_tokens=3, output_tokens=1, total_tokens=4, source="provider"),
        tool_calls=[ToolCallText("a", "f", '{"x":1}'), ToolCallText("b", "g", '{"x":')],
        model="gpt",
        message=Message(
            "assistant",
            [ReasoningPart("why", {"field": "reasoning"}), TextPart("t"), ToolCallPart("a", "f", {"x": 1})],
        ),
    )


def test_a_plain_body_gives_a_plain_message() -> None:
    whole = read({"choices": [{"message": {"content": "hi"}, "finish_reason": "length"}]})
    assert (whole.message, whole.finish_reason, whole.model) == (Message("assistant", "hi"), "max_tokens", "m")


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ({"error": {"message": "m", "code": 429}}, "rate_limit", "m"),
        ({"choices": [{"error": {"message": "m", "code": 502}}]}, "provider_unavailable", "m"),
        ({"object": "error", "message": "m", "type": "invalid"}, "invalid_request", "m"),
        ({"choices": []}, "provider_protocol", "the response holds no message"),
        (
            b"<html><title>Login</title>",
            "provider_protocol",
            "the response is not a chat completion but an HTML page (Login)",
        ),
        (b"", "provider_protocol", "the response is not a chat completion but an empty body"),
    ],
)
def test_a_body_that_is_no_answer_fails(body: dict[str, Any] | bytes, kind: str, reason: str) -> None:
    with pytest.raises(ProviderFailedError) as caught:
        read(body)
    assert (caught.value.failure.kind, caught.value.failure.reason) == (kind, reason)


@pytest.mark.parametrize(
    ("status", "kind", "may_retry"),
    [
        (400, "invalid_request", False),
        (401, "authentication", False),
        (403, "authentication", False),
        (404, "invalid_request", False),
        (408, "provider_unavailable", True),
        (409, "provider_unavailable", True),
        (413, "invalid_request", False),
        (422, "invalid_request", False),
        (429, "rate_limit", True),
        (498, "provider_unavailable", True),
        (500, "provider_unavailable", True),
        (501, "provider_unavailable", False),
        (529, "provider_unavailable", True),
        (418, "invalid_request", False),
        (302, "provider_protocol", False),
    ],
)
def test_a_status_tells_the_kind(status: int, kind: Any, may_retry: bool) -> None:
    failure = API.read_error(status, {"x-request-id": "r1"}, b'{"error":{"message":"m","code":"c"}}')
    assert failure == ProviderFailure(kind, "m", status_code=status, request_id="r1", code="c", may_retry=may_retry)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error":"m"}', "m"),
        (b'{"code":"some words","error":"m"}', "m"),
        (b'{"detail":"m"}', "m"),
        (b'{"detail":[{"loc":["body"],"msg":"m"}]}', "m"),
        (b'{"message":"m"}', "m"),
        (b'[{"error":{"message":"m","status":"INVALID"}}]', "m"),
        (b'{"error":{"message":{"detail":"m"}}}', "m"),
        (b'{"x":1}', '{"x":1}'),
        (b"[]", "HTTP status 500"),
        (b"", "HTTP status 500"),
        (b"null", "HTTP status 500"),
        (b"upstream\n", "upstream"),
        (b"<html><head><title>502 Bad\nGateway</title>", "an HTML page (502 Bad Gateway)"),
        (b"<!doctype html>", "an HTML page"),
        (b"x" * 5000, "x" * 500 + "…"),
    ],
)
def test_the_reason_is_the_providers_text_in_each_form_of_an_error(body: bytes, reason: str) -> None:
    assert API.read_error(500, {}, body).reason == reason


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Sun, 02 Nov 2025 17:36:00 GMT"}, None),
        ({"retry-after": "Sun, 02 Nov 2025 17:36:00 GMT", "date": "Sun, 02 Nov 2025 17:35:49 GMT"}, 11.0),
        ({"retry-after": "Sun, 02 Nov 2025 17:35:00 GMT", "date": "Sun, 02 Nov 2025 17:35:49 GMT"}, None),
    ],
)
def test_the_wait_is_read_without_a_clock(headers: dict[str, str], wait: float | None) -> None:
    assert API.read_error(429, headers, b"").retry_after == wait
