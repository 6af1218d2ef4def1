"""What is read of a Chat Completions response: typed chunks, decoded fast where they are regular and leniently where not.

Never judges what a response means; that is the mapper's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.types import Usage
from headrace_workers.providers.shared.lenient_json import UNREADABLE, as_count, loads_with_halves
from headrace_workers.providers.shared.provider_errors import is_error

# Vendors send null, or another type, wherever they like: hence Any in the leaves.


class Delta(msgspec.Struct, gc=False):
    """A piece of a message, or the whole message."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    thinking: Any = None
    reasoning_details: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None
    annotations: Any = None


class Choice(msgspec.Struct, gc=False):
    """One of the answers that were asked for; ``delta`` in a stream, else ``message``."""

    index: Any = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: Any = None
    native_finish_reason: Any = None
    error: Any = None
    text: Any = None


class Chunk(msgspec.Struct, gc=False):
    """The data of one event, or a whole body."""

    choices: list[Choice | None] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None
    model: Any = None
    id: Any = None


decode = msgspec.json.Decoder(Chunk).decode
"""Decodes a chunk; raises one of UNREADABLE."""


def decode_leniently(data: bytes) -> Chunk:
    """Decode what is nearly JSON: NaN, broken UTF-8. Halves of surrogate pairs are kept. Raises ValueError for what is not."""
    try:
        return decode(data)
    except UNREADABLE:
        pass
    try:
        loaded = loads_with_halves(data)
        if loaded is None:
            return Chunk(choices=[])
        if isinstance(loaded, list) and is_error(next(iter(loaded), None)):
            return Chunk(choices=[], error=loaded)
        return msgspec.convert(loaded, Chunk)
    except (ValueError, *UNREADABLE) as error:
        raise ValueError from error


_CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
"""Where servers say beside ``prompt_tokens_details`` what they read from their cache: DeepSeek, Moonshot, LiteLLM."""
_WRITTEN = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")
_TOOL_COUNTS = ("server_tool_use", "server_tool_use_details", "server_side_tool_usage_details")
"""Under which names Anthropic, OpenRouter and xAI count what their own tools did."""


def read_usage(said: dict[str, Any], *, is_final: bool) -> Usage:
    """Return the usage that a response says."""
    input_tokens, output_tokens = as_count(said.get("prompt_tokens")), as_count(said.get("completion_tokens"))
    reasoning = _count(said.get("completion_tokens_details"), "reasoning_tokens")
    total = as_count(said.get("total_tokens")) or input_tokens + output_tokens
    # xAI counts reasoning apart from completion tokens; its total tells.
    if total == input_tokens + output_tokens + reasoning:
        output_tokens += reasoning
    details = said.get("prompt_tokens_details")
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        total_tokens=total,
        cached_input_tokens=_first_count(details, "cached_tokens") or _first_count(said, *_CACHED),
        cache_write_tokens=_first_count(details, *_WRITTEN) or _first_count(said, "cache_creation_input_tokens"),
        reasoning_tokens=reasoning,
        source="provider" if is_final else "partial",
        server_tool_requests=server_tool_requests(said),
    )


def server_tool_requests(said: dict[str, Any]) -> dict[str, int]:
    """Return what the server's own tools did, as the usage counts it."""
    for counts in _TOOL_COUNTS:
        if isinstance(counted := said.get(counts), dict):
            return {name: count for name, value in counted.items() if (count := as_count(value))}
    return {}


def _first_count(said: Any, *names: str) -> int:
    if isinstance(said, dict):
        for name in names:
            if (value := said.get(name)) and (count := as_count(value)):
                return count
    return 0


def _count(said: Any, key: str) -> int:
    return as_count(said.get(key)) if isinstance(said, dict) else 0
