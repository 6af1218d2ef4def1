"""The runs of one connection that have not ended. Any thread adds runs, and may end them without their sessions."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Protocol

from headrace.errors import HeadraceError
from headrace.runs.outcome import RunOutcome
from headrace.runs.session import Session
from headrace.runs.task_alarm import TasksToWake


class OpenRun(Protocol):
    """A run as the connection sees it: a ``Delivery``, or a ``RowRun`` of a batch job."""

    @property
    def session(self) -> Session:
        """Decides what to do."""

    @property
    def outcome(self) -> RunOutcome:
        """Says how the run has ended for its caller."""

    @property
    def span_id(self) -> str:
        """The run's id."""

    @property
    def owner(self) -> int:
        """The number of the run's client."""

    @property
    def started_at(self) -> float:
        """When the caller asked, on the monotonic clock."""

    bound: float
    """When the run must have ended, on the monotonic clock."""

    def limit(self, total_timeout: float) -> None:
        """Set the bound by a total timeout, in seconds."""

    def look(self, now: float) -> None:
        """End the run if its bound has passed."""

    def give_up(self, error: HeadraceError) -> None:
        """End the run with an error, without its session. Does nothing for a run that has ended."""

    def abandon(self) -> None:
        """Abort the run: nobody wants it any more."""

    def arrived(self, to_wake: TasksToWake) -> None:
        """Events were added. The tasks that wait for them go to ``to_wake``."""

    def ended(self, now: float, to_wake: TasksToWake) -> None:
        """The session has its ending. The tasks that wait for it go to ``to_wake``."""


class OpenRuns:
    """Runs that were asked for and have not ended."""

    def __init__(self, total_timeout: float) -> None:
        self.runs: set[OpenRun] = set()
        """Changed by any thread, in one step each time."""
        # For runs without a total timeout of their own, in seconds: a guess, until the broker says the engine's.
        self._total_timeout = total_timeout

    def add(self, runs: Sequence[OpenRun]) -> None:
        """Add runs that were just asked for."""
        for run in runs:
            if run.session.plan.total_timeout is None:
                run.limit(self._total_timeout)
        self.runs.update(runs)

    def limit(self, total_timeout: float) -> None:
        """Set the engine's total timeout, in seconds, for runs without one of their own."""
        self._total_timeout = total_timeout
        for run in list(self.runs):
            if run.session.plan.total_timeout is None:
                run.limit(total_timeout)

    def give_up(self, run: OpenRun, error: HeadraceError) -> None:
        """End a run with an error, without its session. Where that fails, the watchdog ends the run later."""
        with contextlib.suppress(BaseException):
            run.give_up(error)
        if run.outcome.has_ended:
            self.runs.discard(run)
