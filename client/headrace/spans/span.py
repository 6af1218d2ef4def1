"""Spans: what is kept of a run. Pure data, made by workers (or, in their place, by a client or the broker), kept by the store.

A span is known by its ``span_id``; of several for one run the store keeps the one of the highest rank, and the attempts of all.
"""

from __future__ import annotations

import enum
from typing import Any, Literal

import msgspec

from headrace.errors import RemoteProtocolError
from headrace.spans import value_bounds as span_bounds
from headrace.types import FinishReason, Message, Tool, Usage
from headrace.wire.value_count import has_too_many_values

SpanStatus = Literal["ok", "aborted", "error"]
SpanKind = Literal["llm", "embedding"]

LOST = "lost"
"""The ``error_type`` of a run of which nobody could say how it ended."""
CLIENT_LOST = "client_lost"
"""The ``error_type`` of a run whose client went away."""


class Rank(enum.IntEnum):
    """Whose word a span is. The higher one stays."""

    STUB = 0  # the run began; nobody has said yet, or can say, how it ended
    CLIENT = 1  # what the client received, when its worker could not say
    WORKER = 2  # the whole truth


class SpanAttempt(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One try of a run on one worker. Times are wall-clock seconds since 1970.

    ``maybe_billed``: the request was sent and its answer did not come to its end.
    ``wire_format`` is the ``api`` of the provider in the worker's settings, such as ``openai-chat``; ``telemetry_provider`` is the
    value of ``gen_ai.provider.name`` for this format. Both are empty where the worker did not get so far, and in spans of
    earlier versions.
    """

    number: int
    worker: str = ""
    started_at: float = 0.0
    ended_at: float | None = None
    headers_at: float | None = None
    first_chunk_at: float | None = None
    status_code: int | None = None
    request_id: str | None = None
    outcome: str = LOST
    reason: str = ""
    maybe_billed: bool = False
    wire_format: str = ""
    telemetry_provider: str = ""


class ContentToolCall(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A tool call that the model made, or began; ``arguments`` is JSON text, which an abort may have cut."""

    id: str
    name: str
    arguments: str


class SpanContent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What was asked and answered: the sensitive part of a span."""

    messages: list[Message] = []
    inputs: list[str] = []
    tools: list[Tool] = []
    text: str = ""
    reasoning: str = ""
    refusal: str | None = None
    tool_calls: list[ContentToolCall] = []


class Span(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A run's record. Times are wall-clock seconds since 1970; durations are seconds, taken from a monotonic clock.

    ``started_at`` is when the caller asked; ``queue_seconds`` of the time since were spent waiting for a lease, and
    ``first_chunk_seconds`` until the first content came. ``error_type`` is the error class's name (``RateLimitError``), ``lost``
    or ``client_lost``. ``traceparent`` is the W3C trace context of the caller's active OpenTelemetry span, if any.
    ``content`` is an encoded :class:`SpanContent` (JSON), empty where policy or redaction keeps it out.
    """

    span_id: str
    rank: Rank
    provider: str
    model: str
    trace_id: str = ""
    parent_span_id: str | None = None
    traceparent: str | None = None
    kind: SpanKind = "llm"
    streamed: bool = False
    status: SpanStatus = "error"
    error_type: str | None = None
    error: str | None = None
    response_model: str = ""
    response_id: str | None = None
    finish_reason: FinishReason | None = None
    provider_finish_reason: str | None = None
    started_at: float = 0.0
    ended_at: float = 0.0
    duration_seconds: float = 0.0
    queue_seconds: float = 0.0
    first_chunk_seconds: float | None = None
    usage: Usage = Usage()
    tags: list[str] = []
    user_id: str | None = None
    session_id: str | None = None
    parameters: dict[str, Any] = {}
    attempts: list[SpanAttempt] = []
    content: bytes = b""
    content_note: str = ""
    """Why there is no content, if there is none: ``policy``, ``redacted`` (the hook kept nothing), ``redaction failed``,
    ``too large`` (for a frame) or ``cannot be encoded``."""


TIMES = ("started_at", "ended_at", "duration_seconds", "queue_seconds", "first_chunk_seconds")
"""Fields of a span that are seconds."""
ATTEMPT_TIMES = ("started_at", "ended_at", "headers_at", "first_chunk_at")
COUNTS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
"""Fields of usage that are tokens."""
UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What msgspec raises for a value that its format cannot carry, such as an integer of more than 64 bits."""

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Span)
_encode_content = msgspec.json.Encoder().encode
_content_decoder = msgspec.json.Decoder(SpanContent)


def encode_span(span: Span) -> bytes:
    """Return the bytes that cross to the collector and lie in a spool. Values that no format can carry are replaced."""
    try:
        return _encode(span)
    except UNENCODABLE:
        return _encode(span_bounds.mended(span))


def decode_span(data: bytes | memoryview) -> Span:
    """Return the span in ``data``, within bounds; raises RemoteProtocolError when it is none, or has too much in it."""
    if has_too_many_values(data):
        raise RemoteProtocolError("not a span: it has too many values")
    try:
        return bounded(_decoder.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"not a span: {error}") from None


def bounded(span: Span) -> Span:
    """Return a span whose times and figures every clock, database and format can hold; the span itself where they are so already."""
    usage = span.usage
    if not _is_bounded(span):
        figures = {name: span_bounds.count(getattr(usage, name)) for name in COUNTS}
        span = msgspec.structs.replace(span, usage=msgspec.structs.replace(usage, **figures), **_times(span, TIMES))
    if not all(map(_is_bounded_attempt, span.attempts)):
        span = msgspec.structs.replace(span, attempts=[_bounded_attempt(attempt) for attempt in span.attempts])
    return span


def _is_bounded(span: Span) -> bool:
    usage, last, most = span.usage, span_bounds.LAST_TIME, span_bounds.MOST
    # Written out, since every span goes through it: comparisons are false for NaN.
    return (
        0.0 <= span.started_at <= last
        and 0.0 <= span.ended_at <= last
        and 0.0 <= span.duration_seconds <= last
        and 0.0 <= span.queue_seconds <= last
        and (span.first_chunk_seconds is None or 0.0 <= span.first_chunk_seconds <= last)
        and 0 <= usage.input_tokens <= most
        and 0 <= usage.output_tokens <= most
        and 0 <= usage.total_tokens <= most
        and 0 <= usage.cached_input_tokens <= most
        and 0 <= usage.cache_write_tokens <= most
        and 0 <= usage.reasoning_tokens <= most
    )


def _is_bounded_attempt(attempt: SpanAttempt) -> bool:
    last, code = span_bounds.LAST_TIME, attempt.status_code
    headers, content, ended = attempt.headers_at, attempt.first_chunk_at, attempt.ended_at
    return (
        0 <= attempt.number <= span_bounds.MOST
        and 0.0 <= attempt.started_at <= last
        and (ended is None or 0.0 <= ended <= last)
        and (headers is None or 0.0 <= headers <= last)
        and (content is None or 0.0 <= content <= last)
        and (code is None or 0 <= code <= span_bounds.MOST)
    )


def _bounded_attempt(attempt: SpanAttempt) -> SpanAttempt:
    code = attempt.status_code
    return msgspec.structs.replace(
        attempt,
        number=span_bounds.count(attempt.number),
        status_code=None if code is None else span_bounds.count(code),
        **_times(attempt, ATTEMPT_TIMES),
    )


def _times(holder: Span | SpanAttempt, names: tuple[str, ...]) -> dict[str, float | None]:
    values = {name: getattr(holder, name) for name in names}
    return {name: None if value is None else span_bounds.seconds(value) for name, value in values.items()}


def as_said_by(role: str, span: Span) -> Span:
    """Return a span with the rank that its sender may give it: no more than its own.

    A worker tells the whole truth, a client what it has received, and the broker either passes that on or knows less.
    """
    if role == "worker":
        return span
    rank = Rank.CLIENT if role == "client" else min(span.rank, Rank.CLIENT)
    return span if rank is span.rank else msgspec.structs.replace(span, rank=rank)


def encode_content(content: SpanContent) -> bytes:
    """Return a span's ``content``."""
    return _encode_content(content)


def decode_content(data: bytes | str) -> SpanContent:
    """Return what ``content`` holds, nothing for an empty one; raises RemoteProtocolError when it is none."""
    if not data:
        return SpanContent()
    try:
        return _content_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"not a span's content: {error}") from None


def content_of(span: Span) -> SpanContent:
    """Return what was asked and answered, nothing where it is not kept or cannot be read."""
    try:
        return decode_content(span.content)
    except RemoteProtocolError:
        return SpanContent()
