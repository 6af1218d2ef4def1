"""Builds the span of a run: the stub when the run begins, and the whole span when it has ended.

Pure; clocks are arguments.

A stub is a span with the facts that are known at the beginning. A span holds no key: error texts are masked before they
get here.
"""

from __future__ import annotations

import msgspec

from headrace.answers.assembly import Assembled
from headrace.spans.encoded_span import request_content, request_stub
from headrace.spans.span import (
    BEATEN,
    CLIENT_LOST,
    ContentToolCall,
    Rank,
    Span,
    SpanAttempt,
    SpanContent,
    SpanStatus,
)
from headrace.spans.stored_media import storable_media
from headrace.text.secret_mask import SecretMask
from headrace.types import ReasoningPart, Usage
from headrace.wire.messages import (
    Aborted,
    Failed,
    Finished,
    Run,
    Terminal,
    ToolCallText,
)
from headrace.wire.run_request import RunRequest
from headrace.wire.typed_errors import failure_error
from headrace_workers.masking import masked_calls
from headrace_workers.providers.shared.wire_format import WireFormat

_MAX_QUEUED = 7 * 24 * 3600.0
_LONG = 1024 * 1024
"""Characters of an answer. A longer one is checked for control characters."""
_NO_CONTROLS = bytes(range(0x20, 0x100))
_NO_CALLS: list[ContentToolCall] = []


class Moment(msgspec.Struct, frozen=True, gc=False):
    """One moment on both clocks: ``wall`` in seconds since 1970, ``monotonic`` in monotonic seconds."""

    wall: float
    monotonic: float

    def wall_at(self, monotonic: float) -> float:
        """Return the wall time for another monotonic time. Ignores changes of the wall clock since this moment."""
        return self.wall + monotonic - self.monotonic


