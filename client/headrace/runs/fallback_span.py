"""A client's own record of a run whose worker could not say how it ended: what was asked, and what had arrived. Pure."""

from __future__ import annotations

import msgspec

from headrace.answers.assembly import assemble
from headrace.errors import HeadraceError, RunError
from headrace.runs.session import Session
from headrace.settings.known_secrets import address_secrets, request_secrets
from headrace.spans.encoded_span import asked_content, asked_span
from headrace.spans.span import ContentToolCall, Rank, Span, SpanAttempt, SpanStatus, encode_content
from headrace.text.secret_mask import SecretMask
from headrace.types import Usage
from headrace.wire.codec import decode_request
from headrace.wire.messages import Aborted

_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)


def fallback_span(session: Session, *, is_aborted: bool, duration: float, wall_time: float) -> Span:
    """Return the span of a run that has ended. ``is_aborted``: its caller wanted no more, whatever it ended with.

    ``duration`` is in seconds since the caller asked, ``wall_time`` the time of the end.
    """
    plan, outcome = session.plan, session.outcome
    request = decode_request(plan.request)
    received = assemble(session.events)
    began = wall_time - duration
    reason = _reason(outcome)
    span = msgspec.structs.replace(
        asked_span(plan.span_id, request),
        rank=Rank.CLIENT,
        started_at=began,
        ended_at=wall_time,
        duration_seconds=duration,
        queue_seconds=session.queue_seconds,
        usage=_usage(received.usage, outcome),
        attempts=_attempts(session, began, wall_time, reason),
    )
    # As its worker would have kept it; a key of the worker's environment is not known here.
    others = request_secrets(request.tools, request.custom_options)
    stored = SecretMask([plan.api_key or "", *address_secrets(plan.base_url or ""), *others]).stored
    content = msgspec.structs.replace(
        asked_content(request),
        text=stored(received.text),
        reasoning=stored(received.reasoning),
        refusal=stored(received.refusal) or None,
        tool_calls=[ContentToolCall(call.id, call.name, stored(call.arguments)) for call in received.tool_calls],
    )
    status: SpanStatus = "aborted" if is_aborted or isinstance(outcome, Aborted) else "error"
    is_error = status == "error" and isinstance(outcome, HeadraceError)
    span = msgspec.structs.replace(
        span, status=status, error_type=type(outcome).__name__ if is_error else None, error=reason if is_error else None
    )
    try:
        return msgspec.structs.replace(span, content=encode_content(content))
    except _UNENCODABLE:
        return msgspec.structs.replace(span, content_note="cannot be encoded")


def _reason(outcome: object) -> str:
    return (
        outcome.reason if isinstance(outcome, RunError) else str(outcome) if isinstance(outcome, HeadraceError) else ""
    )


def _usage(received: Usage, outcome: object) -> Usage:
    """Return what is known: figures that came with the events are those of a run that did not end."""
    if isinstance(outcome, Aborted) and outcome.usage.source != "none":
        return outcome.usage
    return msgspec.structs.replace(received, source="partial") if received.source == "provider" else received


def _attempts(session: Session, began: float, ended: float, reason: str) -> list[SpanAttempt]:
    """Return the last attempt; those before it are in the spools of the workers that it was lost with."""
    if session.lease is None:
        return []
    started_at = began + session.queue_seconds
    return [SpanAttempt(session.attempt, session.lease.worker, started_at, ended, reason=reason, maybe_billed=True)]
