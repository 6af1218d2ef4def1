"""Says of a provider's error whether another attempt may succeed, or whether it is final, such as a quota that is used up.

Pure. The rules hold for all providers: by HTTP status, by the header ``x-should-retry``, and by the words of the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace_workers.providers.shared.wire_format import ProviderFailure

_RETRYABLE = frozenset(
    {408, 409, 429, 498, 500, 502, 503, 504, 529, 520, 521, 522, 523, 524},
)
"""HTTP statuses after which another attempt may succeed.

498: Groq has no room for flex requests. 520 to 524: Cloudflare, which stands before many providers, cannot reach them.
529: Anthropic is overloaded.
"""
_RETRYABLE_KINDS = ("rate_limit", "provider_unavailable")
"""Kinds of errors without a status, in a stream that began with 200, after which another attempt may succeed."""
_PAYMENT_REQUIRED = 402

_FINAL_CODES = frozenset({
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_usage_limit_exceeded",
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "organization_on_hold",
})  # fmt: skip
"""Codes and types of errors that money or a person must solve: a retry fails too."""
_FINAL_ENDS = ("_spend_limit_exceeded", "_spend_limit_reached")
_CODE_KEYS = ("code", "type", "status", "status_code", "error_code", "error_type")
_TOO_LARGE = "Request too large"
"""How OpenAI and Groq begin the text of a ``rate_limit_exceeded`` for a request that is larger than the whole limit."""
_OWN_SPENDING_LIMIT = "You have reached your specified"
"""How Anthropic begins the text of a 400 where the account's owner has limited its spending."""
_IN_FLIGHT = "openrouter_in_flight_budget"
"""OpenRouter's 402 while requests that are still running hold the rest of the money. It passes."""


def classified(
    failure: ProviderFailure, error: Any, headers: Mapping[str, str] | None = None, *, is_final: bool = False
) -> ProviderFailure:
    """Return the failure with ``may_retry`` and ``is_final`` set.

    ``error`` is the innermost error of the body, or any other value. ``headers`` are those of a response with an error
    status; None for an error inside a stream or a body with status 200. ``is_final``: the wire format knows that it is.
    """
    said = _said_codes(error)
    if _PAYMENT_REQUIRED in {failure.status_code, *_statuses(said)} and _is_in_flight(error):
        failure = msgspec.structs.replace(failure, kind="rate_limit")
        may_retry = True
    elif is_final or _is_final(failure, said):
        return msgspec.structs.replace(failure, may_retry=False, is_final=True)
    elif failure.status_code is not None and headers is not None:
        may_retry = failure.status_code in _RETRYABLE
    else:
        may_retry = failure.kind in _RETRYABLE_KINDS
    word = "" if headers is None else headers.get("x-should-retry", "").strip().lower()
    if word in {"true", "false"}:
        may_retry = word == "true"
    return msgspec.structs.replace(failure, may_retry=may_retry, is_final=False)


def _is_final(failure: ProviderFailure, said: list[str]) -> bool:
    if failure.status_code == _PAYMENT_REQUIRED or _PAYMENT_REQUIRED in _statuses(said):
        return True
    if any(code in _FINAL_CODES or code.endswith(_FINAL_ENDS) for code in said):
        return True
    if failure.reason.startswith(_OWN_SPENDING_LIMIT):
        return True
    return failure.reason.startswith(_TOO_LARGE) and "rate_limit_exceeded" in said


def _said_codes(error: Any) -> list[str]:
    """Return all codes and types of an error as lower-case texts, also that of Anthropic's ``details``."""
    if not isinstance(error, dict):
        return []
    values = [error.get(key) for key in _CODE_KEYS]
    if isinstance(details := error.get("details"), dict):
        values.append(details.get("error_code"))
    return [str(value)[:200].strip().lower() for value in values if type(value) in {str, int}]


def _statuses(said: list[str]) -> list[int]:
    return [_PAYMENT_REQUIRED] if str(_PAYMENT_REQUIRED) in said else []


def _is_in_flight(error: Any) -> bool:
    if not isinstance(error, dict):
        return False
    metadata = error.get("metadata")
    places = (error, metadata) if isinstance(metadata, dict) else (error,)
    return any(place.get("limit_source") == _IN_FLIGHT for place in places)
