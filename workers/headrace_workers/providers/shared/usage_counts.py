"""Reads token counts and counts of server tools from the ``usage`` object of OpenAI-like servers. Pure."""

from __future__ import annotations

from typing import Any

from headrace.types import Usage
from headrace_workers.providers.shared.lenient_json import as_count

_CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
"""Keys for tokens read from the cache, if ``prompt_tokens_details`` has none: DeepSeek, Moonshot, LiteLLM."""
_WRITTEN = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")
_TOOL_COUNTS = ("server_tool_use", "server_tool_use_details", "server_side_tool_usage_details")
"""Keys for the requests of server tools: Anthropic, OpenRouter, xAI."""


def read_usage(said: dict[str, Any], *, is_final: bool) -> Usage:
    """Return the usage of a response. ``is_final``: the response has its finish reason."""
    input_tokens, output_tokens = as_count(said.get("prompt_tokens")), as_count(said.get("completion_tokens"))
    reasoning = _count(said.get("completion_tokens_details"), "reasoning_tokens")
    output_tokens, total = output_and_total(input_tokens, output_tokens, as_count(said.get("total_tokens")), reasoning)
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


def output_and_total(input_tokens: int, output_tokens: int, total: int, reasoning: int) -> tuple[int, int]:
    """Return the output tokens with those of reasoning, and the total, from what a provider says. A total of 0: it says none."""
    total = total or input_tokens + output_tokens
    # xAI does not count reasoning in the completion tokens. The total shows this.
    return (output_tokens + reasoning if total == input_tokens + output_tokens + reasoning else output_tokens), total


def server_tool_requests(said: dict[str, Any]) -> dict[str, int]:
    """Return the number of requests of each server tool: name in the usage → number."""
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
