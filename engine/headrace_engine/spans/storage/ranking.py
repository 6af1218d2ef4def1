"""Which of several spans of one run is kept, and what of the others. Pure.

A higher rank goes before a lower one, and of equal ones the newer; of two clients' the first, since each client ends a run once and
any may say that it was its own. Attempts are the one thing that several know a part of: those of both are kept, by number. Of what a
client says a worker's record takes only what it has a gap for.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headrace.spans.span import Rank, Span, SpanAttempt

MAX_ATTEMPTS = 1000
"""Of a run. Clients may tell of further ones without end."""


def merged(kept: Span, new: Span) -> Span:
    """Return what a row that says ``kept`` is to say once ``new`` has come; ``kept`` itself when that is nothing new."""
    is_newer = _weight(new) > _weight(kept) and not new.rank == kept.rank == Rank.CLIENT
    winner, other = (new, kept) if is_newer else (kept, new)
    attempts = _merged_attempts(winner, other)
    return winner if attempts == winner.attempts else msgspec.structs.replace(winner, attempts=attempts)


def grouped(spans: Iterable[Span]) -> dict[str, list[Span]]:
    """Return the spans by the id of their run, each run's in the order in which they came."""
    result: dict[str, list[Span]] = {}
    for span in spans:
        result.setdefault(span.span_id, []).append(span)
    return result


def _weight(span: Span) -> tuple[int, bool, float]:
    """Return what decides between two spans of one run.

    The broker's stub knows no trace and counts less than the worker's. A further attempt began later, though its caller asked
    when the first one did.
    """
    began = max((attempt.started_at for attempt in span.attempts), default=0.0)
    return int(span.rank), bool(span.trace_id), max(span.started_at, began)


def _merged_attempts(winner: Span, other: Span) -> list[SpanAttempt]:
    if not other.attempts:
        return winner.attempts
    attempts = {attempt.number: attempt for attempt in other.attempts}
    if winner.rank is Rank.WORKER and other.rank is Rank.CLIENT:
        last = max((attempt.number for attempt in winner.attempts), default=0)
        attempts = {number: attempt for number, attempt in attempts.items() if number <= last}
    for attempt in winner.attempts:
        known = attempts.get(attempt.number)
        if known is None or known.ended_at is None or attempt.ended_at is not None:
            attempts[attempt.number] = attempt
    return [attempts[number] for number in sorted(attempts)[: max(MAX_ATTEMPTS, len(winner.attempts))]]
