"""The good inputs that are then spoiled.

The recorded responses of HEADRACE_WIRE, if the folder is there, and a few of our own.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec

from tests.workers import corpus

WIRES = {
    "openai-chat": "openai.chat",
    "openai-responses": "openai.responses",
    "anthropic": "anthropic.messages",
    "google": "google.generate",
}
"""By the names of the wire formats, the names in the recordings."""

_SSE = {"content-type": "text/event-stream"}
_JSON = {"content-type": "application/json", "x-request-id": "req_1"}


class Seed(msgspec.Struct, frozen=True):
    """One response; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@cache
def seeds_of(api: str) -> list[Seed]:
    """Return the responses of a wire format."""
    recorded = [corpus.load(name) for name in corpus.case_names(WIRES[api])]
    return [*_own(api), *(Seed(case.status, case.headers, case.body) for case in recorded)]


def _own(api: str) -> list[Seed]:
    body = {"error": {"message": "too many", "type": "rate_limit_error", "code": "rate_limit_exceeded", "status": "X"}}
    failure = Seed(429, {**_JSON, "retry-after": "3"}, json.dumps(body).encode())
    stream = Seed(200, _SSE, b"".join(_event(event, name=api != "openai-chat") for event in _STREAMS[api]) + _END[api])
    whole = Seed(200, _JSON, json.dumps(_BODIES[api]).encode())
    return [stream, whole, failure]


def _event(event: dict[str, Any], *, name: bool) -> bytes:
    head = f"event: {event['type']}\n".encode() if name and "type" in event else b""
    return head + b"data: " + json.dumps(event).encode() + b"\n\n"


_END = {"openai-chat": b"data: [DONE]\n\n", "openai-responses": b"", "anthropic": b"", "google": b""}


def _choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def _candidate(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0, **more}
    return {"candidates": [candidate], "modelVersion": "m-1", "responseId": "r1"}


_ITEM: dict[str, Any] = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "f",
    "arguments": '{"a": 1}',
}
_RESPONSE = {
    "model": "m-1",
    "status": "completed",
    "output": [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "e",
        },
        {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
        _ITEM,
    ],
    "usage": {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11},
}
_CHAT_CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
_CHAT_USAGE = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
_BLOCKS: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "text", "text": "Hello"},
    {"type": "tool_use", "id": "tu_1", "name": "f", "input": {"a": 1}},
    {"type": "server_tool_use", "id": "st_1", "name": "web_search", "input": {"query": "q"}},
]
_ANTHROPIC_USAGE = {"input_tokens": 5, "output_tokens": 6, "cache_read_input_tokens": 2}
_GOOGLE_USAGE = {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 6, "totalTokenCount": 11}}
_GOOGLE_CALL = {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"}

_STREAMS: dict[str, list[dict[str, Any]]] = {
    "openai-chat": [
        _choice({"role": "assistant", "reasoning_content": "hm"}),
        _choice({"content": "Hel"}),
        _choice({"content": "lo"}),
        _choice({"tool_calls": [_CHAT_CALL]}),
        _choice({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
        _choice({"refusal": "no"}, "tool_calls"),
        {"choices": [], "usage": _CHAT_USAGE},
    ],
    "openai-responses": [
        {"type": "response.created", "response": {"model": "m-1", "status": "in_progress", "output": []}},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "hm"},
        {"type": "response.output_text.delta", "output_index": 1, "delta": "Hello"},
        {"type": "response.output_item.added", "output_index": 2, "item": _ITEM | {"arguments": ""}},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "item_id": "fc_1", "delta": '{"a": 1}'},
        {"type": "response.output_item.done", "output_index": 2, "item": _ITEM},
        {"type": "response.completed", "response": _RESPONSE},
    ],
    "anthropic": [
        {"type": "message_start", "message": {"model": "m-1", "content": [], "usage": _ANTHROPIC_USAGE}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_start", "index": 2, "content_block": _BLOCKS[2] | {"input": {}}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}'}},
        {"type": "content_block_start", "index": 3, "content_block": _BLOCKS[3]},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": _ANTHROPIC_USAGE},
        {"type": "message_stop"},
    ],
    "google": [
        _candidate({"text": "hm", "thought": True}),
        _candidate({"text": "Hel"}),
        _candidate({"text": "lo", "thoughtSignature": "c2ln"}),
        _candidate(
            {
                "functionCall": {
                    "name": "g",
                    "partialArgs": [{"jsonPath": "$.a", "numberValue": 1}],
                    "willContinue": True,
                }
            }
        ),
        _candidate({"functionCall": {"partialArgs": [{"jsonPath": "$.b[0]", "stringValue": "x"}]}}),
        _candidate(_GOOGLE_CALL, continuationToken="dG9r"),
        _candidate({"text": "!"}, finishReason="CONTINUATION", continuationToken="dG9rZW4="),
        _candidate({"text": "end"}, finishReason="STOP") | _GOOGLE_USAGE,
    ],
}
_BODIES: dict[str, dict[str, Any]] = {
    "openai-chat": {
        "model": "m-1",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Hello", "tool_calls": [_CHAT_CALL]}}],
        "usage": _CHAT_USAGE,
    },
    "openai-responses": _RESPONSE,
    "anthropic": {
        "type": "message",
        "model": "m-1",
        "content": _BLOCKS,
        "stop_reason": "tool_use",
        "usage": _ANTHROPIC_USAGE,
    },
    "google": _candidate({"text": "Hello"}, _GOOGLE_CALL, finishReason="STOP") | _GOOGLE_USAGE,
}
