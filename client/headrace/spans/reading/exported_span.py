"""Exports a stored span for programs: as a JSON object, or as a flat row of a table.

Pure. Programs depend on the names.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.spans import value_bounds as span_bounds
from headrace.spans.span import SpanAttempt, content_of
from headrace.spans.span_database import StoredSpan, fields_of
from headrace.text.escaping import escaped

FLAT = (
    "span_id", "rank", "trace_id", "parent_span_id", "traceparent", "kind", "provider", "model", "response_model",
    "response_id", "streamed", "status", "error_type", "error", "finish_reason", "provider_finish_reason", "started_at",
    "ended_at", "duration_seconds", "queue_seconds", "first_chunk_seconds", "input_tokens", "output_tokens",
    "total_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens", "usage_source", "cost", "user_id",
    "session_id", "tags", "parameters", "attempts", "messages", "inputs", "tools", "text", "reasoning", "refusal",
    "tool_calls", "content_note", "queue_reason",
)  # fmt: skip
"""The columns of a flat row, in this order. Add new ones at the end."""

_json = msgspec.json.Encoder().encode


def record(stored: StoredSpan) -> dict[str, Any]:
    """Return a span as a dict: all its fields, its cost, and its content as a dict or None."""
    fields = fields_of(stored)
    fields["content"] = msgspec.to_builtins(content_of(stored.span)) if stored.span.content else None
    return fields


def line(stored: StoredSpan) -> str:
    """Return a span as one line of JSON. Control characters are escaped, which does not change the value."""
    return escaped(_json(record(stored)).decode()) + "\n"


def flat(stored: StoredSpan) -> dict[str, Any]:
    """Return a span as one row: name in :data:`FLAT` → value.

    Lists and dicts are JSON text, except ``tags``. Times are in UTC.
    """
    span, content = stored.span, content_of(stored.span)
    usage = msgspec.structs.asdict(span.usage)
    values: dict[str, Any] = {name: getattr(span, name) for name in FLAT if hasattr(span, name)}
    values |= {f"usage_{name}" if name == "source" else name: value for name, value in usage.items()}
    values |= {
        "rank": span.rank.name.lower(),
        "started_at": _time(span.started_at),
        "ended_at": _time(span.ended_at),
        "cost": stored.cost,
        "parameters": _text(span.parameters),
        "attempts": _text(span.attempts),
        "messages": _text(content.messages),
        "inputs": _text(content.inputs),
        "tools": _text(content.tools),
        "text": content.text,
        "reasoning": content.reasoning,
        "refusal": content.refusal,
        "tool_calls": _text(content.tool_calls),
    }
    return {name: values[name] for name in FLAT}


def _text(value: list[Any] | Mapping[str, Any] | list[SpanAttempt]) -> str:
    return _json(value).decode() if value else ""


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(span_bounds.seconds(seconds), datetime.UTC)
