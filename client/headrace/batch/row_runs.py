"""RowRuns: what a batch job needs of an engine. It starts rows in groups, and hands back those that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from headrace.batch.row import FinishedRow, Row


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

    def abort(self) -> None:
        """Stop all rows now. They end with RunError, and :meth:`take` returns them."""
