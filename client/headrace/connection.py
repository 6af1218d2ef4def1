"""One engine as this process sees it: the broker's link, the workers' links, and the runs on them.

Everything here happens on the process's I/O thread, except what is marked as from any thread, which only leaves word for it.
What to do is decided by sessions; this module carries it out. Whatever a callback raises ends the runs that it was about.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from headrace.assembly import joined_text
from headrace.callbacks import log
from headrace.delivery import Delivery, Wakeups, wake_all
from headrace.embedded import EngineSource
from headrace.errors import (
    EngineUnavailableError,
    HeadraceError,
    InvalidRequestError,
    ProtocolMismatchError,
    RemoteProtocolError,
    RunError,
)
from headrace.history import open_history
from headrace.links import Link, Links, WorkerLink, watch_start, watch_welcome
from headrace.reactor import Guarded, Reactor
from headrace.run_spans import RunSpans
from headrace.session import AskBroker, Command, Ended, Phase, TellWorker
from headrace.wire.codec import from_broker, from_worker
from headrace.wire.messages import (
    AbortMode,
    Chunk,
    FlushResult,
    FromBroker,
    FromWorker,
    Goodbye,
    Grant,
    Heartbeat,
    Hold,
    Joined,
    Refuse,
    Release,
    RunState,
    Silent,
    SpanBatch,
    Status,
    StatusRequest,
    Terminal,
    Vacated,
    Welcome,
)

logger = logging.getLogger(__name__)

_CHECK_INTERVAL = 1.0
_CLOSE_LINGER = 0.2


class Connection:
    """Runs of this process on one engine."""

    def __init__(
        self, reactor: Reactor, source: EngineSource, epoch: int, connect_timeout: float, total_timeout: float = 600.0
    ) -> None:
        self.owners: set[int] = set()
        self.runs: set[Delivery] = set()
        """Runs that have not ended, from the moment they are asked for. Changed by any thread, in one step each time."""
        self._reactor = Guarded(reactor, self._broke)
        self._source = source
        self._connect_timeout = connect_timeout
        # Of runs that ask for none: a guess, until the broker says.
        self._total_timeout = total_timeout
        self._history = open_history("client", epoch)
        self._links = Links(self._reactor, epoch, self._history)
        self._spans = RunSpans(self._reactor, self._links.dealer, epoch, source.address)
        self._broker: Link | None = None
        self._workers: dict[str, WorkerLink] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._wakeups: Wakeups = {}
        self._status_waiters: list[Callable[[Status | HeadraceError], None]] = []
        self._is_checking = False
        self._is_closed = False
        self._stop_flushing: Callable[[], None] = lambda: None
        self._reactor.call(self._start_flushing)

    # From any thread.

    @property
    def is_lost(self) -> bool:
        """Whether the I/O thread has ended: the connection serves no run any more."""
        return self._reactor.has_ended

    def submit(self, delivery: Delivery) -> None:
        """Start a run."""
        if delivery.session.plan.total_timeout is None:
            delivery.limit(self._total_timeout)
        self.runs.add(delivery)
        self._post(self._submit, delivery)
        if self.is_lost:
            self.give_up(delivery, self._lost())  # the thread may have ended before it saw this run

    def post_abort(self, delivery: Delivery) -> None:
        """Abort a run."""
        self._post(self._abort, delivery)

    def post_taken(self, delivery: Delivery) -> None:
        """Give a reader's credit."""
        self._post(self._credit, delivery)

    def post_status(self, answer: Callable[[Status | HeadraceError], None]) -> None:
        """Ask the engine how it is; ``answer`` is called on the I/O thread."""
        self._reactor.call(partial(self._ask_status, answer))

    def post_flush(self, timeout: float, answer: Callable[[FlushResult | HeadraceError], None]) -> None:
        """Have the engine store and deliver its spans; ``answer`` is called on the I/O thread."""
        self._reactor.call(partial(self._spans.flush, timeout, answer, self._ask_status))

    def post_abort_all(self, owner: int, done: Callable[[], None]) -> None:
        """Abort one owner's runs."""
        self._reactor.call(partial(self._abort_all, owner, done))

    def post_close(self, done: Callable[[], None]) -> None:
        """End all runs, then the connection and an engine of our own."""
        self._reactor.call(partial(self._close, done))

    def give_up(self, delivery: Delivery, error: HeadraceError) -> None:
        """End a run without its session; where that fails too, the watchdog does so later."""
        with contextlib.suppress(BaseException):
            delivery.give_up(error)
        if delivery.has_ended:
            self.runs.discard(delivery)

    def give_up_all(self, error: HeadraceError | None = None, owner: int | None = None) -> None:
        """End an owner's runs (``None``: everybody's) without their sessions; by default because the I/O thread has ended."""
        for delivery in list(self.runs):
            if owner is None or delivery.owner == owner:
                self.give_up(delivery, error or self._lost())

    def thread_ended(self) -> None:
        """End all runs and close all links. Called once, by the I/O thread as its last act."""
        self.give_up_all()
        for link in [*self._workers.values(), *filter(None, [self._broker])]:
            with contextlib.suppress(Exception):
                self._links.close(link)
        with contextlib.suppress(Exception):
            self._spans.drop()
        self._answer_status(self._lost())
        with contextlib.suppress(Exception):
            self._links.end()

    def close_source(self) -> None:
        """End an engine of our own, where the I/O thread does not do it."""
        self._source.close()

    def _post(self, action: Callable[[Delivery], None], delivery: Delivery) -> None:
        self._reactor.call(partial(self._guard, action, delivery))

    def _lost(self) -> EngineUnavailableError:
        reason = "this process's I/O thread has ended; the next run starts another"
        return EngineUnavailableError(self._source.address, reason)

    # What is raised, and by nobody expected.

    def _guard(self, action: Callable[[Delivery], None], delivery: Delivery) -> None:
        """Do something for one run; what it raises ends that run."""
        try:
            action(delivery)
        except BaseException as error:  # noqa: BLE001 - SystemExit too must not end the I/O thread
            self._fail_unexpectedly(delivery, error)

    def _broke(self, error: BaseException) -> None:
        """Something raised that was about no run alone: end all, and let go of the links, so that later runs find new ones."""
        log(logger, logging.ERROR, "the connection failed", error=error)
        for link in list(self._workers.values()):
            with contextlib.suppress(Exception):
                self._links.close(link)
        self._workers.clear()
        with contextlib.suppress(Exception):
            self._drop_broker()
        for delivery in [*self._deliveries.values(), *self.runs]:
            self._fail_unexpectedly(delivery, error, is_logged=True)
        with contextlib.suppress(Exception):
            self._fail_waiting(EngineUnavailableError(self._source.address, _said(error)))

    def _fail_unexpectedly(self, delivery: Delivery, error: BaseException, *, is_logged: bool = False) -> None:
        if not is_logged:
            log(logger, logging.ERROR, "a run failed in this process", error=error)
        session = delivery.session
        failure = RunError(session.plan.span_id, _said(error), joined_text(session.events))
        failure.__cause__ = error
        # What raised once may do so again: in the end the run is given up without any of this.
        with contextlib.suppress(BaseException):
            self._fail(delivery, failure)
        if self._deliveries.pop(session.plan.span_id, None) is not None:
            with contextlib.suppress(BaseException):
                # Its session has ended, and what it wanted to be done was lost on the way.
                self._ask_broker(Release(session.plan.span_id, session.attempt))
                self._finish(delivery)
        self.give_up(delivery, failure)

    # Runs.

    def _submit(self, delivery: Delivery) -> None:
        if delivery.has_ended:
            return  # it was given up before this thread came to it
        span_id = delivery.span_id
        if self._history is not None:
            self._history.note("submit", span_id=span_id)
        if self._is_closed:
            self._fail(delivery, EngineUnavailableError(self._source.address, "the client is closed"))
        elif span_id in self._deliveries:
            self._fail(delivery, InvalidRequestError(f"{span_id} is running already", "span_id"))
        elif delivery.is_aborted:
            self._carry_out(delivery, delivery.session.aborted(time.monotonic()))
        else:
            self._deliveries[span_id] = delivery
            self._carry_out(delivery, delivery.session.start(time.monotonic()))
            self._start_checking()

    def _abort(self, delivery: Delivery) -> None:
        if delivery.session.phase is Phase.NEW:
            return  # its submission is behind in the queue, and looks for itself
        mode: AbortMode | None = "close" if delivery.is_given_up else None  # else as its caller asked for
        self._carry_out(delivery, delivery.session.aborted(time.monotonic(), mode))
        if (deadline := delivery.session.next_deadline) is not None and delivery.session.phase is Phase.ABORTING:
            self._reactor.call_at(deadline, partial(self._check, delivery))

    def _abort_all(self, owner: int, done: Callable[[], None]) -> None:
        for delivery in list(self._deliveries.values()):
            if delivery.owner == owner:
                delivery.abandon()
                self._abort(delivery)
        done()

    def _credit(self, delivery: Delivery) -> None:
        session = delivery.session
        if delivery.is_draining:
            delivery.drained()
            self._carry_out(delivery, session.taken(len(session.events), delivery.drained_characters))
        elif commands := session.taken(delivery.taken, delivery.taken_characters):
            delivery.credited()
            self._carry_out(delivery, commands)

    def _fail(self, delivery: Delivery, error: HeadraceError) -> None:
        self._carry_out(delivery, delivery.session.failed(error))

    def _check(self, delivery: Delivery) -> None:
        self._carry_out(delivery, delivery.session.due(time.monotonic()))

    def _carry_out(self, delivery: Delivery, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case TellWorker():
                    self._tell_worker(delivery, command)
                case AskBroker():
                    self._ask_broker(command.message)
                case Ended():
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
            self._reactor.call(partial(self._fail, delivery, error))
            return
        link.deliveries[delivery.span_id] = delivery
        self._links.queue(link, command.message)

    def _ask_broker(self, message: msgspec.Struct) -> None:
        if self._broker is None:
            if isinstance(message, Release):
                return  # with its broker the lease is gone; the next one knows of those alone that are told to it
            self._open_broker()
        elif not (self._broker.is_awaited or isinstance(message, Hold | Release)):
            self._await_broker(self._broker)
        if self._broker is not None:
            self._links.queue(self._broker, message)

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
            self._history.ended(delivery.session)
        now = time.monotonic()
        self._spans.ended(delivery, now)
        delivery.ended(now, self._wakeups)
        self.runs.discard(delivery)

    def _start_flushing(self) -> None:
        self._stop_flushing = self._reactor.each_turn(self._flush)

    def _flush(self) -> None:
        """Send what this turn produced: a frame for each link, a wake-up for each loop."""
        self._links.flush()
        if self._wakeups:
            wakeups, self._wakeups = self._wakeups, {}
            wake_all(wakeups)

    # The broker's link.

    def _open_broker(self, *, is_awaited: bool = True) -> None:
        """Open a link and say hello. A failure ends those that wait."""
        try:
            endpoint = self._source.open()
            link = self._links.open_broker(endpoint, self._read_broker, self._broker_ended)
        except HeadraceError as error:
            self._reactor.call(partial(self._fail_waiting, error))
            return
        self._broker = link
        self._spans.engine_is_at(endpoint)
        if is_awaited:
            self._await_broker(link)

    def _await_broker(self, link: Link) -> None:
        link.is_awaited = True
        watch_start(self._reactor, self._source, link, self._connect_timeout, self._lose_engine)

    def _lose_engine(self, error: HeadraceError) -> None:
        logger.info("engine lost", extra={"reason": str(error)})
        self._drop_broker()
        if self._source.problem() is not None:
            self._source.close()
        self._fail_waiting(error)

    def _fail_waiting(self, error: HeadraceError) -> None:
        for delivery in list(self._deliveries.values()):
            if delivery.session.phase is Phase.WAITING:
                self._fail(delivery, error)
        self._answer_status(error)

    def _answer_status(self, status: Status | HeadraceError) -> None:
        waiters, self._status_waiters = self._status_waiters, []
        for answer in waiters:
            answer(status)

    def _broker_ended(self, _: Link) -> None:
        self._drop_broker()
        if (problem := self._source.problem()) is not None:
            self._lose_engine(self._source.error(problem))
        elif self._deliveries or self._status_waiters:
            self._reopen_broker()

    def _reopen_broker(self, *, is_awaited: bool = True) -> None:
        """Open a link to a new broker, which is told of leases, and asked again by those that wait for one."""
        self._open_broker(is_awaited=is_awaited)
        for delivery in list(self._deliveries.values()):
            self._carry_out(delivery, delivery.session.asked_again())
        if self._broker is not None and self._status_waiters:
            self._links.queue(self._broker, StatusRequest())

    def _drop_broker(self) -> None:
        if self._broker is not None:
            self._links.close(self._broker)
            self._broker = None

    def _read_broker(self, link: Link) -> None:
        for frame in link.dealer.receive():
            if not link.is_open:
                return
            try:
                _, messages = from_broker.decode(frame)
            except (RemoteProtocolError, ProtocolMismatchError) as error:
                self._lose_engine(error)
                return
            if self._history is not None:
                self._history.frame("received", messages)
            for message in messages:
                self._from_broker(link, message)

    def _from_broker(self, link: Link, message: FromBroker) -> None:
        match message:
            case Grant():
                if (delivery := self._deliveries.get(message.span_id)) is not None:
                    self._carry_out(delivery, delivery.session.granted(message, time.monotonic()))
            case Refuse():
                if (delivery := self._deliveries.get(message.span_id)) is not None:
                    self._carry_out(delivery, delivery.session.refused(self._explained(message), self._source.address))
            case Welcome():
                link.welcomed(message)
                self._limit(message.total_timeout)
                logger.info("connected to the engine", extra={"address": self._source.address})
            case Status():
                self._answer_status(message)
            case Heartbeat() | Silent() | Joined() | Vacated():
                pass  # the supervisor's matter, and the workers'
            case Goodbye():
                self._lose_engine(EngineUnavailableError(self._source.address, message.reason))

    def _limit(self, total_timeout: float | None) -> None:
        """The engine says how long runs may take that ask for no limit of their own."""
        if total_timeout is None:
            return
        self._total_timeout = total_timeout
        for delivery in list(self.runs):
            if delivery.session.plan.total_timeout is None:
                delivery.limit(total_timeout)

    def _explained(self, refusal: Refuse) -> Refuse:
        """Add what the engine's log says last, where no worker starts."""
        if refusal.kind != "no_workers":
            return refusal
        return msgspec.structs.replace(refusal, reason=refusal.reason + self._source.last_words())

    def _ask_status(self, answer: Callable[[Status | HeadraceError], None]) -> None:
        self._status_waiters.append(answer)
        self._ask_broker(StatusRequest())

    # The workers' links.

    def _open_worker(self, grant: Grant) -> WorkerLink:
        link = self._workers[grant.endpoint] = self._links.open_worker(grant, self._read_worker, self._worker_ended)
        watch_welcome(self._reactor, link, partial(self._lose_worker, link))
        return link

    def _worker_ended(self, link: WorkerLink) -> None:
        self._read_worker(link)  # what it said last
        self._lose_worker(link, f"worker {link.name} (process epoch {link.epoch:#x}) went away")

    def _lose_worker(self, link: WorkerLink, reason: str, error: HeadraceError | None = None) -> None:
        if not link.is_open:
            return
        self._links.close(link)
        del self._workers[link.endpoint]
        logger.info("worker lost", extra={"worker": link.name, "reason": reason, "runs": len(link.deliveries)})
        for delivery in list(link.deliveries.values()):
            session = delivery.session
            self._carry_out(delivery, session.worker_lost(reason) if error is None else session.failed(error))

    def _read_worker(self, link: WorkerLink) -> None:
        for frame in link.dealer.receive():
            try:
                epoch, messages = from_worker.decode(frame)
            except (RemoteProtocolError, ProtocolMismatchError) as error:
                self._lose_worker(link, str(error), error)
                return
            if self._history is not None:
                self._history.frame("received", messages, epoch)
            for message in messages:
                try:
                    self._from_worker(link, epoch, message)
                except BaseException as error:  # noqa: BLE001 - it ends the run that the message is about
                    self._message_failed(link, message, error)
            if not link.is_open:
                return

    def _message_failed(self, link: WorkerLink, message: FromWorker, error: BaseException) -> None:
        delivery = link.deliveries.get(getattr(message, "span_id", ""))
        if delivery is None:
            raise error
        self._fail_unexpectedly(delivery, error)

    def _from_worker(self, link: WorkerLink, epoch: int, message: FromWorker) -> None:
        if isinstance(message, Chunk):
            if (delivery := link.deliveries.get(message.span_id)) is not None:
                self._chunk(delivery, epoch, message)
        elif isinstance(message, Terminal | RunState):
            if (delivery := link.deliveries.get(message.span_id)) is not None:
                session = delivery.session
                if isinstance(message, RunState):
                    self._carry_out(delivery, session.run_state(epoch, message))
                else:
                    self._carry_out(delivery, session.ended(epoch, message))
                if session.lease is None:
                    link.deliveries.pop(message.span_id, None)  # it goes elsewhere, and does not end with this link
        elif isinstance(message, Welcome):
            link.welcomed(message)
            if epoch != link.epoch:
                self._lose_worker(link, f"another process answers where worker {link.name} was")
        else:
            self._lose_worker(link, message.reason, RemoteProtocolError(f"worker {link.name}: {message.reason}"))

    def _chunk(self, delivery: Delivery, epoch: int, chunk: Chunk) -> None:
        session = delivery.session
        if commands := session.chunk(epoch, chunk):
            self._carry_out(delivery, commands)
            return
        self._credit(delivery)
        delivery.arrived(self._wakeups)

    # Deadlines and the end.

    def _start_checking(self) -> None:
        if not self._is_checking:
            self._is_checking = True
            self._reactor.call_later(_CHECK_INTERVAL, self._check_all)

    def _check_all(self) -> None:
        """Look at every run's deadline, and for silence. Coarse on purpose: the worker keeps the exact clocks."""
        self._is_checking = bool(self._deliveries)
        if self._broker is None and self._deliveries and self._source.problem() is None:
            self._reopen_broker(is_awaited=False)  # one that comes later than anybody waited for is told of the leases
        for delivery in list(self._deliveries.values()):
            self._guard(self._check, delivery)
        now = time.monotonic()
        for link in list(self._workers.values()):
            for delivery in list(link.deliveries.values()) if "query" in link.capabilities else ():
                self._carry_out(delivery, delivery.session.listen(now))
        if self._is_checking:
            self._reactor.call_later(_CHECK_INTERVAL, self._check_all)

    def _close(self, done: Callable[[], None]) -> None:
        """End every run as aborted, tell their workers, and close."""
        self._is_closed = True
        try:
            for delivery in list(self._deliveries.values()):
                delivery.abandon()
                self._guard(self._end_now, delivery)
            self._flush()
            self._spans.close(partial(self._close_links, done))
        except BaseException:
            self._close_links(done, ())
            raise

    def _end_now(self, delivery: Delivery) -> None:
        self._carry_out(delivery, delivery.session.aborted(time.monotonic(), "close"))
        self._fail(delivery, EngineUnavailableError(self._source.address, "the client was closed"))

    def _close_links(self, done: Callable[[], None], left: Iterable[SpanBatch]) -> None:
        try:
            self._links.leave(self._broker, left)
            for link in filter(None, [*self._workers.values(), self._broker]):
                self._links.close(link, _CLOSE_LINGER)
            self._workers.clear()
            self._broker = None
            self._links.end()
        finally:
            self._stop_flushing()
            try:
                self._source.close()
            finally:
                done()


def _said(error: BaseException) -> str:
    return f"Headrace failed in this process: {type(error).__name__}: {error}"
