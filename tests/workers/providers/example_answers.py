"""An example answer in each wire format, streamed and whole.

The text "Hello", and a call ``look`` with ``{"at": 1}``.
"""

from __future__ import annotations

import json
from typing import Any

APIS = ("openai-chat", "openai-responses", "anthropic", "google")

_CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
_CHAT_USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
_RESPONSE = {
    "id": "r1",
    "model": "m",
    "status": "completed",
    "output": [
        {"type": "message", "id": "i1", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
        {"type": "function_call", "id": "i2", "call_id": "c1", "name": "look", "arguments": '{"at": 1}'},
    ],
    "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
}
_GOOGLE_CALL = {"functionCall": {"id": "c1", "name": "look", "args": {"at": 1}}}
_GOOGLE_USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}

WHOLE: dict[str, dict[str, Any]] = {
    "openai-chat": {
        "id": "r1",
        "model": "m",
        "choices": [{"message": {"content": "Hello", "tool_calls": [_CALL]}, "finish_reason": "tool_calls"}],
        "usage": _CHAT_USAGE,
    },
    "openai-responses": _RESPONSE,
    "anthropic": {
        "type": "message",
        "model": "m",
        "content": [
            {"type": "text", "text": "Hello"},
            {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 4},
    },
    "google": {
        "candidates": [{"content": {"parts": [{"text": "Hello"}, _GOOGLE_CALL]}, "finishReason": "STOP"}],
        "usageMetadata": _GOOGLE_USAGE,
        "modelVersion": "m",
    },
}

STREAMED: dict[str, list[dict[str, Any]]] = {
    "openai-chat": [
        {"model": "m", "choices": [{"delta": {"content": "Hel"}}]},
        {"choices": [{"delta": {"content": "lo"}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, **_CALL}]}}]},
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": _CHAT_USAGE},
    ],
    "openai-responses": [
        {"type": "response.created", "response": {"id": "r1", "model": "m"}},
        {"type": "response.output_text.delta", "delta": "Hel"},
        {"type": "response.output_text.delta", "delta": "lo"},
        {"type": "response.completed", "response": _RESPONSE},
    ],
    "anthropic": [
        {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "c1", "name": "look"}},
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": '{"at": 1}'},
        },
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 4}},
        {"type": "message_stop"},
    ],
    "google": [
        {"candidates": [{"content": {"parts": [{"text": "Hel"}]}}], "modelVersion": "m"},
        {"candidates": [{"content": {"parts": [{"text": "lo"}]}}]},
        {
            "candidates": [{"content": {"parts": [_GOOGLE_CALL]}, "finishReason": "STOP"}],
            "usageMetadata": _GOOGLE_USAGE,
        },
    ],
}


def whole(api: str) -> bytes:
    """Return the answer in one piece."""
    return json.dumps(WHOLE[api]).encode()


def events(api: str) -> list[bytes]:
    """Return the answer as server-sent events. The last event is its end."""
    said = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in STREAMED[api]]
    return [*said, b"data: [DONE]\n\n"] if api == "openai-chat" else said
