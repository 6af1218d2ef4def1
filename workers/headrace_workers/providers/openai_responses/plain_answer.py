"""Reads the most usual body of the Responses API at once: one message with one text, and no field that is not known. Pure.

Each field of the body is named here. So a body that can be read here has no content but the text. Any other body is the mapper's
(``stream.py``), which reads this one to the same completion.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headrace.types import Message, Usage
from headrace_workers.providers.shared.lenient_json import MAX_COUNT, UNREADABLE
from headrace_workers.providers.shared.usage_counts import output_and_total
from headrace_workers.providers.shared.wire_format import Completion

_Count = Annotated[int, Meta(ge=0, lt=MAX_COUNT)]
_Name = Annotated[str, Meta(max_length=1024)]
_NoItems = Annotated[list[Any], Meta(max_length=0)]
_NoNames = Annotated[dict[str, Any], Meta(max_length=0)]


class _PlainOutputText(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["output_text"]
    text: Annotated[str, Meta(min_length=1)]
    annotations: _NoItems | None = None
    logprobs: _NoItems | None = None


class _PlainItem(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["message"]
    content: Annotated[list[_PlainOutputText], Meta(min_length=1, max_length=1)]
    id: str = ""
    role: Literal["assistant"] = "assistant"
    status: Literal["completed"] = "completed"
    phase: None = None


class _InputDetails(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    cached_tokens: _Count = 0


class _OutputDetails(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    reasoning_tokens: _Count = 0


class _PlainTokens(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    input_tokens: _Count
    output_tokens: _Count
    total_tokens: _Count
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _AskedReasoning(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: None = None


class _AskedFormat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["text"]


class _AskedText(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    format: _AskedFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class _PlainResponse(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    output: Annotated[list[_PlainItem], Meta(min_length=1, max_length=1)]
    usage: _PlainTokens
    status: Literal["completed"]
    object: Literal["response"]
    id: _Name = ""
    model: _Name = ""
    created_at: float | None = None
    completed_at: float | None = None
    error: None = None
    incomplete_details: None = None
    background: bool | None = None
    frequency_penalty: float | None = None
    instructions: None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: _NoNames | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: float | None = None
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    reasoning: _AskedReasoning | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    temperature: float | None = None
    text: _AskedText | None = None
    tool_choice: Literal["auto", "none"] | None = None
    tools: _NoItems | None = None
    top_logprobs: int | None = None
    top_p: float | None = None
    truncation: str | None = None
    user: str | None = None


_decode = msgspec.json.Decoder(_PlainResponse).decode


def read_plain(body: bytes, requested_model: str) -> Completion | None:
    """Return the answer in a body, or None if the body is not as plain as this module knows it."""
    try:
        plain = _decode(body)
    except UNREADABLE:
        return None
    return Completion(
        finish_reason="stop",
        provider_finish_reason="completed",
        usage=_usage(plain.usage),
        tool_calls=[],
        model=plain.model or requested_model,
        message=Message("assistant", plain.output[0].content[0].text),
        response_id=plain.id or None,
    )


def _usage(said: _PlainTokens) -> Usage:
    """Return the usage as ``read_usage`` of ``events.py`` does."""
    asked, answered = said.input_tokens, said.output_tokens
    cached = 0 if said.input_tokens_details is None else said.input_tokens_details.cached_tokens
    reasoning = 0 if said.output_tokens_details is None else said.output_tokens_details.reasoning_tokens
    answered, total = output_and_total(asked, answered, said.total_tokens, reasoning)
    return Usage(asked, answered, total, cached, 0, reasoning, "provider")
