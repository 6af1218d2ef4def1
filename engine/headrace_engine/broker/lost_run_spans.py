"""Makes a span for each run whose worker or client went away: it says that the run began.

Any other span of the run replaces it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.spans.span import Rank, Span, SpanAttempt
from headrace_engine.broker.leases import UnfinishedRun


def lost_run_spans(
    runs: Iterable[UnfinishedRun], error_type: str, reason: str, now: float, wall_time: float
) -> Iterator[Span]:
    """Yield a span for each run.

    ``now`` is on the monotonic clock, like ``asked_at``; ``wall_time`` is the same moment.
    """
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
