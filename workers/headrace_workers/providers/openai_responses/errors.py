"""Reads the errors of the Responses API that come with status 200: in an event, or in a response."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.provider_errors import is_error
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderFailure

_BLAMES_REQUEST = ("image", "policy", "residency", "prompt")
"""Words in error codes of this API that blame the request, in addition to the words of all OpenAI-like servers."""


def raise_if_error(whole: dict[str, Any], *, is_certain: bool = False) -> None:
    """Raise ProviderFailedError if an event or a response is an error.

    ``is_certain``: the name of the event is already that of an error.
    """
    if is_certain or is_error(whole):
        raise ProviderFailedError(failure_in_response(whole))


def failure_in_response(whole: dict[str, Any]) -> ProviderFailure:
    """Read an error, which stands under ``error`` or is the event itself."""
    error = whole.get("error") or {key: value for key, value in whole.items() if value != "error"}
    failure = failures.failure_in_stream(error)
    if failure.kind == "provider_unavailable" and any(word in (failure.code or "") for word in _BLAMES_REQUEST):
        return msgspec.structs.replace(failure, kind="invalid_request", may_retry=False)
    return failure
