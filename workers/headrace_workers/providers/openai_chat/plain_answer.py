"""Reads the most usual body of Chat Completions at once: one choice with text, and no field that is not known. Pure.

Each field of the body is named here. So a body that can be read here has no content but the text, and need not be searched for
content that nobody has read. Any other body is the mapper's (``stream.py``), which reads this one to the same completion.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headrace.types import FinishReason, Message, Usage
from headrace_workers.providers.shared.lenient_json import MAX_COUNT, UNREADABLE
from headrace_workers.providers.shared.usage_counts import output_and_total
from headrace_workers.providers.shared.wire_format import Completion

_Count = Annotated[int, Meta(ge=0, lt=MAX_COUNT)]
_Name = Annotated[str, Meta(max_length=1024)]
_NoItems = Annotated[list[Any], Meta(max_length=0)]
_FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "max_tokens"}


class _PlainMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    annotations: _NoItems | None = None
    tool_calls: _NoItems | None = None
    function_call: None = None
    audio: None = None
    reasoning: None = None
    reasoning_content: None = None


class _PlainChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    message: _PlainMessage
    finish_reason: Literal["stop", "length"]
    index: Literal[0] = 0
    logprobs: None = None
    stop_reason: None = None
    token_ids: None = None


class _PromptDetails(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    cached_tokens: _Count | None = None
    audio_tokens: _Count | None = None


class _AnswerDetails(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    reasoning_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    accepted_prediction_tokens: _Count | None = None
    rejected_prediction_tokens: _Count | None = None


class _PlainUsage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _AnswerDetails | None = None


class _PlainBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    choices: Annotated[list[_PlainChoice], Meta(min_length=1, max_length=1)]
    usage: _PlainUsage
    id: _Name = ""
    model: _Name = ""
    object: str = ""
    created: int = 0
    service_tier: str | None = None
    system_fingerprint: str | None = None
    prompt_logprobs: None = None
    prompt_token_ids: None = None
    kv_transfer_params: None = None


_decode = msgspec.json.Decoder(_PlainBody).decode


def read_plain(body: bytes, requested_model: str) -> Completion | None:
    """Return the answer in a body, or None if the body is not as plain as this module knows it."""
    try:
        plain = _decode(body)
    except UNREADABLE:
        return None
    choice = plain.choices[0]
    word = choice.finish_reason
    return Completion(
        finish_reason=_FINISH_REASONS[word],
        provider_finish_reason=word,
        usage=_usage(plain.usage),
        tool_calls=[],
        model=plain.model or requested_model,
        message=Message("assistant", choice.message.content),
        response_id=plain.id or None,
    )


def _usage(said: _PlainUsage) -> Usage:
    """Return the usage as :func:`headrace_workers.providers.shared.usage_counts.read_usage` does."""
    asked, answered = said.prompt_tokens, said.completion_tokens
    cached = reasoning = 0
    if (of_prompt := said.prompt_tokens_details) is not None:
        cached = of_prompt.cached_tokens or 0
    if (of_answer := said.completion_tokens_details) is not None:
        reasoning = of_answer.reasoning_tokens or 0
    answered, total = output_and_total(asked, answered, said.total_tokens, reasoning)
    return Usage(asked, answered, total, cached, 0, reasoning, "provider")
