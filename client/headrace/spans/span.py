"""The span: the record of one run, and its encoding. Pure.

A worker makes a run's span. If it cannot, the client or the broker does. If there are several spans for one
``span_id``, the store keeps the one with the highest rank, with the attempts of all of them.
"""

from __future__ import annotations

import enum
from typing import Any, Literal

import msgspec

from headrace.errors import RemoteProtocolError
from headrace.spans import value_bounds as span_bounds
from headrace.types import AudioPart, FilePart, FinishReason, ImagePart, Message, Tool, Usage
from headrace.wire.value_count import has_too_many_values

SpanStatus = Literal["ok", "aborted", "error"]
SpanKind = Literal["llm", "embedding"]

BEATEN = "beaten"
"""The ``outcome`` of an attempt that was aborted because another attempt of the same run was faster."""
LOST = "lost"
"""The ``error_type`` of a run if nobody knows how it ended."""
CLIENT_LOST = "client_lost"
"""The ``error_type`` of a run if its client went away."""


class Rank(enum.IntEnum):
    """How much a span knows of its run. The store keeps the span with the higher rank."""

    STUB = 0  # only that the run began; its end is not known, or not yet
    CLIENT = 1  # what the client received; used if the worker could not make a span
    WORKER = 2  # everything, from the worker that ran it


class SpanAttempt(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One try of a run on one worker. Times are wall-clock seconds since 1970.

    ``maybe_billed``: the request was sent, and its answer did not come completely. ``wire_format`` is the ``api`` of
    the provider in the worker's settings, such as ``openai-chat``; ``telemetry_provider`` is the value of
    ``gen_ai.provider.name`` for this format. Both are empty if the worker did not get that far, and in spans of earlier
    versions. ``provider`` and ``model`` are set where the attempt asked another one than the span names: a fallback.
    ``is_hedge``: it began beside another attempt, which went on.
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
    provider: str = ""
    model: str = ""
    is_hedge: bool = False


class ContentToolCall(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A tool call of the model. ``arguments`` is JSON text. It may be cut if the run was aborted."""

    id: str
    name: str
    arguments: str


class SpanContent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """The request and the answer: the sensitive part of a span."""

    messages: list[Message] = []
    inputs: list[str] = []
    tools: list[Tool] = []
    text: str = ""
    reasoning: str = ""
    refusal: str | None = None
    tool_calls: list[ContentToolCall] = []
    media: list[ImagePart | AudioPart | FilePart] = []
    """Images, audio and files in the answer. Long ones have a note in place of their content."""


class Span(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The record of a run. Times are seconds since 1970 (wall clock). Durations are seconds, from a monotonic clock.

    ``started_at``: when the caller made the call. ``queue_seconds``: from then to the lease of the run's last attempt,
    earlier attempts included. ``queue_reason``: what the run waited for last, a word of
    :data:`headrace.wire.messages.WaitWord`, empty if it did not wait.
    ``first_chunk_seconds``: from the call to the first content. ``error_type``: the name of the error class
    (``RateLimitError``), ``lost`` or ``client_lost``. ``traceparent``: the W3C trace context of the caller's active
    OpenTelemetry span, or None. ``content``: an encoded :class:`SpanContent` (JSON), empty if it is not kept: see
    ``content_note``.
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
    queue_reason: str = ""


TIMES = ("started_at", "ended_at", "duration_seconds", "queue_seconds", "first_chunk_seconds")
"""Fields of a span that hold seconds."""
ATTEMPT_TIMES = ("started_at", "ended_at", "headers_at", "first_chunk_at")
COUNTS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
"""Fields of usage that hold numbers of tokens."""
UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""The exceptions of msgspec for a value that it cannot encode, such as an integer of more than 64 bits."""

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Span)
_encode_content = msgspec.json.Encoder().encode
_content_decoder = msgspec.json.Decoder(SpanContent)


def encode_span(span: Span) -> bytes:
    """Encode a span, for the collector and the spool.

    Values that cannot be encoded are replaced by the nearest ones.
    """
    try:
        return _encode(span)
    except UNENCODABLE:
        return _encode(span_bounds.encodable(span))


def decode_span(data: bytes | memoryview) -> Span:
    """Decode a span, with its values within bounds.

    Raises RemoteProtocolError if it is not a span, or has too many values.
    """
    if has_too_many_values(data):
        raise RemoteProtocolError("not a span: it has too many values")
    try:
        return bounded(_decoder.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"not a span: {error}") from None


def bounded(span: Span) -> Span:
    """Return a span with times and numbers that every clock, database and format can hold.

    Return it unchanged if they can.
    """
    usage = span.usage
    if not _is_bounded(span):
        figures = {name: span_bounds.count(getattr(usage, name)) for name in COUNTS}
        span = msgspec.structs.replace(span, usage=msgspec.structs.replace(usage, **figures), **_times(span, TIMES))
    if not all(map(_is_bounded_attempt, span.attempts)):
        span = msgspec.structs.replace(span, attempts=[_bounded_attempt(attempt) for attempt in span.attempts])
    return span


def _is_bounded(span: Span) -> bool:
    usage, last, most = span.usage, span_bounds.LAST_TIME, span_bounds.MOST
    times = (span.started_at, span.ended_at, span.duration_seconds, span.queue_seconds, span.first_chunk_seconds or 0.0)
    counts = (
        usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.cached_input_tokens, usage.cache_write_tokens,
        usage.reasoning_tokens,
    )  # fmt: skip
    if min(times) >= 0.0 and sum(times) <= last and min(counts) >= 0 and sum(counts) <= most:
        return True  # almost always: a sum with NaN in it is NaN
    # Written out for speed, because every span is checked. Comparisons with NaN are false.
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
    figures = (attempt.number, code or 0, attempt.started_at, ended or 0.0, headers or 0.0, content or 0.0)
    if min(figures) >= 0 and sum(figures) <= last:
        return True  # almost always, as above
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


def with_allowed_rank(role: str, span: Span) -> Span:
    """Return a span with the highest rank that its sender may give.

    ``role`` is the sender's. A worker may give WORKER, a client gives CLIENT, and the broker at most CLIENT.
    """
    if role == "worker":
        return span
    rank = Rank.CLIENT if role == "client" else min(span.rank, Rank.CLIENT)
    return span if rank is span.rank else msgspec.structs.replace(span, rank=rank)


def encode_content(content: SpanContent) -> bytes:
    """Encode the content of a span, for its field ``content``."""
    return _encode_content(content)


def decode_content(data: bytes | str) -> SpanContent:
    """Decode the field ``content``. Empty bytes give an empty content. Raises RemoteProtocolError for anything else."""
    if not data:
        return SpanContent()
    try:
        return _content_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"not a span's content: {error}") from None


def content_of(span: Span) -> SpanContent:
    """Return the content of a span. Return an empty one if it was not kept, or cannot be read."""
    try:
        return decode_content(span.content)
    except RemoteProtocolError:
        return SpanContent()
