"""Reads Google's errors, ``{"error": {code, message, status, details}}``: in a body, an array, or a stream. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.wire.messages import FailureKind
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.failure_classes import classified
from headrace_workers.providers.shared.lenient_json import UNREADABLE
from headrace_workers.providers.shared.wire_format import ProviderFailure

_KINDS: dict[str, FailureKind] = {
    "RESOURCE_EXHAUSTED": "rate_limit",
    "UNAVAILABLE": "provider_unavailable",
    "DEADLINE_EXCEEDED": "provider_unavailable",
    "INTERNAL": "provider_unavailable",
    "UNKNOWN": "provider_unavailable",
    "ABORTED": "provider_unavailable",
    "CANCELLED": "provider_unavailable",
    "DATA_LOSS": "provider_unavailable",
    "UNAUTHENTICATED": "authentication",
    "PERMISSION_DENIED": "authentication",
    "INVALID_ARGUMENT": "invalid_request",
    "FAILED_PRECONDITION": "invalid_request",
    "OUT_OF_RANGE": "invalid_request",
    "NOT_FOUND": "invalid_request",
    "ALREADY_EXISTS": "invalid_request",
    "UNIMPLEMENTED": "invalid_request",
}
_BAD_KEY = re.compile(r"api[ _]key[ _](?:not valid|expired|invalid|not found)", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")
_MAX_DEPTH = 4
_MAX_ID = 500
_CUT_OFF = 1.0
"""Seconds. Google cuts the fraction of a second off the delay that it asks for."""


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
    """Read a response whose status is not 200. ``headers`` has lower-case names."""
    try:
        error = _error_of(msgspec.json.decode(body))
    except UNREADABLE:
        error = {}
    return _refined(failures.read_error(status, headers, body), error, headers)


def failure_in_stream(said: Any) -> ProviderFailure:
    """Read an error that came with status 200. Its words tell its kind."""
    return _refined(failures.failure_in_stream(said), _error_of(said))


def _refined(
    failure: ProviderFailure, error: dict[str, Any], headers: Mapping[str, str] | None = None
) -> ProviderFailure:
    """Replace facts that all servers' errors have by Google's own words and details."""
    word = error.get("status")
    kind = failure.kind
    if isinstance(word, str):
        kind = _KINDS.get(word.upper(), kind)
    facts = [detail for detail in _list(error.get("details")) if isinstance(detail, dict)]
    if kind == "invalid_request" and _BAD_KEY.search(f"{failure.reason} {_first(facts, 'reason')}"):
        kind = "authentication"  # it comes with status 400
    refined = msgspec.structs.replace(
        failure,
        kind=kind,
        code=word if isinstance(word, str) and word else failure.code,
        request_id=failure.request_id or _first(facts, "requestId") or None,
        retry_after=failure.retry_after if failure.retry_after is not None else _seconds(_first(facts, "retryDelay")),
    )
    return classified(refined, error, headers, is_final=kind == "rate_limit" and _is_daily(facts))


def _error_of(value: Any) -> dict[str, Any]:
    for _ in range(_MAX_DEPTH):
        if isinstance(value, list) and value:
            value = value[0]
        elif isinstance(value, dict) and isinstance(value.get("error"), dict | list):
            value = value["error"]
        else:
            break
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _first(facts: list[dict[str, Any]], key: str) -> str:
    return next((fact[key] for fact in facts if isinstance(fact.get(key), str)), "")


def _is_daily(facts: list[dict[str, Any]]) -> bool:
    """Return whether a quota of the day is used up, by the ids of the quotas, such as ``…PerDayPerProject…``."""
    violations = [each for fact in facts for each in _list(fact.get("violations")) if isinstance(each, dict)]
    return any("perday" in str(each.get("quotaId", ""))[:_MAX_ID].lower() for each in violations)


def _seconds(duration: str) -> float | None:
    """Return the seconds to wait. Google cuts the fraction off, so a wait of ``"48s"`` is over within the next second."""
    match = _DURATION.fullmatch(duration.strip())
    seconds = failures.finite_number(match[1]) if match else None
    return None if seconds is None else seconds + _CUT_OFF
