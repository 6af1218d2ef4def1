"""Carries out what the sessions of runs decide, on the links to the broker and to workers of one engine.

Used on the I/O thread only. An exception in a callback ends the runs of that callback, and no others.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import cast

import msgspec

from headrace.answers.assembly import joined_text
from headrace.connections.client_spans import RunSpans
from headrace.connections.engine_link import EngineLink
from headrace.connections.engine_source import EngineSource
from headrace.connections.run_links import Links
from headrace.connections.worker_links import WorkerLinks
from headrace.errors import (
    EngineUnavailableError,
    HeadraceError,
    InvalidRequestError,
    RemoteProtocolError,
    RunError,
)
from headrace.files.engine_directory import is_workers_endpoint
from headrace.process.callbacks import log, note_interrupt
from headrace.process.clock import monotonic
from headrace.process.history import open_history
from headrace.runs.open_runs import OpenRun, OpenRuns
from headrace.runs.session import Phase
from headrace.runs.session_commands import AskBroker, Command, HedgeBegan, HedgeEnded, RunEnded, TellWorker, WakeAt
from headrace.runs.task_alarm import TasksToWake
from headrace.transport.guarded_loop import GuardedLoop
from headrace.transport.reactor import Reactor
from headrace.transport.unix_dealer import UnixDealer
from headrace.wire.messages import (
    AbortMode,
    Acquire,
    Chunk,
    Finished,
    FlushResult,
    Grant,
    Hold,
    Refuse,
    Release,
    RestartAnswer,
    Revoke,
    SpanBatch,
    Status,
)

# The logging settings of a program may have this name: so it does not change with the modules of the client.
logger = logging.getLogger("headrace.connections.connection")

_WITHOUT_WORKER = (Phase.NEW, Phase.WAITING, Phase.BACKING_OFF)
"""Phases of a run that is on no worker."""
_CHECK_INTERVAL = 1.0
"""Seconds between two checks of all runs: for deadlines, and for silence."""
_WAITING = 1.0
"""Seconds after a lease for which a run had to wait, in which others are believed to wait too."""
_CLOSE_LINGER = 0.2
"""Seconds at most for the last messages to leave, when the connection is closed."""


class EngineRuns:
    """The runs on one engine. Used on the I/O thread only."""

    def __init__(
        self, reactor: Reactor, source: EngineSource, epoch: int, connect_timeout: float, open_runs: OpenRuns
    ) -> None:
        self.reactor = GuardedLoop(reactor, self._broke)
        self._source = source
        self._open_runs = open_runs
        self._history = open_history("client", epoch)
        self._links = Links(self.reactor, epoch, self._history)
        self._spans = RunSpans(self.reactor, self._dealer_of_collector, epoch, source.address)
        self._engine = EngineLink(self.reactor, source, connect_timeout, self._links, self._spans, self)
        self._workers = WorkerLinks(
            self.reactor, self._links, source, self._carry_out, self._chunk, self._fail_unexpectedly
        )
        self._deliveries: dict[str, OpenRun] = {}
        self._hedges: dict[str, OpenRun] = {}
        """The id of a hedge → the run."""
        self._to_wake = TasksToWake(reactor)
        # While runs wait for leases, leases are given back at once. They do until a while after the last one that waited.
        self._waited_until = 0.0
        self._is_checking = False
        self._is_closed = False

    @property
    def are_any(self) -> bool:
        """Whether there are runs that have not ended."""
        return bool(self._deliveries)

    # Exceptions that nobody expects.

    def guard(self, action: Callable[[OpenRun], None], delivery: OpenRun) -> None:
        """Do something for one run. An exception ends that run."""
        try:
            action(delivery)
        except BaseException as error:  # noqa: BLE001 - SystemExit too must not end the I/O thread
            self._fail_unexpectedly(delivery, error)

    def _broke(self, error: BaseException) -> None:
        """A callback raised that was not about one run. End all runs, and close the links: later runs open new ones."""
        note_interrupt(error)
        log(logger, logging.ERROR, "connection failed", error=error, extra={"address": self._source.address})
        self._workers.drop()
        with contextlib.suppress(Exception):
            self._engine.drop()
        for delivery in [*self._deliveries.values(), *self._open_runs.runs]:
            self._fail_unexpectedly(delivery, error, is_logged=True)
        with contextlib.suppress(Exception):
            self._engine.fail_waiting(EngineUnavailableError(self._source.address, _fault(error)))
        # What was to be done at the end of the turn may be what has raised.
        try:
            self._links.end_turn()
        except BaseException as again:  # noqa: BLE001 - it must not keep the tasks from being woken
            note_interrupt(again)
        self._to_wake.wake()

    def _fail_unexpectedly(self, delivery: OpenRun, error: BaseException, *, is_logged: bool = False) -> None:
        note_interrupt(error)
        if not is_logged:
            log(
                logger,
                logging.ERROR,
                "run failed in client",
                error=error,
                extra={"span_id": delivery.session.plan.span_id},
            )
        session = delivery.session
        failure = RunError(session.plan.span_id, _fault(error), joined_text(session.events))
        failure.__cause__ = error
        # Each step may raise again. The last one ends the run without its session.
        with contextlib.suppress(BaseException):
            self._fail(delivery, failure)
        with contextlib.suppress(BaseException):
            # The Release of the attempt before may have been among the commands that were lost. A second one does no harm.
            for attempt in range(max(session.attempt - 1, 1), session.attempt + 1):
                self._engine.ask(Release(session.span_id, attempt))
        if self._deliveries.pop(session.plan.span_id, None) is not None:
            with contextlib.suppress(BaseException):
                # The session has ended, but its commands were lost.
                self._engine.ask(Release(session.plan.span_id, session.attempt))
                self._finish(delivery)
        self._open_runs.give_up(delivery, failure)

    def _dealer_of_collector(self, endpoint: str) -> UnixDealer:
        return UnixDealer(endpoint, self._engine.is_beside_broker)

    # Runs.

    def submit_all(self, runs: Sequence[OpenRun]) -> None:
        """Start runs. An exception ends its run only."""
        now = monotonic()  # the same for all: so their questions fit into one message
        for run in runs:
            try:
                self._submit(run, now)
            except BaseException as error:  # noqa: BLE001 - SystemExit too must not end the I/O thread
                self._fail_unexpectedly(run, error)

    def _submit(self, delivery: OpenRun, now: float) -> None:
        if delivery.outcome.has_ended:
            self._open_runs.runs.discard(delivery)
            return  # it was given up before this thread began it
        span_id = delivery.span_id
        if self._history is not None:
            self._history.note("submit", span_id=span_id)
        if self._is_closed:
            self._fail(delivery, EngineUnavailableError(self._source.address, "the client is closed"))
        elif span_id in self._deliveries:
            self._fail(delivery, InvalidRequestError(f"{span_id} is running already", "span_id"))
        elif delivery.outcome.is_aborted:
            self._carry_out(delivery, delivery.session.stop(now))
        else:
            self._deliveries[span_id] = delivery
            self._carry_out(delivery, delivery.session.start(now))
            self._start_checking()

    def abort(self, delivery: OpenRun) -> None:
        """Have the worker of a run stop: the caller aborted, or the run was given up."""
        if delivery.session.phase is Phase.NEW:
            return  # :meth:`submit_all` comes later, and sees the abort
        mode: AbortMode | None = (
            "close" if delivery.outcome.is_given_up else None
        )  # None: as the caller's on_abort says
        self._carry_out(delivery, delivery.session.stop(monotonic(), mode))
        if (deadline := delivery.session.next_deadline) is not None and delivery.session.phase is Phase.STOPPING:
            self.reactor.call_at(deadline, partial(self._check, delivery))

    def withdraw(self, runs: Sequence[OpenRun], error: HeadraceError) -> None:
        """End the runs that are not on a worker, with ``error``. They give back their places in the queue."""
        for run in runs:
            if run.session.phase in _WITHOUT_WORKER:
                run.give_up(error)
                self.guard(self.abort, run)  # in this turn: a lease must not come before it

    def abort_all(self, owner: int, done: Callable[[], None]) -> None:
        """Abort the runs of one client, then call ``done``."""
        for delivery in list(self._deliveries.values()):
            if delivery.owner == owner:
                delivery.abandon()
                self.abort(delivery)
        done()

    def credit(self, delivery: OpenRun) -> None:
        """Give the worker credit, if it is due."""
        session = delivery.session
        if session.credit.is_due(session.events):
            self._carry_out(delivery, session.give_credit())

    def _fail(self, delivery: OpenRun, error: HeadraceError) -> None:
        self._carry_out(delivery, delivery.session.failed(error, monotonic()))

    def _check(self, delivery: OpenRun) -> None:
        self._carry_out(delivery, delivery.session.due(monotonic()))

    def _carry_out(self, delivery: OpenRun, commands: list[Command]) -> None:
        # By type: a pattern that does not fit takes as long as a call, and each run has three commands at least.
        for command in commands:
            kind = type(command)
            if kind is TellWorker:
                self._tell_worker(delivery, cast("TellWorker", command))
            elif kind is AskBroker:
                self._ask_broker(cast("AskBroker", command).message)
            elif kind is RunEnded:
                self._finish(delivery)
            else:
                self._carry_out_rare(delivery, command)

    def _ask_broker(self, message: Acquire | Hold | Release) -> None:
        if type(message) is Release and message.outcome == "finished" and self._may_be_late():
            self._engine.give_back_late(message)
        else:
            self._engine.ask(message)

    def _carry_out_rare(self, delivery: OpenRun, command: Command) -> None:
        match command:
            case WakeAt():
                self.reactor.call_at(command.when, partial(self.guard, self._check, delivery))
            case HedgeBegan():
                self._hedges[command.span_id] = delivery
            case HedgeEnded():
                self._hedges.pop(command.span_id, None)
            case _:
                pass  # the others are not rare

    def _may_be_late(self) -> bool:
        """Return whether the lease of a run that has finished may be given back late: with the next question, or within 10 ms.

        The broker hears of failures at once, and of every end while runs of this client wait.
        """
        return monotonic() >= self._waited_until

    def _tell_worker(self, delivery: OpenRun, command: TellWorker) -> None:
        try:
            self._workers.tell(delivery, command, knows_pids=self._engine.knows_pids)
        except HeadraceError as error:
            self.reactor.call(partial(self._fail, delivery, error))

    def _finish(self, delivery: OpenRun) -> None:
        if self._deliveries.get(delivery.span_id) is delivery:
            del self._deliveries[delivery.span_id]
        self._workers.release(delivery)
        try:
            self._tell_end(delivery)
        except BaseException as error:  # noqa: BLE001 - the caller must be told of the end
            self._fail_unexpectedly(delivery, error)

    def _tell_end(self, delivery: OpenRun) -> None:
        if self._history is not None:
            self._history.note("end", **delivery.session.end_facts())
        if logger.isEnabledFor(logging.DEBUG):
            log(
                logger,
                logging.DEBUG,
                "run ended",
                extra={"span_id": delivery.span_id, "outcome": type(delivery.session.ending).__name__},
            )
        now = monotonic()
        plan = delivery.session.plan
        if plan.first_chunks is not None and not plan.streams and isinstance(delivery.session.ending, Finished):
            plan.first_chunks.add(delivery.session.times.since_first_lease(now))
        self._spans.ended(delivery, now)
        delivery.ended(now, self._to_wake)
        self._open_runs.runs.discard(delivery)

    def _run_of(self, span_id: str) -> OpenRun | None:
        """Return the run with this id, or with this hedge."""
        return self._deliveries.get(span_id) or self._hedges.get(span_id)

    # The broker's messages.

    def granted(self, grant: Grant) -> None:
        """The broker gave a run a lease."""
        if (delivery := self._run_of(grant.span_id)) is None:
            return
        if logger.isEnabledFor(logging.DEBUG):
            log(
                logger,
                logging.DEBUG,
                "run has a worker",
                extra={"span_id": grant.span_id, "worker": grant.worker, "attempt": grant.attempt},
            )
        if grant.waited_for:
            self._waited_until = monotonic() + _WAITING
        # The endpoint of an open link was checked before.
        if not self._workers.has(grant.endpoint) and not is_workers_endpoint(grant.endpoint, self._engine.directory):
            reason = f"the engine named a worker that is not in its directory: {grant.endpoint!r:.200}"
            self._fail(delivery, RemoteProtocolError(reason))
        else:
            self._carry_out(delivery, delivery.session.granted(grant, monotonic()))

    def refused(self, refusal: Refuse) -> None:
        """The broker gives a run no lease."""
        if (delivery := self._run_of(refusal.span_id)) is not None:
            self._carry_out(
                delivery, delivery.session.refused(self._explained(refusal), monotonic(), self._source.address)
            )

    def revoked(self, revocation: Revoke) -> None:
        """The broker has ended a lease, because the worker did not know the run."""
        if (delivery := self._run_of(revocation.span_id)) is not None:
            self._carry_out(delivery, delivery.session.revoked(revocation.attempt, revocation.span_id))

    def limit(self, total_timeout: float) -> None:
        """Set the engine's total timeout, in seconds, for runs without one of their own."""
        self._open_runs.limit(total_timeout)

    def ask_again(self) -> None:
        """The broker is a new one: tell it of all leases, and ask again for the runs that wait."""
        for delivery in list(self._deliveries.values()):
            self._carry_out(delivery, delivery.session.broker_changed(monotonic()))

    def fail_waiting(self, error: HeadraceError) -> None:
        """No broker answers. End the runs that wait for a lease."""
        for delivery in list(self._deliveries.values()):
            if delivery.session.phase is Phase.WAITING:
                self._fail(delivery, error)

    def ask_status(self, answer: Callable[[Status | HeadraceError], None]) -> None:
        """Ask for the engine's status. No engine is started for it: the answer is an error then."""
        self._engine.look_at_status(answer)

    def ask_restart(self, answer: Callable[[RestartAnswer | HeadraceError], None], *, reload: bool = False) -> None:
        """Have the engine replace its workers, and with ``reload`` read its settings again."""
        self._engine.ask_restart(answer, reload=reload)

    def flush_spans(self, timeout: float, answer: Callable[[FlushResult | HeadraceError], None]) -> None:
        """Have the engine store and deliver its spans, within ``timeout`` seconds."""
        self._spans.flush(timeout, answer, self._engine.ask_status)

    def _explained(self, refusal: Refuse) -> Refuse:
        """Add the last lines of the engine's log, where no worker starts."""
        if refusal.kind != "no_workers":
            return refusal
        return msgspec.structs.replace(refusal, reason=refusal.reason + self._source.end_of_log())

    # The workers' messages.

    def _chunk(self, delivery: OpenRun, epoch: int, chunk: Chunk) -> None:
        """Events of a run arrived."""
        if commands := delivery.session.chunk(epoch, chunk):
            self._carry_out(delivery, commands)
            if delivery.session.phase is Phase.ENDED:
                return
        if not chunk.sequence:
            self._has_begun(delivery, chunk)
        delivery.arrived(self._to_wake)

    def _has_begun(self, delivery: OpenRun, chunk: Chunk) -> None:
        """The first events of an attempt arrived. Note how long they took, for the time after which runs are hedged."""
        session = delivery.session
        if len(session.events) != len(chunk.events):
            return  # of another attempt than the run's
        learns = session.plan.first_chunks
        if learns is not None and (session.attempt == 1 or session.span_id != delivery.span_id):
            learns.add(session.times.since_first_lease(monotonic()))

    # Deadlines and the end.

    def _start_checking(self) -> None:
        if not self._is_checking:
            self._is_checking = True
            self.reactor.call_later(_CHECK_INTERVAL, self._check_all)

    def _check_all(self) -> None:
        """Check each run's deadline, and for silence. This is coarse: the worker has the exact clocks."""
        self._is_checking = bool(self._deliveries)
        self._engine.look()
        for delivery in list(self._deliveries.values()):
            self.guard(self._check, delivery)
        self._workers.check_silence(monotonic())
        if self._is_checking:
            self.reactor.call_later(_CHECK_INTERVAL, self._check_all)

    def close(self, done: Callable[[], None]) -> None:
        """Abort all runs, tell their workers, close all links, and call ``done``."""
        self._is_closed = True
        try:
            for delivery in list(self._deliveries.values()):
                delivery.abandon()
                self.guard(self._end_now, delivery)
            self._engine.hurry()
            self._links.flush()
            self._spans.close(partial(self._close_links, done))
        except BaseException:
            self._close_links(done, ())
            raise

    def _end_now(self, delivery: OpenRun) -> None:
        self._carry_out(delivery, delivery.session.stop(monotonic(), "close"))
        self._fail(delivery, EngineUnavailableError(self._source.address, "the client was closed"))

    def _close_links(self, done: Callable[[], None], left: Iterable[SpanBatch]) -> None:
        try:
            self._engine.leave(left)
            self._workers.close(_CLOSE_LINGER)
            self._engine.end(_CLOSE_LINGER)
        finally:
            try:
                self._source.close()
            finally:
                done()

    def drop_links(self, error: HeadraceError) -> None:
        """Close all links at once, because the I/O thread has ended. Whoever asked for the status gets ``error``."""
        self._workers.drop()
        with contextlib.suppress(Exception):
            self._engine.drop()
        with contextlib.suppress(Exception):
            self._spans.drop()
        self._engine.answer_status(error)


def _fault(error: BaseException) -> str:
    """Return the text of an error that is a fault of this process."""
    return f"Headrace failed in this process: {type(error).__name__}: {error}"
