"""Reads errors of the Messages API: a body with an error status, or an event in a stream with status 200. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.wire.messages import FailureKind
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.failure_classes import classified
from headrace_workers.providers.shared.lenient_json import loads
from headrace_workers.providers.shared.wire_format import ProviderFailure

# The kind of each error follows from the HTTP status that it has outside of a stream.
_KINDS: dict[str, FailureKind] = {
    "invalid_request_error": "invalid_request",
    "billing_error": "invalid_request",
    "not_found_error": "invalid_request",
    "request_too_large": "invalid_request",
    "authentication_error": "authentication",
    "permission_error": "authentication",
    "rate_limit_error": "rate_limit",
    "timeout_error": "provider_unavailable",
    "api_error": "provider_unavailable",
    "overloaded_error": "provider_unavailable",
}


def failure_in_stream(whole: Any) -> ProviderFailure:
    """Read an error that came with status 200. Its type tells its kind."""
    failure = _refined(failures.failure_in_stream(whole), whole, status=None)
    kind = _KINDS.get(str(_error_of(whole).get("type")), failure.kind)
    return classified(msgspec.structs.replace(failure, kind=kind), _error_of(whole))


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
    """Read a response whose status is not 200. ``headers`` has lower-case names."""
    failure = failures.read_error(status, headers, body)
    try:
        return _refined(failure, loads(body), status)
    except ValueError:
        return failure


def _refined(failure: ProviderFailure, whole: Any, status: int | None) -> ProviderFailure:
    """Add what only this API has: the request id in the body, and the code of the limit that was reached."""
    if not isinstance(whole, dict):
        return failure
    details = _error_of(whole).get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    request_id = whole.get("request_id")
    return msgspec.structs.replace(
        failure,
        status_code=status,
        code=code if isinstance(code, str) and code else failure.code,
        request_id=failure.request_id or (request_id if isinstance(request_id, str) and request_id else None),
    )


def _error_of(whole: Any) -> dict[str, Any]:
    error = whole.get("error") if isinstance(whole, dict) else None
    return error if isinstance(error, dict) else {}