class EndedRun(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The facts of an ended run that its span needs: of the run, and of its HTTP exchange.

    ``terminal`` is None if the run's client went away. ``received`` is everything that the provider sent, None if the
    span keeps no content. ``headers_at`` and ``content_at`` are monotonic seconds. ``maybe_billed``: the provider may
    bill an answer that nobody received. ``is_beaten``: another attempt of the run was faster.
    """

    request: RunRequest
    terminal: Terminal | None
    headers_at: float | None
    content_at: float | None
    status_code: int
    request_id: str | None
    response_id: str | None
    maybe_billed: bool
    usage: Usage
    received: Assembled | None
    mask: SecretMask
    is_beaten: bool = False


class SpanOutcome(msgspec.Struct, frozen=True, gc=False):
    """How a run ended, as fields of its span."""

    status: SpanStatus
    error_type: str | None = None
    error: str | None = None
    rank: Rank = Rank.WORKER


_OK = SpanOutcome("ok")


def begun_span(
    run: Run, request: RunRequest, worker: str, arrived: Moment, wire_format: WireFormat | None = None
) -> Span:
    """Return the stub of a run that has reached its worker. It stays the run's span if the worker dies."""
    queued = queue_seconds(run)
    wall = arrived.wall
    attempt = SpanAttempt(
        run.attempt,
        worker,
        wall,
        wire_format=wire_format.name if wire_format is not None else "",
        telemetry_provider=wire_format.telemetry_provider if wire_format is not None else "",
        is_hedge=bool(run.span_of),
    )
    return request_stub(run.span_of or run.span_id, request, wall - queued, wall, queued, run.waited_for, [attempt])


def ended_span(
    stub: Span, run: EndedRun, arrived: Moment, now: float, content: bytes = b"", content_note: str = ""
) -> Span:
    """Return the span of a run that has ended. ``now`` is in monotonic seconds. ``content``, ``content_note``: see :class:`Span`."""
    terminal = run.terminal
    outcome = outcome_of(terminal, run.request.provider)
    asked_at = arrived.monotonic - stub.queue_seconds
    ended_at, content_at = arrived.wall_at(now), run.content_at
    begun = stub.attempts[0]
    attempt = SpanAttempt(
        begun.number, begun.worker, begun.started_at, ended_at,
        None if run.headers_at is None else arrived.wall_at(run.headers_at),
        None if content_at is None else arrived.wall_at(content_at),
        run.status_code or None, run.request_id, outcome.error_type or outcome.status, outcome.error or "",
        run.maybe_billed, begun.wire_format, begun.telemetry_provider, begun.provider, begun.model, begun.is_hedge,
    )  # fmt: skip
    if run.is_beaten:
        # The span of the attempt that was faster is the run's. This one only adds its attempt.
        beaten = msgspec.structs.replace(attempt, outcome=BEATEN, reason="another attempt was faster")
        return msgspec.structs.replace(stub, attempts=[beaten], content=content, content_note=content_note)
    finished = terminal if type(terminal) is Finished else None
    # Every run makes one: by position, as in request_stub.
    return Span(
        stub.span_id, outcome.rank, stub.provider, stub.model, stub.trace_id, stub.parent_span_id, stub.traceparent,
        stub.kind, stub.streamed, outcome.status, outcome.error_type, outcome.error,
        finished.model if finished else "", run.response_id, finished.finish_reason if finished else None,
        finished.provider_finish_reason if finished else None, stub.started_at, ended_at, now - asked_at,
        stub.queue_seconds, None if content_at is None else content_at - asked_at, run.usage, stub.tags, stub.user_id,
        stub.session_id, stub.parameters, [attempt], content, content_note, stub.queue_reason,
    )  # fmt: skip


def refused_span(
    stub: Span, failed: Failed, arrived: Moment, now: float, content: bytes = b"", content_note: str = ""
) -> Span:
    """Return the span of a run that its worker refused to start. ``content``, ``content_note``: see :class:`Span`."""
    outcome = outcome_of(failed, stub.provider)
    ended_at = arrived.wall_at(now)
    ended = msgspec.structs.replace(
        stub.attempts[0], ended_at=ended_at, outcome=outcome.error_type or "", reason=outcome.error or ""
    )
    return msgspec.structs.replace(
        stub,
        rank=outcome.rank,
        status=outcome.status,
        error_type=outcome.error_type,
        error=outcome.error,
        ended_at=ended_at,
        duration_seconds=now - arrived.monotonic + stub.queue_seconds,
        attempts=[ended],
        content=content,
        content_note=content_note,
    )


def received_content(run: EndedRun) -> SpanContent:
    """Return the content of a span: the request, and the answer with the part that was never sent."""
    terminal, received = run.terminal, run.received
    finished = terminal if isinstance(terminal, Finished) else None
    message = finished.message if finished else None
    if received is not None and finished is not None and _is_text_only(finished, received):
        text = received.text or (message.text if message is not None else "")
        return request_content(run.request, run.mask.masked_for_store(text))
    asked = request_content(run.request)
    if received is None:
        return asked
    reasoning = received.reasoning
    if message is not None and not reasoning and not isinstance(message.content, str):
        reasoning = "".join([part.text for part in message.content if isinstance(part, ReasoningPart)])
    calls = finished.tool_calls if finished else masked_calls(received.tool_calls, run.mask)
    mask = run.mask
    return msgspec.structs.replace(
        asked,
        text=mask.masked_for_store(received.text or (message.text if message is not None else "")),
        reasoning=mask.masked_for_store(reasoning),
        refusal=mask.masked_for_store((finished.refusal if finished else None) or received.refusal or "") or None,
        tool_calls=_stored_calls(calls, mask) if calls else _NO_CALLS,
        media=storable_media(message),
    )


def _is_text_only(finished: Finished, received: Assembled) -> bool:
    message = finished.message
    is_text = message is None or type(message.content) is str
    has_more = received.reasoning or received.refusal or finished.refusal or finished.tool_calls or received.tool_calls
    return is_text and not has_more


def _stored_calls(calls: list[ToolCallText], mask: SecretMask) -> list[ContentToolCall]:
    if not mask.is_quoted("\n".join([call.arguments for call in calls])):
        return [ContentToolCall(call.id, call.name, call.arguments) for call in calls]
    return [ContentToolCall(call.id, call.name, mask.masked_for_store(call.arguments)) for call in calls]


def is_heavy(content: SpanContent) -> bool:
    """Return whether an answer takes too long to encode. JSON needs six bytes for each control character."""
    if len(content.text) <= _LONG and not (content.reasoning or content.refusal or content.tool_calls):
        return False
    texts = [content.text, content.reasoning, content.refusal or "", *[call.arguments for call in content.tool_calls]]
    if sum(map(len, texts)) <= _LONG:
        return False
    controls = sum([len(text.encode("utf-8", "replace").translate(None, _NO_CONTROLS)) for text in texts])
    return controls > _LONG


def outcome_of(terminal: Terminal | None, provider: str) -> SpanOutcome:
    """Return how a run ended, by its terminal message. None means that the client went away."""
    match terminal:
        case Finished():
            return _OK
        case Aborted():
            return SpanOutcome("aborted")
        case Failed():
            error = failure_error(terminal, provider, "")
            # A run that was given back before any event runs on another worker. That worker's span replaces this one.
            is_given_back = terminal.kind == "worker_stopping" and not terminal.sequence
            rank = Rank.STUB if is_given_back else Rank.WORKER
            return SpanOutcome("error", type(error).__name__, _reason_of(terminal), rank)
        case None:
            return SpanOutcome("aborted", CLIENT_LOST, "the client went away")


def queue_seconds(run: Run) -> float:
    """Return the seconds that a run waited for its lease, as its client says. 0 if the value is impossible."""
    return run.queued if 0.0 <= run.queued <= _MAX_QUEUED else 0.0  # NaN is not in between, either


def _reason_of(failed: Failed) -> str:
    return f"{failed.argument}: {failed.reason}" if failed.argument else failed.reason
