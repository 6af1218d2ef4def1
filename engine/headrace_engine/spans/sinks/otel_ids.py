"""Converts Headrace's ids to OpenTelemetry's: 16 bytes for a trace, 8 bytes for a span. Pure: the result is always the same.

A peer may send an id that Headrace did not make. Its digest is used instead: receivers refuse a whole batch if one id has a wrong length
or is all zeros.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from headrace.spans.span import Span

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_DIGITS = re.compile(r"[0-9a-fA-F]{16}")
_SAMPLED = 1


class OtelIds(msgspec.Struct, frozen=True):
    """A span's ids in OpenTelemetry's form. ``parent`` is empty for a root span. ``is_sampled``: whether the caller's trace is recorded."""

    trace: bytes
    span: bytes
    parent: bytes
    is_sampled: bool = True


def ids_of(span: Span) -> OtelIds:
    """Return a span's ids. If an OpenTelemetry span was active in the caller, its trace and its id (as the parent) are used."""
    own = _bytes(span.span_id, "sp_") or _digest(span.span_id)
    context = _TRACEPARENT.fullmatch(span.traceparent or "")
    if context is not None and int(context[1], 16) and int(context[2], 16):
        is_sampled = bool(int(context[3], 16) & _SAMPLED)
        return OtelIds(bytes.fromhex(context[1]), own, bytes.fromhex(context[2]), is_sampled)
    # If the worker and the client of a run were both lost, its trace is unknown: the span becomes a trace of its own.
    trace = (_bytes(span.trace_id, "tr_") or _digest(span.trace_id)) if span.trace_id else own
    parent = span.parent_span_id and (_bytes(span.parent_span_id, "sp_") or _digest(span.parent_span_id))
    return OtelIds(trace.rjust(16, b"\0"), own, parent or b"")


def _bytes(name: str, prefix: str) -> bytes:
    """Return the 8 bytes of an id of Headrace; no bytes for any other id."""
    digits = name.removeprefix(prefix)
    return bytes.fromhex(digits) if _DIGITS.fullmatch(digits) and int(digits, 16) else b""


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest()
