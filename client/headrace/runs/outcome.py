"""How a run ended, and which result or error its caller gets. Pure: the run's delivery holds the lock.

The rule of an abort. :class:`RunOutcome` owns it; no other object remembers that a run was aborted.

1. An abort says that the caller wants no more of the run: ``abort()``, the end of a ``with`` block, a cancelled task or
   future, a client that was closed, or a run that nobody holds any more.
2. An abort counts until the caller has seen the result: iteration came to its end, or a result that was asked for
   resolved. A later abort changes nothing. A run that nobody holds any more is aborted only while it has not ended.
3. An abort that counts wins over every ending, also over one that has arrived but was not seen: the worker's last
   message, an error, a timeout. The result of a stream then has ``aborted=True`` and the text that had arrived. A run
   without a stream has no partial result: it ends with EngineUnavailableError.
4. From the first time that the result was seen it never changes.
5. The session (``session.py``) tells the worker to stop. Its phase ``STOPPING`` says that the worker was told, and not
   why: a run that was given up stops its worker too, and its caller gets the error.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.answers.assembly import (
    InvalidArgumentsError,
    ResultFacts,
    aborted_result,
    embedding_result,
    finished_result,
    joined_text,
)
from headrace.errors import EngineUnavailableError, HeadraceError, ProviderProtocolError, RunError
from headrace.pricing.prices import PriceTable, run_cost
from headrace.runs.endings import Ending, as_aborted
from headrace.runs.run_plan import RunPlan
from headrace.types import RunEmbeddingResult, RunEvent, RunLocalResult
from headrace.wire.messages import Aborted, Finished

ResultOrError = RunLocalResult | RunEmbeddingResult | HeadraceError
"""What the caller gets."""


class RunOutcome:
    """The outcome of one run: undecided, then ended, then seen."""

    __slots__ = ("_seen", "ending", "has_ended", "is_aborted", "is_given_up")

    def __init__(self) -> None:
        self.is_aborted = False
        """Whether the caller aborted in time."""
        self.is_given_up = False
        """Whether the run was ended with an error, without its session."""
        self.has_ended = False
        """Whether the ending is decided."""
        self.ending: Ending | None = None
        self._seen: ResultOrError | None = None

    def abort(self) -> bool:
        """Abort the run for its caller.

        Returns False where that changes nothing: aborted already, or the result was seen.
        """
        if self.is_aborted or self._seen is not None:
            return False
        self.is_aborted = True
        return True

    def abandon(self) -> bool:
        """Abort the run, because its stream, iterators and result were dropped.

        Returns False where that changes nothing: aborted already, or the run has ended.
        """
        if self.is_aborted or self.has_ended:
            return False
        self.is_aborted = True
        return True

    def give_up(self, error: HeadraceError) -> bool:
        """Decide the ending without the session. Returns False where the run has ended; the first error stays."""
        if self.has_ended:
            return False
        if not self.is_given_up:
            self.is_given_up = True
            self.ending = error
        return True

    def end(self, ending: Ending | None) -> bool:
        """The session has ended with ``ending``, or the run was given up. Returns False the second time."""
        if self.has_ended:
            return False
        self.has_ended = True
        if not self.is_given_up:
            self.ending = ending
        return True

    def counts_as_aborted(self, ending: Ending | None) -> bool:
        """Return whether a run with this ending is an aborted one.

        A worker may end a run as aborted without being told.
        """
        return self.is_aborted or isinstance(ending, Aborted)

    def see(
        self, plan: RunPlan, facts: ResultFacts, events: Sequence[RunEvent], prices: PriceTable | None = None
    ) -> ResultOrError:
        """Return what the caller gets. The first call decides it, and an abort comes too late from then on."""
        if self._seen is None:
            try:
                self._seen = self._result(plan, facts, events, prices)
            except Exception as error:  # noqa: BLE001 - the run ends with it
                reason = f"its result cannot be made: {type(error).__name__}: {error}"
                self._seen = RunError(plan.span_id, reason, joined_text(events))
        return self._seen

    def _result(
        self, plan: RunPlan, facts: ResultFacts, events: Sequence[RunEvent], prices: PriceTable | None
    ) -> ResultOrError:
        ending = self.ending
        if self.counts_as_aborted(ending):
            if not plan.streams:
                return EngineUnavailableError("the engine", "the client was closed while the run was under way")
            aborted = as_aborted(ending) if isinstance(ending, Finished) else ending
            return _priced(
                aborted_result(facts, events, aborted if isinstance(aborted, Aborted) else None), plan, prices
            )
        if isinstance(ending, Finished):
            return _finished(plan, facts, events, ending, prices)
        if isinstance(ending, HeadraceError):
            return ending
        return EngineUnavailableError("the engine", "the run has no outcome")


def _finished(
    plan: RunPlan, facts: ResultFacts, events: Sequence[RunEvent], finished: Finished, prices: PriceTable | None
) -> ResultOrError:
    answered = finished.model or plan.model
    cost = None if prices is None else run_cost(prices, plan.provider, plan.model, answered, finished.usage)
    if finished.vectors is not None:
        return embedding_result(facts, finished, cost)
    try:
        return finished_result(facts, events, finished, aborted=False if plan.streams else None, cost=cost)
    except InvalidArgumentsError as error:
        text = joined_text(events) or (finished.message.text if finished.message else "")
        return ProviderProtocolError(plan.span_id, str(error), text, plan.provider, 200)


def _priced(result: RunLocalResult, plan: RunPlan, prices: PriceTable | None) -> RunLocalResult:
    """Return the result with what the run cost, where the price is known."""
    cost = None if prices is None else run_cost(prices, plan.provider, plan.model, result.model, result.usage)
    return result if cost is None else msgspec.structs.replace(result, cost=cost)
