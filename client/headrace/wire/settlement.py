"""Makes the Release of an attempt: how it ended and what it used, bounded as the broker's decoder demands. Pure."""

from __future__ import annotations

from typing import Literal

from headrace.types import Usage
from headrace.wire.bounds import MAX_COUNT, MAX_SECONDS, MAX_SMALL, MAX_WORD, cut
from headrace.wire.messages import Aborted, Failed, FailureKind, Finished, Release, Terminal, TokenCounts

ClientOutcome = Literal["withdrawn", "aborted", "worker_lost", "client_failed"]
"""How an attempt ended that has no terminal message from its worker.

``withdrawn``: it got no lease. ``aborted``: the caller aborted it. ``worker_lost``: its worker went away.
``client_failed``: the client gave it up, for example at its deadline.
"""
AttemptOutcome = Literal["finished"] | ClientOutcome | FailureKind
"""All words of ``Release.outcome``. Those of FailureKind are the worker's: ``Failed.kind``."""


def release_of(terminal: Terminal) -> Release:
    """Return the Release of an attempt that ended with this message of its worker."""
    span_id, attempt, tokens = terminal.span_id, terminal.attempt, _tokens(terminal.usage)
    match terminal:
        case Finished():
            return Release(span_id, attempt, "finished", tokens)
        case Aborted():
            return Release(span_id, attempt, "aborted", tokens)
        case Failed():
            status_code, retry_after = _status_code(terminal.status_code), _seconds(terminal.retry_after)
            clock = cut(terminal.clock, MAX_WORD)
            return Release(span_id, attempt, terminal.kind, tokens, status_code, retry_after, terminal.is_final, clock)


def _tokens(usage: Usage) -> TokenCounts | None:
    if usage.source == "none":
        return None
    given = usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens
    if min(given) < 0 or max(given) > MAX_COUNT:
        given = _count(given[0]), _count(given[1]), _count(given[2]), _count(given[3])
    return TokenCounts(given[0], given[1], given[2], usage.source, given[3])


def _count(tokens: int) -> int:
    return min(max(tokens, 0), MAX_COUNT)


def _status_code(status_code: int | None) -> int | None:
    return status_code if status_code is not None and 0 <= status_code <= MAX_SMALL else None


def _seconds(seconds: float | None) -> float | None:
    """Return a wait that a provider asked for. A negative one is none; one that is no number is not known."""
    if seconds is None or seconds != seconds:  # noqa: PLR0124 - only "not a number" differs from itself
        return None
    return min(max(seconds, 0.0), MAX_SECONDS)
