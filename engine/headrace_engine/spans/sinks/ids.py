"""Headrace's ids as OpenTelemetry's: 16 bytes for a trace, 8 for a span. Pure, and the same each time."""

from __future__ import annotations

import re

import msgspec

from headrace.spans import Span

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED = 1


class Ids(msgspec.Struct, frozen=True):
    """Where a span stands in OpenTelemetry's world. ``parent`` is empty for a root."""

    trace: bytes
    span: bytes
    parent: bytes
    is_sampled: bool = True


def ids_of(span: Span) -> Ids:
    """Return a span's ids: those of the caller's OpenTelemetry span, if one was active, above Headrace's own."""
    own = bytes.fromhex(span.span_id.removeprefix("sp_"))
    context = _TRACEPARENT.fullmatch(span.traceparent or "")
    if context is not None and int(context[1], 16) and int(context[2], 16):
        is_sampled = bool(int(context[3], 16) & _SAMPLED)
        return Ids(bytes.fromhex(context[1]), own, bytes.fromhex(context[2]), is_sampled)
    # A run whose worker and client were both lost has no trace that anybody knows: it is a trace of its own.
    trace = bytes.fromhex(span.trace_id.removeprefix("tr_")) or own
    parent = bytes.fromhex((span.parent_span_id or "").removeprefix("sp_"))
    return Ids(trace.rjust(16, b"\0"), own, parent)
