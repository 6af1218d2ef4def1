"""Makes the span of a run from what its client knows, where no worker said how the run ended. Pure."""

from __future__ import annotations

import msgspec

from headrace.answers.assembly import assemble
from headrace.errors import HeadraceError, RunError
from headrace.runs.endings import Ending
from headrace.runs.outcome import RunOutcome
from headrace.runs.session import Session
from headrace.settings.known_secrets import address_secrets, request_secrets
from headrace.spans.encoded_span import request_content, request_stub
from headrace.spans.span import ContentToolCall, Rank, Span, SpanAttempt, SpanStatus, encode_content
from headrace.text.secret_mask import SecretMask
from headrace.types import Usage
from headrace.wire.codec import decode_request
from headrace.wire.messages import Aborted

_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)


def fallback_span(session: Session, outcome: RunOutcome, *, duration: float, wall_time: float) -> Span:
    """Return the span of a run that has ended: what was asked, and what had arrived.

    ``duration`` is in seconds since the caller asked; ``wall_time`` is the time of the end, in seconds since 1970.
    """
    plan, ending = session.plan, session.ending
    request = decode_request(plan.request)
    received = assemble(session.events)
    began = wall_time - duration
    reason = _reason(ending)
    span = msgspec.structs.replace(
        request_stub(plan.span_id, request),
        rank=Rank.CLIENT,
        started_at=began,
        ended_at=wall_time,
        duration_seconds=duration,
        queue_seconds=session.times.queue_seconds,
        queue_reason=session.times.queue_reason,
        usage=_usage(received.usage, ending),
        attempts=_attempts(session, began, wall_time, reason),
    )
    # A worker masks the same secrets, and the keys of its own environment, which are not known here.
    others = request_secrets(request.tools, request.custom_options)
    stored = SecretMask([plan.api_key or "", *address_secrets(plan.base_url or ""), *others]).masked_for_store
    content = msgspec.structs.replace(
        request_content(request),
        text=stored(received.text),
        reasoning=stored(received.reasoning),
        refusal=stored(received.refusal) or None,
        tool_calls=[ContentToolCall(call.id, call.name, stored(call.arguments)) for call in received.tool_calls],
    )
    status: SpanStatus = "aborted" if outcome.counts_as_aborted(ending) else "error"
    is_error = status == "error" and isinstance(ending, HeadraceError)
    span = msgspec.structs.replace(
        span, status=status, error_type=type(ending).__name__ if is_error else None, error=reason if is_error else None
    )
    try:
        return msgspec.structs.replace(span, content=encode_content(content))
    except _UNENCODABLE:
        return msgspec.structs.replace(span, content_note="cannot be encoded")


def _reason(ending: Ending | None) -> str:
    if isinstance(ending, RunError):
        return ending.reason
    return str(ending) if isinstance(ending, HeadraceError) else ""


def _usage(received: Usage, ending: Ending | None) -> Usage:
    """Return the usage as far as it is known.

    Usage that came with the events is partial: the run did not come to its end.
    """
    if isinstance(ending, Aborted) and ending.usage.source != "none":
        return ending.usage
    return msgspec.structs.replace(received, source="partial") if received.source == "provider" else received


def _attempts(session: Session, began: float, ended: float, reason: str) -> list[SpanAttempt]:
    """Return the last attempt. Earlier attempts are in the spools of the workers that were lost."""
    if session.lease is None:
        return []
    started_at = began + session.times.until_lease
    return [SpanAttempt(session.attempt, session.lease.worker, started_at, ended, reason=reason, maybe_billed=True)]
