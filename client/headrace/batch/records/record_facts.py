"""What records say beside OpenAI's own keys: the facts of a run and of a failure. Types, and the words for failures. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.batch.row import BadRow
from headrace.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConfigurationError,
    EngineUnavailableError,
    HeadraceError,
    InvalidRequestError,
    OutputValidationError,
    PoisonRunError,
    ProviderError,
    ProviderProtocolError,
    ProviderUnavailableError,
    QueueFullError,
    RateLimitError,
    RunError,
    RunTimeoutError,
    WorkerLostError,
)
from headrace.failed_attempt import FailedAttempt
from headrace.types import RunEmbeddingResult, RunLocalResult, Usage

CODES: dict[type[HeadraceError], str] = {
    InvalidRequestError: "invalid_request",
    AuthenticationError: "authentication",
    RateLimitError: "rate_limit",
    ProviderUnavailableError: "provider_unavailable",
    ProviderProtocolError: "provider_protocol",
    ProviderError: "provider_error",
    WorkerLostError: "worker_lost",
    RunTimeoutError: "timeout",
    QueueFullError: "queue_full",
    BudgetExceededError: "over_budget",
    OutputValidationError: "output_validation",
    PoisonRunError: "poison",
    RunError: "run_failed",
    EngineUnavailableError: "engine_unavailable",
    ConfigurationError: "configuration",
    HeadraceError: "failed",
}
"""Class of an error → the word for it in records. A class that is not here has the word of its nearest base."""
BAD_ROW = "bad_row"


def error_code(error: HeadraceError | BadRow) -> str:
    """Return the word for a failure that records have and summaries count by, such as ``rate_limit`` or ``bad_row``."""
    if isinstance(error, BadRow):
        return BAD_ROW
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


class RunFacts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The facts of a run that OpenAI's form has no keys for. ``line``: the row's number in the input."""

    line: int
    provider: str
    model: str
    span_id: str
    trace_id: str
    usage: Usage
    cost: float | None
    latency_ms: float
    attempts: int
    queue_ms: float | msgspec.UnsetType = msgspec.UNSET
    queue_reason: str | None = None
    wire_format: str | None = None
    finish_reason: str | None = None
    provider_finish_reason: str | None = None


class FailureFacts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The facts of a failure: the attributes of its error. ``error_class``: ``BadRow`` for a bad row.

    ``reason``: the error's own words, where ``message`` says more than they do. In OpenAI's form, ``code`` and ``message``
    stand in another place; in a short record ``line`` does.
    """

    code: str = ""
    message: str = ""
    line: int = 0
    error_class: str = msgspec.field(name="class")
    reason: str | None = None
    argument: str | None = None
    provider: str | None = None
    status_code: int | None = None
    request_id: str | None = None
    provider_code: str | None = None
    retry_after: float | None = None
    clock: str | None = None
    limit: float | None = None
    address: str | None = None
    span_id: str | None = None
    partial_text: str = ""
    text: str = ""
    path: str | None = None
    usage: Usage | None = None
    cost: float | None = None
    attempts: tuple[FailedAttempt, ...] = ()


def run_facts(line: int, result: RunLocalResult | RunEmbeddingResult) -> RunFacts:
    """Return the facts of a run."""
    answer = result if isinstance(result, RunLocalResult) else None
    return RunFacts(
        line=line,
        provider=result.provider,
        model=result.model,
        span_id=result.span_id,
        trace_id=result.trace_id,
        usage=result.usage,
        cost=result.cost,
        latency_ms=result.latency_ms,
        attempts=result.attempts,
        queue_ms=result.queue_ms or msgspec.UNSET,
        queue_reason=result.queue_reason,
        wire_format=None if answer is None else answer.wire_format,
        finish_reason=None if answer is None else answer.finish_reason,
        provider_finish_reason=None if answer is None else answer.provider_finish_reason,
    )


def failure_facts(error: HeadraceError | BadRow) -> FailureFacts:
    """Return the facts of a failure, with its code and its message."""
    code = error_code(error)
    if isinstance(error, BadRow):
        return FailureFacts(
            code=code,
            message=error.text,
            error_class="BadRow",
            argument=error.argument,
            reason=_other(error.problem, error.text),
        )
    reason = getattr(error, "reason", None)
    argument = getattr(error, "argument", None)
    message = reason if isinstance(reason, str) else str(error)
    if argument is not None:
        message = f"{argument}: {message}"
    return FailureFacts(
        code=code,
        message=message,
        error_class=_known_class(error).__name__,
        reason=_other(reason, message),
        argument=argument,
        provider=getattr(error, "provider", None) or None,
        status_code=getattr(error, "status_code", None),
        request_id=getattr(error, "request_id", None),
        provider_code=getattr(error, "code", None),
        retry_after=getattr(error, "retry_after", None),
        clock=getattr(error, "clock", None),
        limit=getattr(error, "limit", None),
        address=getattr(error, "address", None),
        span_id=getattr(error, "span_id", None),
        partial_text="" if isinstance(error, OutputValidationError) else getattr(error, "partial_text", ""),
        text=getattr(error, "text", ""),
        path=getattr(error, "path", None),
        usage=getattr(error, "usage", None),
        cost=getattr(error, "cost", None),
        attempts=error.attempts,
    )


def _other(reason: str | None, message: str) -> str | None:
    return None if reason == message else reason


def _known_class(error: HeadraceError) -> type[HeadraceError]:
    """Return the error's class, or its nearest base that can be read back."""
    return next(kind for kind in type(error).__mro__ if kind in CODES)


_ERRORS = {kind.__name__: kind for kind in CODES}


def error_of(facts: FailureFacts) -> HeadraceError:
    """Return the error that a record tells of, as far as it has the facts. A bad row is an InvalidRequestError."""
    name = facts.error_class
    kind = InvalidRequestError if name == "BadRow" else _ERRORS.get(name, HeadraceError)
    reason = facts.message if facts.reason is None else facts.reason
    error = _built(kind, reason, facts)
    if facts.attempts:
        error.attempts = facts.attempts
    return error


def _built(kind: type[HeadraceError], reason: str, facts: FailureFacts) -> HeadraceError:
    span_id = facts.span_id or ""
    partial = facts.partial_text
    of_provider = (facts.status_code, facts.request_id, facts.provider_code)
    arguments: tuple[Any, ...]
    if kind is InvalidRequestError:
        arguments = (reason, facts.argument, facts.provider, *of_provider)
    elif kind is EngineUnavailableError:
        arguments = (facts.address or "the engine", reason)
    elif kind is RunTimeoutError:
        arguments = (span_id, reason, partial, facts.clock or "", facts.limit or 0.0)
    elif kind is OutputValidationError:
        arguments = (span_id, reason, facts.text, facts.path or "$", facts.usage, facts.cost)
    elif kind is RateLimitError:
        arguments = (span_id, reason, partial, facts.provider or "", *of_provider, facts.retry_after)
    elif issubclass(kind, ProviderError):
        arguments = (span_id, reason, partial, facts.provider or "", *of_provider)
    elif kind in {QueueFullError, BudgetExceededError}:
        arguments = (span_id, reason, partial, facts.retry_after)
    elif issubclass(kind, RunError):
        arguments = (span_id, reason, partial)
    else:
        arguments = (reason,)
    return kind(*arguments)
