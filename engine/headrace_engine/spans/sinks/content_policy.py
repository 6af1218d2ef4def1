"""What of a span a sink may see. Pure.

Without leave to send content go not only the prompts and answers, but all that can quote them: error texts, and free-form options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from headrace.spans.data_directory import StoredSpan

_HARMLESS = frozenset(
    {"temperature", "max_output_tokens", "top_p", "tool_choice", "reasoning_effort", "dimensions", "stop_sequences"}
)


def without_content(stored: StoredSpan) -> StoredSpan:
    """Return the span without anything that was asked or answered."""
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
    """Return numbers, names, and the words that come from a short list."""
    plain = {name: value for name, value in parameters.items() if name in _HARMLESS}
    if isinstance(form := parameters.get("response_format"), Mapping):
        plain["response_format"] = {"type": form.get("type")}
    if (custom := parameters.get("custom_options")) and isinstance(custom, list | dict):
        plain["custom_options"] = list(custom)  # the names
    return plain
