"""Builds the stub of a span from a run's request, and encodes spans so that they fit into a frame. Pure.

A span keeps only the names of custom options: their values may be secrets.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.settings.known_secrets import without_credentials
from headrace.spans.span import LOST, Rank, Span, SpanAttempt, SpanContent, encode_span
from headrace.spans.stored_media import storable_messages
from headrace.types import Usage
from headrace.wire.run_request import OptionalFields, RunRequest

MAX_SPAN_BYTES = 56 * 1024 * 1024
"""Bytes of an encoded span. A longer span does not fit into a frame. It is kept without its content."""
TOO_LARGE = "too large"

_PARAMETERS = OptionalFields(
    "temperature",
    "max_output_tokens",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "logprobs",
    "top_logprobs",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
    "service_tier",
    "dimensions",
)
_NO_ATTEMPTS: list[SpanAttempt] = []
_NO_USAGE = Usage()
_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
_encode_json = msgspec.json.Encoder().encode


def request_stub(
    span_id: str,
    request: RunRequest,
    began: float = 0.0,
    arrived: float = 0.0,
    queued: float = 0.0,
    waited_for: str = "",
    attempts: list[SpanAttempt] = _NO_ATTEMPTS,
) -> Span:
    """Return a stub with the facts of the request: no worker, no result.

    ``began``, ``arrived``: when the run was asked for, and when it came to its worker. ``queued``, ``waited_for``: see
    ``queue_seconds`` and ``queue_reason`` of :class:`Span`.
    """
    # Every run makes one. By position, this takes a third of the time of 20 names.
    return Span(
        span_id, Rank.STUB, request.provider, request.model, request.trace_id, request.parent_span_id,
        request.traceparent, "embedding" if request.inputs else "llm", request.stream, "error", LOST, None, "", None,
        None, None, began, arrived, 0.0, queued, None, _NO_USAGE, request.tags, request.user_id, request.session_id,
        parameters(request), attempts, b"", "", waited_for,
    )  # fmt: skip


def request_content(request: RunRequest, text: str = "") -> SpanContent:
    """Return the content of a span with the request's messages, inputs and tools. ``text``: the answer, if it is text only."""
    messages = storable_messages(request.messages)
    tools = without_credentials(request.tools) if request.tools else []
    return SpanContent(messages=messages, inputs=request.inputs, tools=tools, text=text)


def parameters(request: RunRequest) -> dict[str, Any]:
    """Return the request's parameters, such as the temperature, as a span keeps them."""
    said = _PARAMETERS.given(request)
    if request.stop_sequences:
        said["stop_sequences"] = request.stop_sequences
    if request.metadata:
        said["metadata"] = request.metadata
    if request.response_format is not None:
        said["response_format"] = _plain(request.response_format)
    if request.custom_options:
        said["custom_options"] = [str(name) for name in request.custom_options]
    return said


def encode_bounded(span: Span) -> bytes:
    """Encode a span. If it is too large for a frame, leave out its content, then all of its long fields."""
    encoded = encode_span(span)
    if len(encoded) <= MAX_SPAN_BYTES:
        return encoded
    encoded = encode_span(msgspec.structs.replace(span, content=b"", content_note=TOO_LARGE))
    return encoded if len(encoded) <= MAX_SPAN_BYTES else encode_span(_bare(span))


def _bare(span: Span) -> Span:
    """Return a span with its short fields only."""
    return Span(
        span_id=span.span_id,
        rank=span.rank,
        provider=span.provider,
        model=span.model,
        trace_id=span.trace_id,
        kind=span.kind,
        streamed=span.streamed,
        status=span.status,
        error_type=span.error_type,
        started_at=span.started_at,
        ended_at=span.ended_at,
        duration_seconds=span.duration_seconds,
        queue_seconds=span.queue_seconds,
        queue_reason=span.queue_reason,
        first_chunk_seconds=span.first_chunk_seconds,
        usage=_NO_USAGE,
        content_note=TOO_LARGE,
    )


def _plain(value: Any) -> Any:
    """Return a value if JSON can encode it, else None."""
    try:
        _encode_json(value)
    except _UNENCODABLE:
        return None
    return value
