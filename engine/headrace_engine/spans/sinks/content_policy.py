"""Removes content from a span for sinks that may not have it. Pure.

Removed are prompts, answers, and everything that can quote them: error texts and free options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from headrace.spans.span_database import StoredSpan

_HARMLESS = frozenset({
    "temperature", "max_output_tokens", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed", "logprobs",
    "top_logprobs", "tool_choice", "parallel_tool_calls", "reasoning_effort", "verbosity", "service_tier", "dimensions",
    "stop_sequences",
})  # fmt: skip


def without_content(stored: StoredSpan) -> StoredSpan:
    """Return the span without prompts, answers, and texts that can quote them."""
    span = stored.span
    stripped = replace(
        span,
        content=b"",
        content_note=span.content_note or "policy",
        error=None,
        attempts=[replace(attempt, reason="") for attempt in span.attempts],
        parameters=_plain(span.parameters),
    )
    return replace(stored, span=stripped)


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that quote no content: numbers, names, and words of a short list."""
    plain = {name: value for name, value in parameters.items() if name in _HARMLESS}
    if isinstance(form := parameters.get("response_format"), Mapping):
        plain["response_format"] = {"type": form.get("type")}
    if (custom := parameters.get("custom_options")) and isinstance(custom, list | dict):
        plain["custom_options"] = list(custom)  # the names
    return plain
