"""The connection of this process to one engine: starts, aborts and ends runs. Any thread may use it, and never waits.

Each call posts its work to the I/O thread of the process (``connections/engine_runs.py``). Where that thread has ended,
the runs are ended here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from headrace.connections.engine_runs import EngineRuns
from headrace.connections.engine_source import EngineSource
from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.runs.open_runs import OpenRun, OpenRuns
from headrace.transport.reactor import Reactor
from headrace.wire.messages import FlushResult, RestartAnswer, Status

if TYPE_CHECKING:
    import asyncio


class Connection:
    """Runs of this process on one engine."""

    def __init__(
        self, reactor: Reactor, source: EngineSource, epoch: int, connect_timeout: float, total_timeout: float = 600.0
    ) -> None:
        self.owners: set[int] = set()
        self._source = source
        self._open_runs = OpenRuns(total_timeout)
        self.runs = self._open_runs.runs
        """Runs that were asked for and have not ended. Any thread changes this set, in one step each time."""
        self._engine_runs = EngineRuns(reactor, source, epoch, connect_timeout, self._open_runs)
        self._reactor = self._engine_runs.reactor
        self.task_waits: Callable[[asyncio.AbstractEventLoop], None] = reactor.offer
        """Says that a task of this event loop, which runs in this thread, waits for a run. See :meth:`Reactor.offer`."""

    @property
    def is_lost(self) -> bool:
        """Whether the I/O thread has ended. The connection serves no run any more."""
        return self._reactor.has_ended

    def submit(self, run: OpenRun) -> None:
        """Start a run."""
        self.submit_all((run,))

    def submit_all(self, runs: Sequence[OpenRun]) -> None:
        """Start runs, together."""
        self._open_runs.add(runs)
        self._reactor.call(partial(self._engine_runs.submit_all, runs))
        if self.is_lost:
            for run in runs:
                self._open_runs.give_up(run, self._lost())  # the thread may have ended before it began this run

    def post_later(self, delay: float, action: Callable[[], None]) -> None:
        """Call ``action`` on the I/O thread, in ``delay`` seconds."""
        self._reactor.call(partial(self._reactor.call_later, delay, action))

    def post_abort(self, delivery: OpenRun) -> None:
        """Abort a run."""
        self._reactor.call_now(partial(self._engine_runs.guard, self._engine_runs.abort, delivery))

    def post_withdraw(self, runs: Sequence[OpenRun], error: HeadraceError) -> None:
        """End the runs that are not on a worker, with ``error``. The others go on."""
        self._reactor.call(partial(self._engine_runs.withdraw, runs, error))

    def post_credit(self, delivery: OpenRun) -> None:
        """Give credit for what the reader of a run has taken."""
        self._post(self._engine_runs.credit, delivery)

    def post_status(self, answer: Callable[[Status | HeadraceError], None]) -> None:
        """Ask for the engine's status. The I/O thread calls ``answer``."""
        self._reactor.call(partial(self._engine_runs.ask_status, answer))

    def post_restart(self, answer: Callable[[RestartAnswer | HeadraceError], None]) -> None:
        """Have the engine replace its workers. The I/O thread calls ``answer``."""
        self._reactor.call(partial(self._engine_runs.ask_restart, answer))

    def post_reload(self, answer: Callable[[RestartAnswer | HeadraceError], None]) -> None:
        """Have the engine read its settings again and replace its workers. The I/O thread calls ``answer``."""
        self._reactor.call(partial(self._engine_runs.ask_restart, answer, reload=True))

    def post_flush(self, timeout: float, answer: Callable[[FlushResult | HeadraceError], None]) -> None:
        """Have the engine store and deliver its spans within ``timeout`` seconds. The I/O thread calls ``answer``."""
        self._reactor.call(partial(self._engine_runs.flush_spans, timeout, answer))

    def post_abort_all(self, owner: int, done: Callable[[], None]) -> None:
        """Abort the runs of one client, then call ``done`` on the I/O thread."""
        self._reactor.call(partial(self._engine_runs.abort_all, owner, done))

    def post_close(self, done: Callable[[], None]) -> None:
        """End all runs, close the connection, end an embedded engine, and call ``done`` on the I/O thread."""
        self._reactor.call(partial(self._engine_runs.close, done))

    def give_up_all(self, error: HeadraceError | None = None, owner: int | None = None) -> None:
        """End the runs of one client (``None``: of all) with ``error``, without their sessions.

        By default the error says that the I/O thread has ended.
        """
        for delivery in list(self.runs):
            if owner is None or delivery.owner == owner:
                self._open_runs.give_up(delivery, error or self._lost())

    def thread_ended(self) -> None:
        """End all runs and close all links. The I/O thread calls this once, when it ends."""
        self.give_up_all()
        self._engine_runs.drop_links(self._lost())

    def close_source(self) -> None:
        """End an embedded engine, where the I/O thread cannot do it."""
        self._source.close()

    def _post(self, action: Callable[[OpenRun], None], delivery: OpenRun) -> None:
        self._reactor.call(partial(self._engine_runs.guard, action, delivery))

    def _lost(self) -> EngineUnavailableError:
        reason = "this process's I/O thread has ended; the next run starts another"
        return EngineUnavailableError(self._source.address, reason)
