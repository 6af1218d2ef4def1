"""Writes a result as the body of OpenAI's Chat Completions, whatever provider it came from. Pure.

What Chat Completions has no key for stands beside its keys, as compatible servers have it: ``reasoning_content``,
``images``, ``files``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from headrace.types import FilePart, FinishReason, ImagePart, RunLocalResult, TokenLogprob, Usage

_FINISH_REASONS: dict[FinishReason | None, str] = {
    "stop": "stop",
    "tool_calls": "tool_calls",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "error": "content_filter",  # OpenAI has no word for it; this one tells a program that the answer is not whole
    None: "stop",
}
_encode = msgspec.json.Encoder().encode


class CompletionTokens(msgspec.Struct, frozen=True, gc=False):
    """OpenAI's ``completion_tokens_details``."""

    reasoning_tokens: int


class PromptTokens(msgspec.Struct, frozen=True, gc=False):
    """OpenAI's ``prompt_tokens_details``."""

    cached_tokens: int
    cache_write_tokens: int | UnsetType = UNSET


class CompletionUsage(msgspec.Struct, frozen=True):
    """OpenAI's ``usage`` of a completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens
    completion_tokens_details: CompletionTokens


class NamedFunction(msgspec.Struct, frozen=True, gc=False):
    """The function of a call, with its arguments as the text of JSON."""

    name: str
    arguments: str


class ChatToolCall(msgspec.Struct, frozen=True):
    """An item of OpenAI's ``tool_calls``."""

    id: str
    function: NamedFunction
    type: str = "function"


class CompletionMessage(msgspec.Struct, frozen=True):
    """OpenAI's message of the assistant."""

    role: str
    content: str | None
    refusal: str | None
    tool_calls: list[ChatToolCall] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    audio: dict[str, Any] | UnsetType = UNSET
    images: list[dict[str, Any]] | UnsetType = UNSET
    files: list[FilePart] | UnsetType = UNSET


class CompletionChoice(msgspec.Struct, frozen=True):
    """The one choice of a completion."""

    index: int
    message: CompletionMessage
    logprobs: dict[str, Any] | None
    finish_reason: str


class ChatCompletion(msgspec.Struct, frozen=True):
    """OpenAI's ``chat.completion``."""

    id: str
    object: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None


def completion_of(result: RunLocalResult, now: float) -> ChatCompletion:
    """Return the completion of a result. ``now``: seconds since the epoch."""
    calls = calls_of(result)
    message = CompletionMessage(
        "assistant",
        result.text or (None if calls or result.refusal else ""),
        result.refusal,
        calls or UNSET,
        result.reasoning or UNSET,
        *_media_of(result),
    )
    logprobs = None if result.logprobs is None else _logprobs(result)
    choice = CompletionChoice(0, message, logprobs, _FINISH_REASONS.get(result.finish_reason, "stop"))
    return ChatCompletion(
        f"chatcmpl-{result.span_id[3:]}",
        "chat.completion",
        int(now),
        result.model,
        [choice],
        _usage(result.usage),
    )


def calls_of(result: RunLocalResult) -> list[ChatToolCall]:
    """Return the calls in OpenAI's form. A call that was cut off is the last, as OpenAI has it, with the text so far."""
    if not result.tool_calls and not result.incomplete_tool_calls:
        return []
    whole = [ChatToolCall(call.id, NamedFunction(call.name, as_text(call.arguments))) for call in result.tool_calls]
    cut = [ChatToolCall(call.id, NamedFunction(call.name, call.arguments)) for call in result.incomplete_tool_calls]
    return whole + cut


def as_text(arguments: dict[str, Any]) -> str:
    """Return the arguments of a call as the text of JSON."""
    return _encode(arguments).decode()


def logprobs_of(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Return log probabilities with all keys that OpenAI's have."""
    return [_token(token) | {"top_logprobs": [_token(top) for top in token.top_logprobs]} for token in tokens]


def image_address(image: ImagePart) -> str | None:
    """Return where an image is: its address, or the image itself as a ``data:`` URL. None: it has only an id."""
    if image.data is not None:
        return f"data:{image.media_type or 'image/png'};base64,{image.data}"
    return image.url


def _token(token: Any) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.logprob, "bytes": token.bytes}


def _logprobs(result: RunLocalResult) -> dict[str, Any]:
    tokens = logprobs_of(result.logprobs or [])
    return {"content": None, "refusal": tokens} if result.refusal else {"content": tokens, "refusal": None}


def _usage(usage: Usage) -> CompletionUsage | None:
    if usage.source == "none":
        return None
    return CompletionUsage(
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        PromptTokens(usage.cached_input_tokens, usage.cache_write_tokens or UNSET),
        CompletionTokens(usage.reasoning_tokens),
    )


def _media_of(result: RunLocalResult) -> tuple[Any, Any, Any]:
    """Return the audio, the images and the files that the model made."""
    if type(result.message.content) is str:
        return UNSET, UNSET, UNSET
    images = [{"type": "image_url", "image_url": {"url": image_address(image)}} for image in result.images]
    audio: Any = UNSET
    if result.audio:
        made = result.audio[0]
        own = (made.provider_data or {}).get("audio")
        known = own if isinstance(own, dict) else {}
        audio = {
            "id": str(known.get("id") or f"audio_{result.span_id[3:]}"),
            "data": made.data or "",
            "expires_at": known.get("expires_at") if isinstance(known.get("expires_at"), int) else 0,
            "transcript": made.transcript or "",
        }
    return audio, images or UNSET, result.files or UNSET
