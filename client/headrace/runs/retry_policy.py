"""Decides whether a failed attempt is tried again, after which time, and whether another model is asked instead. Pure.

An attempt is tried again only while nothing of its answer has reached the caller. The session checks that.
"""

from __future__ import annotations

from hashlib import blake2b

from headrace.runs.run_plan import RunPlan
from headrace.wire.messages import Failed, FailureKind, RefusalKind

FIRST_DELAY = 0.5
"""Seconds that the first retry waits at most, where the provider does not say how long. Each further one: twice as long."""
_DOUBLINGS = 4
LONGEST_DELAY = FIRST_DELAY * 2**_DOUBLINGS
"""Seconds that a retry waits at most, where the provider does not say how long: 8."""
LONGEST_RETRY_AFTER = 120.0
"""A run does not wait longer than this because a provider asks for it: it ends with the provider's error. In seconds."""
FALLBACK_WAIT = 1.0
"""Seconds that a run waits for a lease at most while it has a further model to ask."""

_FALLBACK_KINDS: frozenset[FailureKind] = frozenset(
    {"authentication", "rate_limit", "provider_unavailable", "provider_protocol"}
)
_FALLBACK_CLOCKS = frozenset({"connect", "first_chunk"})
_FALLBACK_REFUSALS: frozenset[RefusalKind] = frozenset({"queue_full", "over_budget", "no_retry"})
_GONE = 404


def next_step(plan: RunPlan, failed: Failed, retries: int, left: float | None) -> float | RunPlan | None:
    """Return what follows a provider's failure: another attempt after so many seconds, another model, or the end.

    ``retries``: how often this model was tried again before. ``left``: seconds until the run's total timeout; None: not
    known.
    """
    if retries < plan.max_retries:
        delay = retry_delay(failed, plan.span_id, retries)
        if delay is not None and (left is None or delay < left):
            return delay
    return plan.fallback if may_fall_back(failed) and left != 0.0 else None


def longest_wait(plan: RunPlan, left: float | None) -> float | None:
    """Return how many seconds an attempt may wait for its lease; None: as long as it takes."""
    if plan.fallback is None:
        return left
    return FALLBACK_WAIT if left is None else min(left, FALLBACK_WAIT)


def retry_delay(failed: Failed, span_id: str, retries: int) -> float | None:
    """Return the seconds to wait before the next attempt, or None if the same request is not tried again.

    ``retries``: how often it was tried again before. Without a Retry-After, the delay is drawn evenly between 0 and a
    limit that doubles ("full jitter"), so that runs that failed together do not come back together.
    """
    if not failed.may_retry or failed.is_final:
        return None
    said = failed.retry_after
    if said is not None and said > 0.0:
        return said if said <= LONGEST_RETRY_AFTER else None
    doublings = min(retries, _DOUBLINGS)
    return FIRST_DELAY * (1 << doublings) * _drawn(span_id, failed.attempt)


def may_fall_back(failed: Failed) -> bool:
    """Return whether another model may take a run that failed like this."""
    match failed.kind:
        case "timeout":
            return failed.clock in _FALLBACK_CLOCKS
        case "invalid_request":
            # The model is gone; or its worker sent nothing, because its provider does not take an argument.
            return failed.status_code == _GONE or (failed.status_code is None and failed.code is None)
        case kind:
            return kind in _FALLBACK_KINDS


def may_fall_back_after(refusal: RefusalKind) -> bool:
    """Return whether another model may take a run to which the broker gave no lease."""
    return refusal in _FALLBACK_REFUSALS


def _drawn(span_id: str, attempt: int) -> float:
    """Return a number from 0 to 1. It differs between runs and between attempts, and is always the same for one."""
    digest = blake2b(f"{span_id}:{attempt}".encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 0xFFFFFFFF
