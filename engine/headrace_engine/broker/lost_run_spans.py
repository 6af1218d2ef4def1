"""What the broker says of runs whose worker or client went away: that they began. Whoever knows more has the last word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.spans.span import Rank, Span, SpanAttempt
from headrace_engine.broker.admission import Unfinished


def stubs(runs: Iterable[Unfinished], error_type: str, reason: str, now: float, wall_time: float) -> Iterator[Span]:
    """Yield a stub for each run. ``now`` is monotonic, as the runs' ``asked_at``; ``wall_time`` is the same instant."""
    for run in runs:
        asked_at = wall_time - (now - run.asked_at)
        yield Span(
            span_id=run.span_id,
            rank=Rank.STUB,
            provider=run.provider,
            model=run.model,
            error_type=error_type,
            error=reason,
            started_at=asked_at,
            ended_at=wall_time,
            duration_seconds=now - run.asked_at,
            attempts=[SpanAttempt(run.attempt, run.worker, asked_at, reason=reason)],
        )
