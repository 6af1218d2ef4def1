"""RowRun: one run of a batch job on its way to the job's thread, in as few steps as possible. Many end together.

A row's run has no stream and no reader of its own: all runs of a job hand themselves to one :class:`EndedRuns`, which
wakes the job's thread once for many of them. To the connection a RowRun is a run like any other (``open_runs.py``).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from headrace.answers.assembly import ResultFacts, joined_text
from headrace.errors import HeadraceError, RunTimeoutError
from headrace.pricing.prices import PriceTable
from headrace.process.clock import monotonic
from headrace.process.watchdog import LOOK_AFTER, Alarm
from headrace.runs.open_runs import OpenRun
from headrace.runs.outcome import ResultOrError, RunOutcome
from headrace.runs.session import DEADLINE_GRACE, Session
from headrace.runs.task_alarm import TasksToWake
from headrace.wire.messages import Status

TOGETHER = 0.01
"""Seconds that runs which have ended wait for others, so that the job's thread is woken once for all of them."""


class RowConnection(Protocol):
    """What the runs of a job ask of the connection. May be called from any thread, and returns at once."""

    def post_abort(self, run: OpenRun, /) -> None:
        """Have the worker stop the run."""

    def post_withdraw(self, runs: Sequence[OpenRun], error: HeadraceError, /) -> None:
        """End the runs that are not on a worker, with ``error``."""

    def post_status(self, answer: Callable[[Status | HeadraceError], None], /) -> None:
        """Ask for the engine's status. The I/O thread calls ``answer``."""

    def post_later(self, delay: float, action: Callable[[], None], /) -> None:
        """Call ``action`` on the I/O thread, in ``delay`` seconds."""


class RowRun:
    """One run of a batch job."""

    __slots__ = ("_ended", "bound", "ended_at", "outcome", "owner", "session", "started_at", "trace_id")

    def __init__(self, session: Session, trace_id: str, started_at: float, owner: int, ended: EndedRuns) -> None:
        self.session = session
        self.trace_id = trace_id
        self.started_at = started_at
        self.ended_at = started_at
        self.owner = owner
        self.outcome = RunOutcome()
        """Changed under the lock of EndedRuns, except by :meth:`abandon`."""
        timeout = session.plan.total_timeout
        self.bound = float("inf") if timeout is None else started_at + timeout + DEADLINE_GRACE
        """When the run must have ended, on the monotonic clock."""
        self._ended = ended

    @property
    def span_id(self) -> str:
        """The run's id."""
        return self.session.plan.span_id

    def limit(self, total_timeout: float) -> None:
        """Set the bound by a total timeout, in seconds."""
        self.bound = self.started_at + total_timeout + DEADLINE_GRACE
        self.session.times.total_timeout = total_timeout

    def look(self, now: float) -> None:
        """End the run if its bound has passed. Does nothing for a run that has ended."""
        if now < self.bound or self.outcome.has_ended:
            return
        limit = self.bound - self.started_at - DEADLINE_GRACE
        reason = f"not finished within {limit:g} s (total timeout), and this process's I/O thread did not say so"
        self.give_up(RunTimeoutError(self.span_id, reason, joined_text(self.session.events), "total", limit))

    def give_up(self, error: HeadraceError) -> None:
        """End the run with an error, without its session. Does nothing for a run that has ended."""
        with self._ended.lock:
            if not self.outcome.give_up(error):
                return
        self.ended(monotonic(), TasksToWake())
        self._ended.connection.post_abort(self)

    def abandon(self) -> None:
        """Abort the run: its client was closed."""
        if self.outcome.abandon():
            self._ended.connection.post_abort(self)

    def arrived(self, to_wake: TasksToWake) -> None:
        """Events were added. Nobody waits for them."""

    def ended(self, now: float, to_wake: TasksToWake) -> None:  # noqa: ARG002 - a job has no tasks
        """The session has its ending, or the run was given up. The second call does nothing."""
        ended = self._ended
        with ended.lock:
            if not self.outcome.end(self.session.ending):
                return
            self.ended_at = now
        ended.add(self)

    def result(self, prices: PriceTable) -> ResultOrError:
        """Return the result of a run that has ended, or its error."""
        session, plan, times = self.session, self.session.plan, self.session.times
        facts = ResultFacts(
            plan.span_id,
            self.trace_id,
            plan.provider,
            plan.model,
            (self.ended_at - self.started_at) * 1000,
            session.attempt,
            times.queue_seconds * 1000,
            times.queue_reason or None,
        )
        return self.outcome.see(plan, facts, session.events, prices)


class EndedRuns:
    """The runs of one job that have ended and were not taken yet. Any thread adds; one thread takes."""

    def __init__(self) -> None:
        self.connection: RowConnection
        """That of the runs that have not ended: see :meth:`use`."""
        # Reentrant: a signal handler may abort the job while its own thread holds it.
        self.lock = threading.RLock()
        """Held for a few steps only, and never while users' code runs."""
        self._runs: deque[RowRun] = deque()
        self._alarm: Alarm | None = None
        self._wanted = 1
        self._is_wake_due = False

    def use(self, connection: RowConnection) -> None:
        """Further runs are those of this connection. The runs of an earlier one have ended."""
        self.connection = connection

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run: RowRun) -> None:
        """A run has ended. Wake the job's thread now if it waits for no more runs than there are, else soon."""
        self._runs.append(run)
        if self._alarm is None:
            return
        if len(self._runs) >= self._wanted:
            self.wake()
        elif not self._is_wake_due:
            self._is_wake_due = True  # for this wait; :meth:`wait` takes it back
            self.connection.post_later(TOGETHER, self._wake_later)

    def wake(self) -> None:
        """Wake the job's thread, if it waits."""
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.wake()

    def _wake_later(self) -> None:
        if self._runs:
            self.wake()

    def wait(self, wanted: int, timeout: float) -> None:
        """Wait, ``timeout`` seconds at most, until so many runs have ended; or fewer, if no other has ended for a moment."""
        alarm = Alarm()
        self._wanted, self._is_wake_due, self._alarm = wanted, False, alarm
        if len(self._runs) >= wanted:
            self._alarm = None
            return
        alarm.wait(min(timeout, TOGETHER if self._runs else LOOK_AFTER))
        self._alarm = None

    def take(self) -> list[RowRun]:
        """Return the runs that have ended since the last call."""
        taken: list[RowRun] = []
        runs = self._runs
        while runs:
            taken.append(runs.popleft())
        return taken
