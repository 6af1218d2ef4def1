"""One engine as any thread of this process sees it: runs are begun, aborted and given up, without waiting.

What is asked for here is done by the process's I/O thread (``connections/engine_runs.py``), which is only left word. Where that thread has
ended, runs are ended here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from headrace.connections.engine_runs import EngineRuns
from headrace.connections.engine_source import EngineSource
from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.runs.delivery import Delivery
from headrace.runs.open_runs import OpenRuns
from headrace.transport.reactor import Reactor
from headrace.wire.messages import FlushResult, RestartAnswer, Status


class Connection:
    """Runs of this process on one engine. To be used from any thread."""

    def __init__(
        self, reactor: Reactor, source: EngineSource, epoch: int, connect_timeout: float, total_timeout: float = 600.0
    ) -> None:
        self.owners: set[int] = set()
        self._source = source
        self._open = OpenRuns(total_timeout)
        self.runs = self._open.deliveries
        """Runs that have not ended, from the moment they are asked for. Changed by any thread, in one step each time."""
        self._engine_runs = EngineRuns(reactor, source, epoch, connect_timeout, self._open)
        self._reactor = self._engine_runs.reactor

    @property
    def is_lost(self) -> bool:
        """Whether the I/O thread has ended: the connection serves no run any more."""
        return self._reactor.has_ended

    def submit(self, delivery: Delivery) -> None:
        """Start a run."""
        self._open.add(delivery)
        self._post(self._engine_runs.submit, delivery)
        if self.is_lost:
            self._open.give_up(delivery, self._lost())  # the thread may have ended before it saw this run

    def post_abort(self, delivery: Delivery) -> None:
        """Abort a run."""
        self._post(self._engine_runs.abort, delivery)

    def post_credit(self, delivery: Delivery) -> None:
        """Give a reader's credit."""
        self._post(self._engine_runs.credit, delivery)

    def post_status(self, answer: Callable[[Status | HeadraceError], None]) -> None:
        """Ask the engine how it is; ``answer`` is called on the I/O thread."""
        self._reactor.call(partial(self._engine_runs.ask_status, answer))

    def post_restart(self, answer: Callable[[RestartAnswer | HeadraceError], None]) -> None:
        """Have the engine replace its workers; ``answer`` is called on the I/O thread."""
        self._reactor.call(partial(self._engine_runs.ask_restart, answer))

    def post_flush(self, timeout: float, answer: Callable[[FlushResult | HeadraceError], None]) -> None:
        """Have the engine store and deliver its spans; ``answer`` is called on the I/O thread."""
        self._reactor.call(partial(self._engine_runs.flush_spans, timeout, answer))

    def post_abort_all(self, owner: int, done: Callable[[], None]) -> None:
        """Abort one owner's runs."""
        self._reactor.call(partial(self._engine_runs.abort_all, owner, done))

    def post_close(self, done: Callable[[], None]) -> None:
        """End all runs, then the connection and an engine of our own."""
        self._reactor.call(partial(self._engine_runs.close, done))

    def give_up_all(self, error: HeadraceError | None = None, owner: int | None = None) -> None:
        """End an owner's runs (``None``: everybody's) without their sessions; by default because the I/O thread has ended."""
        for delivery in list(self.runs):
            if owner is None or delivery.owner == owner:
                self._open.give_up(delivery, error or self._lost())

    def thread_ended(self) -> None:
        """End all runs and close all links. Called once, by the I/O thread as its last act."""
        self.give_up_all()
        self._engine_runs.drop_links(self._lost())

    def close_source(self) -> None:
        """End an engine of our own, where the I/O thread does not do it."""
        self._source.close()

    def _post(self, action: Callable[[Delivery], None], delivery: Delivery) -> None:
        self._reactor.call(partial(self._engine_runs.guard, action, delivery))

    def _lost(self) -> EngineUnavailableError:
        reason = "this process's I/O thread has ended; the next run starts another"
        return EngineUnavailableError(self._source.address, reason)
