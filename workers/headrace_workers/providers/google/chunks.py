"""Decodes a GenerateContentResponse: fast if the JSON is regular, else leniently. Pure.

The meaning of a response is the mapper's business (``stream.py``).
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from headrace.types import Usage, UsageSource
from headrace_workers.providers.shared.lenient_json import UNREADABLE, as_count, loads_with_halves

_NO_JSON = msgspec.Raw()

# The fields are Any: a value of an unexpected type must not make the whole response unreadable.


class FunctionCall(msgspec.Struct, gc=False, rename="camel"):
    """A function call, or a piece of one. ``args`` stays JSON text, so that numbers keep their form."""

    id: Any = None
    name: Any = None
    args: msgspec.Raw = _NO_JSON
    partial_args: Any = None
    will_continue: Any = None


class GeminiPart(msgspec.Struct, gc=False, rename="camel"):
    """A part of the answer: text, a function call, or one of the kinds in :data:`KEPT_KINDS`."""

    text: Any = None
    thought: Any = None
    thought_signature: Any = None
    function_call: FunctionCall | None = None
    executable_code: Any = None
    code_execution_result: Any = None
    tool_call: Any = None
    tool_response: Any = None
    inline_data: Any = None
    file_data: Any = None


KEPT_KINDS = {
    "executable_code": "executableCode",
    "code_execution_result": "codeExecutionResult",
    "tool_call": "toolCall",
    "tool_response": "toolResponse",
    "inline_data": "inlineData",
    "file_data": "fileData",
}
"""Parts of server tools, and media: field → name on the wire."""


READ_KEYS = frozenset({"text", *KEPT_KINDS.values()})
"""Keys of parts that the mapper reads. If it cannot read their values, the run ends with an error."""


def has_no_content(part: GeminiPart) -> bool:
    """Whether a part without text is known to have no content: empty text, a signature, or one of KEPT_KINDS."""
    return part.function_call is None and (
        part.text == "" or bool(part.thought_signature) or kept_part(part) is not None
    )


def kept_part(part: GeminiPart) -> dict[str, Any] | None:
    """Return a part of KEPT_KINDS as it arrived; None for text and function calls."""
    whole = {name: value for field, name in KEPT_KINDS.items() if (value := getattr(part, field)) is not None}
    if whole and part.thought is not None:
        whole["thought"] = part.thought
    if whole and part.thought_signature is not None:
        whole["thoughtSignature"] = part.thought_signature
    return whole or None


class GeminiContent(msgspec.Struct, gc=False):
    """The content of a candidate: its parts."""

    parts: list[GeminiPart | None] | None = None


class Candidate(msgspec.Struct, gc=False, rename="camel"):
    """One answer of a response."""

    content: GeminiContent | None = None
    finish_reason: Any = None
    index: Any = 0
    continuation_token: Any = None
    grounding_metadata: Any = None
    url_context_metadata: Any = None
    citation_metadata: Any = None


class PromptFeedback(msgspec.Struct, gc=False, rename="camel"):
    """Why a prompt was blocked."""

    block_reason: Any = None


class UsageMetadata(msgspec.Struct, gc=False, rename="camel"):
    """The token counts of a request so far."""

    prompt_token_count: Any = None
    candidates_token_count: Any = None
    thoughts_token_count: Any = None
    cached_content_token_count: Any = None
    tool_use_prompt_token_count: Any = None
    total_token_count: Any = None


class GeminiChunk(msgspec.Struct, gc=False, rename="camel"):
    """The data of one event, or a whole body."""

    candidates: list[Candidate | None] | None = None
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: UsageMetadata | None = None
    error: Any = None
    model_version: Any = None
    response_id: Any = None


decode = msgspec.json.Decoder(GeminiChunk).decode
"""Decodes one response. Raises one of UNREADABLE."""

_decode_many = msgspec.json.Decoder(list[GeminiChunk | None]).decode


def decode_leniently(data: bytes) -> list[GeminiChunk]:
    """Decode one response or an array of responses, in JSON with mistakes such as NaN or invalid UTF-8.

    Lone halves of surrogate pairs are kept. Raises ValueError for anything else.
    """
    try:
        return _decode(data)
    except UNREADABLE:
        pass
    try:
        loaded = loads_with_halves(data)
        chunks = loaded if isinstance(loaded, list) else [loaded]
        return [msgspec.convert(_with_raw_arguments(chunk), GeminiChunk) for chunk in chunks if chunk is not None]
    except (ValueError, *UNREADABLE) as error:
        raise ValueError from error


def _decode(data: bytes) -> list[GeminiChunk]:
    start = data.lstrip()[:4]
    if start.startswith(b"["):
        return [chunk for chunk in _decode_many(data) if chunk is not None]
    return [] if start == b"null" else [decode(data)]


def _with_raw_arguments(chunk: Any) -> Any:
    """Return a decoded response with the arguments of its function calls as JSON text, for :class:`FunctionCall`."""
    if isinstance(chunk, dict):
        call = chunk.get("functionCall")
        if isinstance(call, dict) and "args" in call:
            return chunk | {"functionCall": call | {"args": msgspec.Raw(json.dumps(call["args"]).encode())}}
        return {key: _with_raw_arguments(value) for key, value in chunk.items()}
    return [_with_raw_arguments(value) for value in chunk] if isinstance(chunk, list) else chunk


def read_usage(said: UsageMetadata, *, is_final: bool) -> Usage | None:
    """Return the usage of a response; None if it has no counts.

    Input tokens are the prompt with its cached part. Tokens that server tools added to the prompt are only in the
    total, as in Google's own counts.
    """
    thoughts, cached = said.thoughts_token_count, said.cached_content_token_count
    reasoning = as_count(thoughts) if thoughts else 0
    input_tokens = as_count(said.prompt_token_count)
    output_tokens = as_count(said.candidates_token_count) + reasoning
    total = as_count(said.total_token_count)
    if not total:
        total = input_tokens + output_tokens + as_count(said.tool_use_prompt_token_count)
    if not total:
        return None
    source: UsageSource = "provider" if is_final else "partial"
    return Usage(input_tokens, output_tokens, total, as_count(cached) if cached else 0, 0, reasoning, source)


def added(one: Usage, other: Usage) -> Usage:
    """Return the sum of the usage of two requests, with the source of ``other``."""
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        total_tokens=one.total_tokens + other.total_tokens,
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
        cache_write_tokens=one.cache_write_tokens + other.cache_write_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
        source=other.source,
    )
