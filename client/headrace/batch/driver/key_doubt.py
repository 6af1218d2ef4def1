"""KeyDoubt: the first rows of a batch job whose key was refused. If no row ends in another way, the job should not go on. Pure."""

from __future__ import annotations

from headrace.batch.row import FinishedRow
from headrace.batch.row_runs import WithdrawnRowError
from headrace.errors import (
    AuthenticationError,
    BudgetExceededError,
    EngineUnavailableError,
    HeadraceError,
    QueueFullError,
)

_NO_PROOF = (EngineUnavailableError, BudgetExceededError, QueueFullError, WithdrawnRowError)
"""Errors of rows that have not reached a provider."""


class KeyDoubt:
    """Keeps rows with AuthenticationError until a row ends in another way, or until no row is under way."""

    def __init__(self) -> None:
        self._rows: list[FinishedRow] = []
        self._is_settled = False

    @property
    def holds_rows(self) -> bool:
        """Whether rows wait for another row's end. Then no further row should be started."""
        return bool(self._rows)

    def keeps(self, finished: FinishedRow) -> bool:
        """Return whether the row is kept here for now."""
        if self._is_settled or not isinstance(finished.result, AuthenticationError):
            return False
        self._rows.append(finished)
        return True

    def freed_by(self, result: object) -> list[FinishedRow]:
        """Return the rows that are kept, if the end of another row shows that some key works. They have failed for good."""
        if self._is_settled or isinstance(result, _NO_PROOF):
            return []
        self._is_settled = True
        return self.give_up()

    def give_up(self) -> list[FinishedRow]:
        """Return the rows that are kept, and keep them no more."""
        rows, self._rows = self._rows, []
        return rows


def error_of(rows: list[FinishedRow]) -> HeadraceError:
    """Return the error of the first row."""
    error = rows[0].result
    assert isinstance(error, HeadraceError)  # noqa: S101 - only such rows are kept
    return error
