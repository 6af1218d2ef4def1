"""What the end of a run says about its provider: it refused for now, has too much to do, is unavailable, or is well. Pure."""

from __future__ import annotations

from headrace.wire.messages import Release, ResponseReport

TOO_MANY_REQUESTS = 429
OVERLOADED = frozenset({498, 529})
"""Statuses with which providers say that they have too much to do: Groq's and Anthropic's."""
SERVER_ERROR = 500
UNAUTHORIZED = 401
PAYMENT_REQUIRED = 402
_COME_BACK = frozenset({429, 498, 503, 529})
"""With these statuses a Retry-After is about the whole pool."""
_FIRST_CLOCKS = frozenset({"connect", "first_chunk"})
_ANSWERS = frozenset({"finished", "rate_limit", "invalid_request", "authentication"})
_FAILURES = frozenset({"rate_limit", "provider_unavailable", "timeout"})
_NOT_SERVED = frozenset({"rate_limit", "invalid_request", "authentication"})


def is_failure(release: Release) -> bool:
    """Return whether the end of a run says anything about limits or about the provider's health. Quick."""
    return release.outcome in _FAILURES and not release.is_final and (is_refused(release) or is_unavailable(release))


def is_rate_limited(release: Release) -> bool:
    """Return whether the provider said that there were too many requests or tokens."""
    return release.outcome == "rate_limit" or release.status_code == TOO_MANY_REQUESTS


def is_refused(release: Release) -> bool:
    """Return whether the provider wants no more requests of the pool for some time.

    A refusal that is final, for example because the money is used up, is none: waiting does not help.
    """
    if release.is_final:
        return False
    if is_rate_limited(release):
        return True
    return release.status_code in _COME_BACK and (release.retry_after or 0.0) > 0.0


def is_overload(release: Release) -> bool:
    """Return whether the provider has too much to do."""
    return release.status_code in OVERLOADED or _is_first_timeout(release)


def is_unavailable(release: Release) -> bool:
    """Return whether the provider did not serve the run, through no fault of the request."""
    if release.outcome == "provider_unavailable":
        return release.status_code is None or release.status_code >= SERVER_ERROR
    return _is_first_timeout(release)


def is_answer(release: Release) -> bool:
    """Return whether the provider was there and answered, well or not."""
    return release.outcome in _ANSWERS or (
        release.outcome == "provider_unavailable" and not is_unavailable(release)
    )  # such as 408 and 409


def is_unserved(release: Release) -> bool:
    """Return whether the provider refused the request before it took any tokens."""
    return release.outcome in _NOT_SERVED


def is_used_up(release: Release) -> bool:
    """Return whether the key's money or quota is used up."""
    status = release.status_code
    return status == PAYMENT_REQUIRED or (
        release.is_final and (status == TOO_MANY_REQUESTS or release.outcome == "rate_limit")
    )


def used_up_for(report: ResponseReport) -> float | None:
    """Return the seconds until a request may pass again, if the headers say of a limit only that nothing is left."""
    resets = [said.reset for said in report.limits if said.limit is None and said.remaining == 0 and said.reset]
    return max(resets, default=None)


def _is_first_timeout(release: Release) -> bool:
    """Return whether the provider was silent from the beginning. Later silence says little about its load."""
    return release.outcome == "timeout" and release.clock in _FIRST_CLOCKS
