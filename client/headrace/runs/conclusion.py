"""What the caller of one run gets in the end: a result or an error, made of the session's outcome and of how the run was ended."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.answers.assembly import (
    InvalidArgumentsError,
    ResultFacts,
    aborted_result,
    embedding_result,
    finished_result,
    joined_text,
)
from headrace.errors import EngineUnavailableError, HeadraceError, ProviderProtocolError
from headrace.pricing.prices import PriceTable, run_cost
from headrace.runs.session import RunPlan, Session
from headrace.types import RunEmbeddingResult, RunLocalResult
from headrace.wire.messages import Aborted, Finished

Final = RunLocalResult | RunEmbeddingResult | HeadraceError


def conclude(session: Session, facts: ResultFacts, failure: HeadraceError | None, *, is_aborted: bool) -> Final:
    """Return the outcome as the caller sees it. ``failure`` is why the run was given up without its session."""
    plan = session.plan
    outcome = session.outcome
    if is_aborted or isinstance(outcome, Aborted):
        if not plan.streams:
            return EngineUnavailableError("the engine", "the client was closed while the run was under way")
        return _aborted(session, facts, outcome)
    if failure is not None:
        return failure
    if isinstance(outcome, Finished):
        if outcome.vectors is not None:
            return embedding_result(facts, outcome)
        try:
            return finished_result(facts, session.events, outcome, aborted=False if plan.streams else None)
        except InvalidArgumentsError as error:
            text = joined_text(session.events) or (outcome.message.text if outcome.message else "")
            return ProviderProtocolError(plan.span_id, str(error), text, plan.provider, 200)
    return outcome if outcome is not None else EngineUnavailableError("the engine", "the run has no outcome")


def priced(final: Final, plan: RunPlan, prices: PriceTable | None) -> Final:
    """Return the outcome with what the run cost, where that is known."""
    if prices is None or isinstance(final, HeadraceError):
        return final
    cost = run_cost(prices, plan.provider, plan.model, final.model, final.usage)
    return final if cost is None else msgspec.structs.replace(final, cost=cost)


def _aborted(session: Session, facts: ResultFacts, outcome: object) -> RunLocalResult:
    """Return the result of an aborted stream, whatever its worker said in the meantime."""
    if isinstance(outcome, Finished):
        outcome = Aborted(outcome.span_id, outcome.attempt, outcome.sequence, outcome.usage)
    return aborted_result(facts, session.events, outcome if isinstance(outcome, Aborted) else None)


def end_facts(session: Session) -> dict[str, Any]:
    """Return how a run ended, as its client's history writes it."""
    return {
        "span_id": session.plan.span_id,
        "attempt": session.attempt,
        "epoch": session.lease.epoch if session.lease is not None else 0,
        "kind": type(session.outcome).__name__,
        "count": len(session.events),
        "text": joined_text(session.events),
    }
