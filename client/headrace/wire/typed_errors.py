"""Makes the public error of a Failed or Refuse message. Pure."""

from __future__ import annotations

from headrace.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConfigurationError,
    EngineUnavailableError,
    HeadraceError,
    InvalidRequestError,
    PoisonRunError,
    ProviderProtocolError,
    ProviderUnavailableError,
    QueueFullError,
    RateLimitError,
    RunTimeoutError,
    WorkerLostError,
)
from headrace.wire.messages import BAD_SETTINGS, Failed, Refuse


def failure_error(failed: Failed, provider: str, partial_text: str) -> HeadraceError:
    """Return the public error of a worker's Failed. ``partial_text`` is the text that the client has."""
    span_id, reason = failed.span_id, failed.reason
    facts = (span_id, reason, partial_text, provider, failed.status_code, failed.request_id, failed.code)
    match failed.kind:
        case "invalid_request" if failed.code == BAD_SETTINGS:
            return ConfigurationError(f"{provider}: {reason}")
        case "invalid_request":
            return InvalidRequestError(
                reason, failed.argument, provider, failed.status_code, failed.request_id, failed.code
            )
        case "duplicate_span_id":
            return InvalidRequestError(reason, "span_id")
        case "authentication":
            return AuthenticationError(*facts)
        case "rate_limit":
            return RateLimitError(*facts, failed.retry_after)
        case "provider_unavailable":
            return ProviderUnavailableError(*facts)
        case "provider_protocol":
            return ProviderProtocolError(*facts)
        case "timeout":
            return RunTimeoutError(span_id, reason, partial_text, failed.clock, failed.limit)
        case "worker_stopping" | "worker_failed":
            return WorkerLostError(span_id, reason, partial_text)


def refusal_error(span_id: str, refusal: Refuse, address: str = "the engine") -> HeadraceError:
    """Return the public error of a broker's Refuse. ``address`` is the engine's, as errors name it."""
    match refusal.kind:
        case "duplicate_span_id":
            return InvalidRequestError(refusal.reason, "span_id")
        case "over_budget":
            return BudgetExceededError(span_id, refusal.reason, "", refusal.retry_after)
        case "queue_full" | "no_retry" | "no_hedge":
            return QueueFullError(span_id, refusal.reason, "", refusal.retry_after)
        case "poison":
            return PoisonRunError(span_id, refusal.reason)
        case "no_workers" | "stopping":
            return EngineUnavailableError(address, refusal.reason)
