"""From a run to its span: the stub that says it began, and the record of how it ended. Pure; both clocks are arguments.

A span holds no key: the texts of errors have lost theirs before they get here.
"""

from __future__ import annotations

import math

import msgspec

from headrace.answers.assembly import Assembled
from headrace.spans.encoded_span import asked_content, asked_span
from headrace.spans.span import (
    CLIENT_LOST,
    ContentToolCall,
    Rank,
    Span,
    SpanAttempt,
    SpanContent,
    SpanStatus,
)
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
"""Characters of an answer from which on it is looked at more closely."""
_NO_CONTROLS = bytes(range(0x20, 0x100))
_NO_CALLS: list[ContentToolCall] = []


class Moment(msgspec.Struct, frozen=True, gc=False):
    """One moment on both clocks: seconds since 1970, and monotonic seconds."""

    wall: float
    monotonic: float

    def wall_at(self, monotonic: float) -> float:
        """Return another moment's wall time, as if the wall clock had not been set since."""
        return self.wall + monotonic - self.monotonic


class EndedRun(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a span says of a run that has ended: facts of the run and of its exchange with the provider.

    ``terminal`` is None where the run's client went away. ``received`` is all that the provider sent, None where it is not kept.
    Moments are monotonic seconds. ``maybe_billed``: tokens may have been spent on an answer that nobody has.
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


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How a run ended, in a span's words."""

    status: SpanStatus
    error_type: str | None = None
    error: str | None = None
    rank: Rank = Rank.WORKER


def begun_span(
    run: Run, request: RunRequest, worker: str, arrived: Moment, wire_format: WireFormat | None = None
) -> Span:
    """Return the stub of a run that reached its worker: the run's span, if the worker dies before it writes more."""
    queued = queue_seconds(run)
    attempt = SpanAttempt(run.attempt, worker, arrived.wall)
    if wire_format is not None:
        attempt = msgspec.structs.replace(
            attempt, wire_format=wire_format.name, telemetry_provider=wire_format.telemetry_provider
        )
    return msgspec.structs.replace(
        asked_span(run.span_id, request),
        started_at=arrived.wall - queued,
        ended_at=arrived.wall,
        queue_seconds=queued,
        attempts=[attempt],
    )


def ended_span(stub: Span, run: EndedRun, arrived: Moment, now: float) -> Span:
    """Return the span, without content, of a run that has ended."""
    terminal = run.terminal
    outcome = outcome_of(terminal, run.request.provider)
    asked_at = arrived.monotonic - stub.queue_seconds
    ended_at, content_at = arrived.wall_at(now), run.content_at
    attempt = msgspec.structs.replace(
        stub.attempts[0],
        ended_at=ended_at,
        headers_at=None if run.headers_at is None else arrived.wall_at(run.headers_at),
        first_chunk_at=None if content_at is None else arrived.wall_at(content_at),
        status_code=run.status_code or None,
        request_id=run.request_id,
        outcome=outcome.error_type or outcome.status,
        reason=outcome.error or "",
        maybe_billed=run.maybe_billed,
    )
    finished = terminal if isinstance(terminal, Finished) else None
    return msgspec.structs.replace(
        stub,
        rank=outcome.rank,
        status=outcome.status,
        error_type=outcome.error_type,
        error=outcome.error,
        ended_at=ended_at,
        duration_seconds=now - asked_at,
        first_chunk_seconds=None if content_at is None else content_at - asked_at,
        usage=run.usage,
        response_model=finished.model if finished else "",
        response_id=run.response_id,
        finish_reason=finished.finish_reason if finished else None,
        provider_finish_reason=finished.provider_finish_reason if finished else None,
        attempts=[attempt],
    )


def refused_span(stub: Span, failed: Failed, arrived: Moment, now: float) -> Span:
    """Return the span of a run that its worker did not start."""
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
    )


def received_content(run: EndedRun) -> SpanContent:
    """Return what was asked and all that was answered, also what was never sent on."""
    asked, terminal, received = asked_content(run.request), run.terminal, run.received
    if received is None:
        return asked
    finished = terminal if isinstance(terminal, Finished) else None
    message = finished.message if finished else None
    reasoning = received.reasoning
    if message is not None and not reasoning and not isinstance(message.content, str):
        reasoning = "".join([part.text for part in message.content if isinstance(part, ReasoningPart)])
    calls = finished.tool_calls if finished else masked_calls(received.tool_calls, run.mask)
    mask = run.mask
    return msgspec.structs.replace(
        asked,
        text=mask.stored(received.text or (message.text if message is not None else "")),
        reasoning=mask.stored(reasoning),
        refusal=mask.stored((finished.refusal if finished else None) or received.refusal or "") or None,
        tool_calls=_stored_calls(calls, mask) if calls else _NO_CALLS,
    )


def _stored_calls(calls: list[ToolCallText], mask: SecretMask) -> list[ContentToolCall]:
    if not mask.is_quoted("\n".join([call.arguments for call in calls])):
        return [ContentToolCall(call.id, call.name, call.arguments) for call in calls]
    return [ContentToolCall(call.id, call.name, mask.stored(call.arguments)) for call in calls]


def is_heavy(content: SpanContent) -> bool:
    """Return whether an answer is so long that to write it takes too long: JSON has six bytes for a control character."""
    texts = [content.text, content.reasoning, content.refusal or "", *[call.arguments for call in content.tool_calls]]
    if sum(map(len, texts)) <= _LONG:
        return False
    controls = sum([len(text.encode("utf-8", "replace").translate(None, _NO_CONTROLS)) for text in texts])
    return controls > _LONG


def outcome_of(terminal: Terminal | None, provider: str) -> Outcome:
    """Return what a terminal message, or the lack of one, says of a run."""
    match terminal:
        case Finished():
            return Outcome("ok")
        case Aborted():
            return Outcome("aborted")
        case Failed():
            error = failure_error(terminal, provider, "")
            # A run that its worker gave back untouched is the next worker's, who has more to say.
            is_given_back = terminal.kind == "worker_stopping" and not terminal.sequence
            rank = Rank.STUB if is_given_back else Rank.WORKER
            return Outcome("error", type(error).__name__, _reason_of(terminal), rank)
        case None:
            return Outcome("aborted", CLIENT_LOST, "the client went away")


def queue_seconds(run: Run) -> float:
    """Return how long a run waited for its lease, as far as what its client says can be so."""
    queued = run.queued
    return queued if math.isfinite(queued) and 0.0 <= queued <= _MAX_QUEUED else 0.0


def _reason_of(failed: Failed) -> str:
    return f"{failed.argument}: {failed.reason}" if failed.argument else failed.reason
