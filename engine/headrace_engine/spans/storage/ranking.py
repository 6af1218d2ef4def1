"""Decides which of several records of one run is kept, and merges their attempts. Pure.

The record with the higher rank is kept. Of two records with the same rank the newer one is kept. Of two clients' records the first one is
kept: a client ends a run once, and any client may claim a run. If an attempt of the run was a hedge, and another attempt went on beside
it, then of two workers' records the one with the better end is kept, and of two answers the one that came first.

Each record may know only some of the attempts, so the attempts of both are kept, by number. A client's record adds to a worker's record
only attempts with a number up to the worker's last attempt: attempts that the worker's record lacks, or that have no end in it. An
attempt keeps the provider and the model that it asked, where the kept record names others.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headrace.spans.span import Rank, Span, SpanAttempt

_ENDS = {"ok": 2, "aborted": 1, "error": 0}
"""Status of a span → how good an end it is, where a run had several attempts at one time."""
MAX_ATTEMPTS = 1000
"""Attempts that are kept of a run. A client could report more and more of them."""


def merged(kept: Span, new: Span) -> Span:
    """Return the record to store when a row has ``kept`` and ``new`` arrives; ``kept`` itself if nothing changes."""
    if new.rank == kept.rank == Rank.WORKER and any(attempt.is_hedge for attempt in (*kept.attempts, *new.attempts)):
        is_newer = _weight_beside_hedge(new) > _weight_beside_hedge(kept)
    else:
        is_newer = _weight(new) > _weight(kept) and not new.rank == kept.rank == Rank.CLIENT
    winner, other = (new, kept) if is_newer else (kept, new)
    attempts = _merged_attempts(winner, other)
    return winner if attempts == winner.attempts else msgspec.structs.replace(winner, attempts=attempts)


def grouped(spans: Iterable[Span]) -> dict[str, list[Span]]:
    """Return id of a run → its spans, in the order of their arrival."""
    result: dict[str, list[Span]] = {}
    for span in spans:
        result.setdefault(span.span_id, []).append(span)
    return result


def _weight(span: Span) -> tuple[int, bool, float]:
    """Return the key by which two records of one run are compared: the larger one is kept.

    A broker's record has no trace and counts less than a worker's. A later attempt counts more, though the run was asked for at the
    same time.
    """
    began = max((attempt.started_at for attempt in span.attempts), default=0.0)
    return int(span.rank), bool(span.trace_id), max(span.started_at, began)


def _weight_beside_hedge(span: Span) -> tuple[int, float]:
    """Return the same for two workers' records of one run that had a hedge.

    The caller has the answer that came first. Where there is none, the caller was told how the last attempt ended.
    """
    if span.status == "ok":
        came_after = span.first_chunk_seconds if span.streamed else None
        return _ENDS["ok"], -(span.ended_at if came_after is None else span.started_at + came_after)
    return _ENDS[span.status], span.ended_at


def _merged_attempts(winner: Span, other: Span) -> list[SpanAttempt]:
    if not other.attempts:
        return winner.attempts
    attempts = {attempt.number: attempt for attempt in _seen_from(winner, other)}
    if winner.rank is Rank.WORKER and other.rank is Rank.CLIENT:
        last = max((attempt.number for attempt in winner.attempts), default=0)
        attempts = {number: attempt for number, attempt in attempts.items() if number <= last}
    for attempt in winner.attempts:
        known = attempts.get(attempt.number)
        if known is None or known.ended_at is None or attempt.ended_at is not None:
            attempts[attempt.number] = _with_wire_format(attempt, known)
    return [attempts[number] for number in sorted(attempts)[: max(MAX_ATTEMPTS, len(winner.attempts))]]


def _seen_from(winner: Span, other: Span) -> list[SpanAttempt]:
    """Return the attempts of ``other`` with the provider and the model that each of them asked, if the winner names others."""
    own = (winner.provider, winner.model)
    if own == (other.provider, other.model):
        return other.attempts
    seen = []
    for attempt in other.attempts:
        asked = (attempt.provider or other.provider, attempt.model or other.model)
        provider, model = ("", "") if asked == own else asked
        seen.append(msgspec.structs.replace(attempt, provider=provider, model=model))
    return seen


def _with_wire_format(attempt: SpanAttempt, known: SpanAttempt | None) -> SpanAttempt:
    """Return the attempt with the known wire format: a client's record of a lost run does not have it."""
    if known is None or attempt.wire_format or not known.wire_format:
        return attempt
    format_, provider = known.wire_format, known.telemetry_provider
    return msgspec.structs.replace(attempt, wire_format=format_, telemetry_provider=provider)
