"""Makes the results of rows that a provider has run in its own time, with their lower price. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from headrace.answers.assembly import ResultFacts
from headrace.batch.provider_batches.part import Part
from headrace.errors import HeadraceError
from headrace.pricing.discounts import price_share
from headrace.pricing.prices import PriceTable
from headrace.runs.endings import failure
from headrace.runs.outcome import ResultOrError, RunOutcome
from headrace.runs.run_plan import RunPlan
from headrace.runs.typed_answer import TypedAnswer
from headrace.schemas.response_type import ResponseType
from headrace.wire.batch_frames import StoredRow
from headrace.wire.batch_messages import BatchGroup
from headrace.wire.run_messages import Failed, Finished

Result = Any
"""The ``result`` of a FinishedRow."""


def span_id_of(part: Part, number: int) -> str:
    """Return the id of a row's run: the same one whenever it is asked for."""
    return f"sp_{hashlib.blake2b(f'{part.token}-{number}'.encode(), digest_size=8).hexdigest()}"


def trace_id_of(part: Part) -> str:
    """Return the id of the trace that the rows of a part have in common."""
    return f"tr_{hashlib.blake2b(part.token.encode(), digest_size=8).hexdigest()}"


def result_of(
    part: Part,
    stored: StoredRow,
    end: Finished | Failed,
    prices: PriceTable,
    wall: float,
    response_type: ResponseType | None,
) -> Result:
    """Return the result or the error of a row. ``wall``: seconds since 1970. ``response_type`` reads the answer."""
    span_id = span_id_of(part, stored.number)
    plan = RunPlan(span_id, stored.provider, stored.model, b"", streams=False)
    outcome = RunOutcome()
    outcome.end(failure(plan, (), end) if isinstance(end, Failed) else end)
    latency = max(wall - part.submitted_at, 0.0) * 1000
    facts = ResultFacts(span_id, trace_id_of(part), stored.provider, stored.model, latency, attempts=1)
    result = _discounted(outcome.see(plan, facts, (), prices), part.group)
    if response_type is None or isinstance(result, HeadraceError):
        return result
    return TypedAnswer(response_type).read(result)


def error_of(part: Part, number: int, failed: Failed, provider: str) -> HeadraceError:
    """Return the error of a row that has no answer."""
    plan = RunPlan(span_id_of(part, number), provider, "", b"", streams=False)
    return failure(plan, (), failed)


def unanswered(part: Part, outcome: str) -> Failed:
    """Return why a row has no answer. ``outcome``: of the row, else of its batch; empty: the results just lack it."""
    batch = f"batch {part.batch_id}" if part.batch_id else "the batch"
    match outcome:
        case "expired":
            reason = f"{batch} expired before the provider had run this row; start again with --retry-failed to send it again"
            return _failed("provider_unavailable", reason, "batch_expired")
        case "cancelled":
            reason = (
                f"{batch} was cancelled at the provider before it had run this row; start again with --retry-failed to "
                "send it again"
            )
            return _failed("provider_unavailable", reason, "batch_cancelled")
        case _:
            return _failed("provider_protocol", f"the results of {batch} have no answer to this row", "no_answer")


def _failed(kind: Any, reason: str, code: str) -> Failed:
    return Failed("", 1, 0, kind, reason, code=code)


def _discounted(result: ResultOrError, group: BatchGroup) -> ResultOrError:
    if isinstance(result, HeadraceError) or result.cost is None:
        return result
    return msgspec.structs.replace(result, cost=result.cost * price_share(group.window))
