"""Retries: which rows a batch job runs again, beyond what the engine tries by itself. Pure."""

from __future__ import annotations

import msgspec

from headrace.batch.row import FinishedRow
from headrace.errors import HeadraceError, OutputValidationError


class _Spent(msgspec.Struct):
    tries: int = 0
    cost: float = 0.0


class Retries:
    """Rows whose answers did not fit their schema, and what these answers cost. ``most``: tries of a row beyond the first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._spent: dict[int, _Spent] = {}

    def may_try_again(self, number: int, error: OutputValidationError) -> bool:
        """A row's answer did not fit. Return whether the row is run again."""
        spent = self._spent.setdefault(number, _Spent())
        if spent.tries >= self._most:
            return False
        spent.tries += 1
        spent.cost += error.cost or 0.0
        return True

    def with_whole_cost(self, finished: FinishedRow) -> FinishedRow:
        """Return a row that has a final result, with the cost of its earlier answers in it."""
        spent = self._spent.pop(finished.row.number, None) if self._spent else None
        result = finished.result
        if spent is None or not spent.cost:
            return finished
        if isinstance(result, OutputValidationError):
            whole = (result.cost or 0.0) + spent.cost
            error = OutputValidationError(result.span_id, result.reason, result.text, result.path, result.usage, whole)
            error.attempts = result.attempts
            return FinishedRow(finished.row, error)
        if isinstance(result, HeadraceError) or result.cost is None:
            return finished
        return FinishedRow(finished.row, msgspec.structs.replace(result, cost=result.cost + spent.cost))
