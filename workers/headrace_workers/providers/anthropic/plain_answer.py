"""Reads the most usual body of the Messages API at once: one block of text, and no field that is not known. Pure.

Each field of the body is named here. So a body that can be read here has no content but the text. Any other body is the mapper's
(``stream.py``), which reads this one to the same completion.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headrace.types import FinishReason, Message, Usage
from headrace_workers.providers.shared.lenient_json import MAX_COUNT, UNREADABLE
from headrace_workers.providers.shared.wire_format import Completion

_Count = Annotated[int, Meta(ge=0, lt=MAX_COUNT)]
_Name = Annotated[str, Meta(max_length=1024)]
_FINISH_REASONS: dict[str, FinishReason] = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "max_tokens"}


class _PlainText(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["text"]
    text: Annotated[str, Meta(min_length=1)]
    citations: None = None


class _CountsByLife(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class _PlainCounts(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    input_tokens: _Count
    output_tokens: _Count
    cache_creation_input_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation: _CountsByLife | None = None
    server_tool_use: None = None
    service_tier: str | None = None
    inference_geo: str | None = None


class _PlainMessageBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: Annotated[list[_PlainText], Meta(min_length=1, max_length=1)]
    usage: _PlainCounts
    stop_reason: Literal["end_turn", "stop_sequence", "max_tokens"]
    type: Literal["message"]
    id: _Name = ""
    model: _Name = ""
    role: Literal["assistant"] = "assistant"
    stop_sequence: str | None = None
    stop_details: None = None
    container: None = None
    context_management: None = None


_decode = msgspec.json.Decoder(_PlainMessageBody).decode


def read_plain(body: bytes, requested_model: str) -> Completion | None:
    """Return the answer in a body, or None if the body is not as plain as this module knows it."""
    try:
        plain = _decode(body)
    except UNREADABLE:
        return None
    counts = plain.usage
    written, cached = counts.cache_creation_input_tokens, counts.cache_read_input_tokens or 0
    if written is None:
        if counts.cache_creation is not None:
            return None  # the tokens that were written are told by their life only
        written = 0
    word = plain.stop_reason
    asked, answered = counts.input_tokens + written + cached, counts.output_tokens
    return Completion(
        finish_reason=_FINISH_REASONS[word],
        provider_finish_reason=word,
        usage=Usage(asked, answered, asked + answered, cached, written, 0, "provider"),
        tool_calls=[],
        model=plain.model or requested_model,
        message=Message("assistant", plain.content[0].text),
        response_id=plain.id or None,
    )
