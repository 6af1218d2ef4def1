"""Makes the messages with which an attempt of a run begins: the question for a lease, and the start on a worker. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.runs.reader_credit import ReaderCredit
from headrace.runs.run_plan import RunPlan
from headrace.wire.bounds import MAX_AVOIDED, MAX_NAME, MAX_SECONDS, cut
from headrace.wire.messages import Acquire, Grant, Hold, Run

_NOBODY: list[int] = []
"""No workers to avoid: shared by all messages, and never changed."""


def acquire_of(
    plan: RunPlan,
    span_id: str,
    attempt: int,
    avoided: Sequence[int],
    max_wait: float | None,
    *,
    is_provider_retry: bool = False,
    is_hedge: bool = False,
) -> Acquire:
    """Return the question for a lease. ``max_wait``: seconds that the run may wait for it; None: no limit.

    ``span_id``: the run's own, or its hedge's. For a hedge, nobody but its worker writes a span.
    """
    return Acquire(
        span_id,
        attempt,
        cut(plan.provider, MAX_NAME),
        cut(plan.model, MAX_NAME),
        plan.priority,
        list(avoided[-MAX_AVOIDED:]) if avoided else _NOBODY,
        plan.is_traced and span_id == plan.span_id,
        False,
        plan.account,
        plan.user,
        plan.tags,
        plan.input_tokens,
        plan.max_output_tokens,
        max_wait,
        is_provider_retry,
        is_hedge,
    )


def run_of(plan: RunPlan, grant: Grant, credit: ReaderCredit, queued: float, time_left: float | None) -> Run:
    """Return the message that starts the run on the worker of a lease.

    ``queued``: seconds since the run's start. ``time_left``: seconds that are left of its total timeout; None: all.
    """
    return Run(
        grant.span_id,
        grant.attempt,
        grant.epoch,
        plan.request,
        credit.sequence_limit,
        credit.character_limit,
        plan.api_key,
        queued,
        plan.base_url,
        grant.waited_for,
        grant.key,
        grant.reports,
        time_left if time_left is None else min(time_left, MAX_SECONDS),
        "" if grant.span_id == plan.span_id else plan.span_id,
    )


def hold_of(attempt: int, lease: Grant, question: Acquire | None, age: float) -> Hold:
    """Return what a new broker is told of a lease, and of the question to which it was the answer.

    ``age``: seconds since the lease came.
    """
    return Hold(lease.span_id, attempt, lease.epoch, question, lease.key, max(age, 0.0))
