"""The runs on one engine, on the I/O thread: what their sessions decide is carried out on the links to broker and workers.

What a callback raises, whatever it is, ends the runs that it was about.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from headrace.answers.assembly import joined_text
from headrace.connections.client_spans import RunSpans
from headrace.connections.engine_link import EngineLink
from headrace.connections.engine_source import EngineSource
from headrace.connections.run_links import Links, WorkerLink, watch_welcome
from headrace.errors import (
    EngineUnavailableError,
    HeadraceError,
    InvalidRequestError,
    ProtocolError,
    RemoteProtocolError,
    RunError,
)
from headrace.files.engine_directory import is_workers_endpoint
from headrace.process.callbacks import log
from headrace.process.clock import monotonic
from headrace.process.history import open_history
from headrace.runs.delivery import Delivery
from headrace.runs.open_runs import OpenRuns
from headrace.runs.session import AskBroker, Command, Phase, RunEnded, TellWorker
from headrace.runs.task_alarm import TasksToWake, wake_tasks
from headrace.transport.reactor import Guarded, Reactor
from headrace.transport.sockets import OTHER_PROCESS, Dealer
from headrace.wire.messages import (
    AbortMode,
    Chunk,
    FlushResult,
    FromWorker,
    Grant,
    Refuse,
    Release,
    RestartAnswer,
    Revoke,
    RunState,
    SpanBatch,
    Status,
    Terminal,
    Welcome,
)

# A name that users' logging settings may have: where in the client a line comes from is no concern of theirs.
logger = logging.getLogger("headrace.connections.connection")

_CHECK_INTERVAL = 1.0
_CLOSE_LINGER = 0.2


class EngineRuns:
    """The runs on one engine. Used on the I/O thread only."""

    def __init__(
        self, reactor: Reactor, source: EngineSource, epoch: int, connect_timeout: float, open_runs: OpenRuns
    ) -> None:
        self.reactor = Guarded(reactor, self._broke)
        self._source = source
        self._open = open_runs
        self._history = open_history("client", epoch)
        self._links = Links(self.reactor, epoch, self._history)
        self._spans = RunSpans(self.reactor, self._dealer_of_collector, epoch, source.address)
        self._engine = EngineLink(self.reactor, source, connect_timeout, self._links, self._spans, self)
        self._workers: dict[str, WorkerLink] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._to_wake: TasksToWake = {}
        self._is_checking = False
        self._is_closed = False
        self._stop_flushing: Callable[[], None] = lambda: None
        self.reactor.call(self._start_flushing)

    @property
    def are_any(self) -> bool:
        """Whether there are runs that have not ended."""
        return bool(self._deliveries)

    # What is raised, and by nobody expected.

    def guard(self, action: Callable[[Delivery], None], delivery: Delivery) -> None:
        """Do something for one run; what it raises ends that run."""
        try:
            action(delivery)
        except BaseException as error:  # noqa: BLE001 - SystemExit too must not end the I/O thread
            self._fail_unexpectedly(delivery, error)

    def _broke(self, error: BaseException) -> None:
        """Something raised that was about no run alone: end all, and let go of the links, so that later runs find new ones."""
        log(logger, logging.ERROR, "connection failed", error=error, extra={"address": self._source.address})
        for link in list(self._workers.values()):
            with contextlib.suppress(Exception):
                self._links.close(link)
        self._workers.clear()
        with contextlib.suppress(Exception):
            self._engine.drop()
        for delivery in [*self._deliveries.values(), *self._open.deliveries]:
            self._fail_unexpectedly(delivery, error, is_logged=True)
        with contextlib.suppress(Exception):
            self._engine.fail_waiting(EngineUnavailableError(self._source.address, _said(error)))

    def _fail_unexpectedly(self, delivery: Delivery, error: BaseException, *, is_logged: bool = False) -> None:
        if not is_logged:
            log(
                logger,
                logging.ERROR,
                "run failed in client",
                error=error,
                extra={"span_id": delivery.session.plan.span_id},
            )
        session = delivery.session
        failure = RunError(session.plan.span_id, _said(error), joined_text(session.events))
        failure.__cause__ = error
        # What raised once may do so again: in the end the run is given up without any of this.
        with contextlib.suppress(BaseException):
            self._fail(delivery, failure)
        if self._deliveries.pop(session.plan.span_id, None) is not None:
            with contextlib.suppress(BaseException):
                # Its session has ended, and what it wanted to be done was lost on the way.
                self._engine.ask(Release(session.plan.span_id, session.attempt))
                self._finish(delivery)
        self._open.give_up(delivery, failure)

    def _dealer_of_collector(self, endpoint: str) -> Dealer:
        return self._links.dealer(endpoint, self._engine.is_beside_broker)

    # Runs.

    def submit(self, delivery: Delivery) -> None:
        """Start a run."""
        if delivery.outcome.has_ended:
            return  # it was given up before this thread came to it
        span_id = delivery.span_id
        if self._history is not None:
            self._history.note("submit", span_id=span_id)
        if self._is_closed:
            self._fail(delivery, EngineUnavailableError(self._source.address, "the client is closed"))
        elif span_id in self._deliveries:
            self._fail(delivery, InvalidRequestError(f"{span_id} is running already", "span_id"))
        elif delivery.outcome.is_aborted:
            self._carry_out(delivery, delivery.session.stop(monotonic()))
        else:
            self._deliveries[span_id] = delivery
            self._carry_out(delivery, delivery.session.start(monotonic()))
            self._start_checking()

    def abort(self, delivery: Delivery) -> None:
        """Abort a run."""
        if delivery.session.phase is Phase.NEW:
            return  # its submission is behind in the queue, and looks for itself
        mode: AbortMode | None = "close" if delivery.outcome.is_given_up else None  # else as its caller asked for
        self._carry_out(delivery, delivery.session.stop(monotonic(), mode))
        if (deadline := delivery.session.next_deadline) is not None and delivery.session.phase is Phase.STOPPING:
            self.reactor.call_at(deadline, partial(self._check, delivery))

    def abort_all(self, owner: int, done: Callable[[], None]) -> None:
        """Abort one owner's runs, then call ``done``."""
        for delivery in list(self._deliveries.values()):
            if delivery.owner == owner:
                delivery.abandon()
                self.abort(delivery)
        done()

    def credit(self, delivery: Delivery) -> None:
        """Give credit for what a run's reader has taken."""
        session = delivery.session
        if session.credit.is_due(session.events):
            self._carry_out(delivery, session.give_credit())

    def _fail(self, delivery: Delivery, error: HeadraceError) -> None:
        self._carry_out(delivery, delivery.session.failed(error))

    def _check(self, delivery: Delivery) -> None:
        self._carry_out(delivery, delivery.session.due(monotonic()))

    def _carry_out(self, delivery: Delivery, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case TellWorker():
                    self._tell_worker(delivery, command)
                case AskBroker():
                    self._engine.ask(command.message)
                case RunEnded():
                    self._finish(delivery)

    def _tell_worker(self, delivery: Delivery, command: TellWorker) -> None:
        if command.former is not None:
            if (former := self._workers.get(command.former.endpoint)) is not None:
                former.deliveries.pop(delivery.span_id, None)
                self._links.queue(former, command.message)
            return
        lease = delivery.session.lease
        if lease is None:
            return
        try:
            link = self._workers.get(lease.endpoint) or self._open_worker(lease)
        except HeadraceError as error:
            self.reactor.call(partial(self._fail, delivery, error))
            return
        link.deliveries[delivery.span_id] = delivery
        self._links.queue(link, command.message)

    def _finish(self, delivery: Delivery) -> None:
        if self._deliveries.get(delivery.span_id) is delivery:
            del self._deliveries[delivery.span_id]
        lease = delivery.session.lease
        if lease is not None and (link := self._workers.get(lease.endpoint)) is not None:
            link.deliveries.pop(delivery.span_id, None)
        try:
            self._tell_end(delivery)
        except BaseException as error:  # noqa: BLE001 - its caller is told of the end, whatever happens
            self._fail_unexpectedly(delivery, error)

    def _tell_end(self, delivery: Delivery) -> None:
        if self._history is not None:
            self._history.note("end", **delivery.session.end_facts())
        now = monotonic()
        self._spans.ended(delivery, now)
        delivery.ended(now, self._to_wake)
        self._open.deliveries.discard(delivery)

    def _start_flushing(self) -> None:
        self._stop_flushing = self.reactor.each_turn(self._flush)

    def _flush(self) -> None:
        """Send what this turn produced: a frame for each link, a wake-up for each loop."""
        self._links.flush()
        if self._to_wake:
            to_wake, self._to_wake = self._to_wake, {}
            wake_tasks(to_wake)

    # What the broker says.

    def granted(self, grant: Grant) -> None:
        """A run has a worker."""
        if (delivery := self._deliveries.get(grant.span_id)) is None:
            return
        # A link is open to none that was not looked at.
        if grant.endpoint not in self._workers and not is_workers_endpoint(grant.endpoint, self._engine.directory):
            reason = f"the engine named a worker that is not in its directory: {grant.endpoint!r:.200}"
            self._fail(delivery, RemoteProtocolError(reason))
        else:
            self._carry_out(delivery, delivery.session.granted(grant, monotonic()))

    def refused(self, refusal: Refuse) -> None:
        """A run gets no worker."""
        if (delivery := self._deliveries.get(refusal.span_id)) is not None:
            self._carry_out(delivery, delivery.session.refused(self._explained(refusal), self._source.address))

    def revoked(self, revocation: Revoke) -> None:
        """A run's lease has ended, since its worker does not have the run."""
        if (delivery := self._deliveries.get(revocation.span_id)) is not None:
            self._carry_out(delivery, delivery.session.revoked(revocation.attempt))

    def limit(self, total_timeout: float) -> None:
        """The engine says how long runs may take that ask for no limit of their own, in seconds."""
        self._open.limit(total_timeout)

    def ask_again(self) -> None:
        """The broker is another one: tell it of leases, and ask again for those that wait."""
        for delivery in list(self._deliveries.values()):
            self._carry_out(delivery, delivery.session.broker_changed())

    def fail_waiting(self, error: HeadraceError) -> None:
        """No broker answers: end the runs that wait for one."""
        for delivery in list(self._deliveries.values()):
            if delivery.session.phase is Phase.WAITING:
                self._fail(delivery, error)

    def ask_status(self, answer: Callable[[Status | HeadraceError], None]) -> None:
        """Ask the engine how it is."""
        self._engine.ask_status(answer)

    def ask_restart(self, answer: Callable[[RestartAnswer | HeadraceError], None]) -> None:
        """Have the engine replace its workers."""
        self._engine.ask_restart(answer)

    def flush_spans(self, timeout: float, answer: Callable[[FlushResult | HeadraceError], None]) -> None:
        """Have the engine store and deliver its spans."""
        self._spans.flush(timeout, answer, self._engine.ask_status)

    def _explained(self, refusal: Refuse) -> Refuse:
        """Add what the engine's log says last, where no worker starts."""
        if refusal.kind != "no_workers":
            return refusal
        return msgspec.structs.replace(refusal, reason=refusal.reason + self._source.end_of_log())

    # The workers' links.

    def _open_worker(self, grant: Grant) -> WorkerLink:
        link = self._workers[grant.endpoint] = self._links.open_worker(
            grant,
            self._worker_said,
            self._worker_ended,
            self._worker_unreadable,
            knows_pids=self._engine.knows_pids,
        )
        watch_welcome(self.reactor, link, partial(self._lose_worker, link))
        return link

    def _worker_ended(self, link: WorkerLink) -> None:
        if link.refusal == OTHER_PROCESS:
            self._lose_worker(link, f"another process listens where worker {link.name} was")
            return
        if link.refusal is not None:
            self._lose_worker(link, link.refusal, self._source.error(link.refusal))
            return
        self._lose_worker(link, f"worker {link.name} (process epoch {link.epoch:#x}) went away")

    def _lose_worker(self, link: WorkerLink, reason: str, error: HeadraceError | None = None) -> None:
        if not link.is_open:
            return
        self._links.close(link)
        del self._workers[link.endpoint]
        log(
            logger,
            logging.INFO,
            "worker lost",
            extra={"worker": link.name, "epoch": link.epoch, "reason": reason, "runs": len(link.deliveries)},
        )
        for delivery in list(link.deliveries.values()):
            session = delivery.session
            self._carry_out(delivery, session.worker_lost(reason) if error is None else session.failed(error))

    def _worker_said(self, link: WorkerLink, message: FromWorker) -> None:
        """Handle a message of a worker. If that fails, whatever is raised, only the message's run ends."""
        try:
            if isinstance(message, Chunk):
                if (delivery := link.deliveries.get(message.span_id)) is not None:
                    self._chunk(delivery, link.link.peer_epoch, message)
            elif isinstance(message, Terminal | RunState):
                self._run_said(link, message)
            elif isinstance(message, Welcome):
                if link.link.peer_epoch != link.epoch:
                    self._lose_worker(link, f"another process answers where worker {link.name} was")
            else:
                self._lose_worker(link, message.reason, RemoteProtocolError(f"worker {link.name}: {message.reason}"))
        except BaseException as error:  # noqa: BLE001 - it ends the run that the message is about
            self._message_failed(link, message, error)

    def _run_said(self, link: WorkerLink, message: Terminal | RunState) -> None:
        if (delivery := link.deliveries.get(message.span_id)) is None:
            return
        session, epoch = delivery.session, link.link.peer_epoch
        if isinstance(message, RunState):
            self._carry_out(delivery, session.run_state(epoch, message))
        else:
            self._carry_out(delivery, session.ended(epoch, message))
        if session.lease is None:
            link.deliveries.pop(message.span_id, None)  # it goes elsewhere, and does not end with this link

    def _worker_unreadable(self, link: WorkerLink, error: ProtocolError) -> None:
        self._lose_worker(link, str(error), error)

    def _message_failed(self, link: WorkerLink, message: FromWorker, error: BaseException) -> None:
        delivery = link.deliveries.get(getattr(message, "span_id", ""))
        if delivery is None:
            raise error
        self._fail_unexpectedly(delivery, error)

    def _chunk(self, delivery: Delivery, epoch: int, chunk: Chunk) -> None:
        session = delivery.session
        if commands := session.chunk(epoch, chunk):
            self._carry_out(delivery, commands)
            return
        self.credit(delivery)
        delivery.arrived(self._to_wake)

    # Deadlines and the end.

    def _start_checking(self) -> None:
        if not self._is_checking:
            self._is_checking = True
            self.reactor.call_later(_CHECK_INTERVAL, self._check_all)

    def _check_all(self) -> None:
        """Look at every run's deadline, and for silence. Coarse on purpose: the worker keeps the exact clocks."""
        self._is_checking = bool(self._deliveries)
        self._engine.look()
        for delivery in list(self._deliveries.values()):
            self.guard(self._check, delivery)
        now = monotonic()
        for link in list(self._workers.values()):
            for delivery in list(link.deliveries.values()) if "query" in link.capabilities else ():
                self._carry_out(delivery, delivery.session.check_silence(now))
        if self._is_checking:
            self.reactor.call_later(_CHECK_INTERVAL, self._check_all)

    def close(self, done: Callable[[], None]) -> None:
        """End every run as aborted, tell their workers, and close."""
        self._is_closed = True
        try:
            for delivery in list(self._deliveries.values()):
                delivery.abandon()
                self.guard(self._end_now, delivery)
            self._flush()
            self._spans.close(partial(self._close_links, done))
        except BaseException:
            self._close_links(done, ())
            raise

    def _end_now(self, delivery: Delivery) -> None:
        self._carry_out(delivery, delivery.session.stop(monotonic(), "close"))
        self._fail(delivery, EngineUnavailableError(self._source.address, "the client was closed"))

    def _close_links(self, done: Callable[[], None], left: Iterable[SpanBatch]) -> None:
        try:
            self._engine.leave(left)
            for link in list(self._workers.values()):
                self._links.close(link, _CLOSE_LINGER)
            self._engine.end(_CLOSE_LINGER)
            self._workers.clear()
            self._links.end()
        finally:
            self._stop_flushing()
            try:
                self._source.close()
            finally:
                done()

    def drop_links(self, error: HeadraceError) -> None:
        """Close all links at once: the I/O thread has ended, which is the ``error`` for those that asked for the status."""
        for link in list(self._workers.values()):
            with contextlib.suppress(Exception):
                self._links.close(link)
        with contextlib.suppress(Exception):
            self._engine.drop()
        with contextlib.suppress(Exception):
            self._spans.drop()
        self._engine.answer_status(error)
        with contextlib.suppress(Exception):
            self._links.end()


def _said(error: BaseException) -> str:
    return f"Headrace failed in this process: {type(error).__name__}: {error}"
