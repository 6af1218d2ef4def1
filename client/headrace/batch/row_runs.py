"""RowRuns: what a batch job needs of an engine. It starts rows in groups, and hands back those that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from headrace.batch.row import FinishedRow, Row
from headrace.errors import HeadraceError


class WithdrawnRowError(HeadraceError):
    """A row was withdrawn before a worker had it. It has no final record, and runs with the next start of the job."""

    def __str__(self) -> str:
        return "the batch job stopped before this row ran; start the job again to run it"


class RowRunsState(msgspec.Struct, frozen=True):
    """How many rows are with the engine now.

    ``running``: on a worker. ``waiting``: for a lease, or for their next attempt. ``waiting_for``: what most of them
    wait for, a word of ``WaitWord``; empty if none waits. ``rate_limited``: how often a provider has answered HTTP 429
    since the first row, also where a retry helped.
    """

    running: int = 0
    waiting: int = 0
    waiting_for: str = ""
    rate_limited: int = 0


class RowRuns(Protocol):
    """Runs rows on an engine. Used by one thread."""

    def start(self, rows: Sequence[Row]) -> None:
        """Start rows, and return at once. A row with wrong arguments ends with InvalidRequestError."""

    def take(self, timeout: float) -> list[FinishedRow]:
        """Return the rows that have ended since the last call. If there are none, wait for one, ``timeout`` seconds at most."""

    @property
    def state(self) -> RowRunsState:
        """How many rows run and wait now."""

    def cost_estimate(self, row: Row) -> float | None:
        """Return about how many US dollars a row will cost; None if the price of its model is not known."""

    def withdraw(self) -> None:
        """Give back the rows that are not on a worker: those that wait for a lease, or for their next attempt.

        They end with WithdrawnRowError, and :meth:`take` returns them. The rows on workers go on. Returns at once.
        """

    def abort(self) -> None:
        """Stop all rows now. They end with RunError, and :meth:`take` returns them."""


@runtime_checkable
class DeferredRuns(RowRuns, Protocol):
    """Rows that a provider runs in its own time, within minutes or a day. They go on after the job has left them.

    A job uses it as it uses RowRuns, with these differences:

    * There is no window: the job starts all rows of its input, and keeps none of them in memory meanwhile. A row that an
      earlier start of the job has left with the provider is started like the others: it is recognised, and not sent again.
      A job with a journal takes no row before it has started all. A row that is started again after it was taken is
      sent again.
    * ``take`` may return rows that were not started now: an earlier start of the job has left them, and they have no
      record yet.
    * After :meth:`end_input`, the job is over as soon as ``state`` has neither running nor waiting rows. Rows that were
      cancelled before the provider ran them are not returned: they have no record, and the next start runs them.
    * ``withdraw`` does nothing: the provider has all rows.
    * To interrupt the job means to stop calling ``take``, and to call :meth:`close`: the provider goes on. ``abort`` does
      the same, and returns no rows.
    """

    def end_input(self) -> None:
        """Send the rows that wait for a full batch. Rows that are started later are sent with the next ``take``."""

    def recorded(self, numbers: Sequence[int]) -> None:
        """Note that rows that ``take`` has returned are in the journal: their batch is forgotten once all of them are."""

    def cancel(self) -> None:
        """Cancel all rows at the provider. ``take`` still returns those that it has run by then, and ``state`` empties."""

    def close(self) -> None:
        """Leave the rows that are with the provider: the next start of the job finds them again. May be called twice."""
