"""What a worker is asked: a run's request, encoded once by its client and decoded by its worker alone."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.types import Message, Tool

EXTRA = "extra"
"""The need of a request that holds keys in the provider's own words, or a tool of the provider's own type."""
KNOWN_NEEDS = frozenset({EXTRA})
"""What this version can read of a request beyond minor version 1."""
CUSTOM = "custom"
"""The type of a tool that takes text in place of JSON arguments."""


class RunRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a caller asked for, checked and normalised. Durations in seconds; ``None`` means the worker's default."""

    provider: str
    model: str
    messages: list[Message]
    stream: bool
    tools: list[Tool] = []
    tool_choice: str | dict[str, str] | None = None
    response_format: dict[str, Any] | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    top_p: float | None = None
    stop_sequences: list[str] = []
    reasoning_effort: str | None = None
    custom_options: dict[str, Any] = {}
    total_timeout: float | None = None
    first_chunk_timeout: float | None = None
    idle_timeout: float | None = None
    tags: list[str] = []
    user_id: str | None = None
    session_id: str | None = None
    trace_id: str = ""
    parent_span_id: str | None = None
    send_trace: bool = True
    inputs: list[str] = []
    """Texts to embed; a request with inputs asks for their vectors and nothing else."""
    dimensions: int | None = None
    traceparent: str | None = None
    """W3C trace context of the caller's active OpenTelemetry span."""


def needs(request: RunRequest) -> list[str]:
    """Return what a worker must be able to read, so that nothing of the request is dropped silently."""
    for message in request.messages:
        if _has_extra(message):
            return [EXTRA]
    for tool in request.tools:
        if tool.extra or tool.type != "function":
            return [EXTRA]
    return []


def _has_extra(message: Message) -> bool:
    if message.extra:
        return True
    return not isinstance(message.content, str) and any(part.extra for part in message.content)


def chosen_by(tool: Tool) -> str:
    """Return the name by which ``tool_choice`` chooses a tool; one of the provider's own without a name goes by its type."""
    inner = (tool.extra or {}).get(CUSTOM) if tool.type == CUSTOM else None  # as Chat Completions has it
    name = inner.get("name") if isinstance(inner, dict) else None
    return tool.name or (name if isinstance(name, str) else "") or tool.type
