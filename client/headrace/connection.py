"""One engine as this process sees it: the broker's link, the workers' links, and the runs on them.

Everything here happens on the process's I/O thread, except the ``post_…`` methods and :meth:`Connection.submit`, which only
leave word for it. What to do is decided by sessions; this module carries it out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from headrace.delivery import Delivery, Wakeups, wake_loop
from headrace.errors import (
    EngineUnavailableError,
    HeadraceError,
    InvalidRequestError,
    ProtocolMismatchError,
    RemoteProtocolError,
)
from headrace.links import Link, Links, WorkerLink
from headrace.reactor import Reactor
from headrace.session import AskBroker, Command, Ended, Phase, TellWorker
from headrace.wire.codec import from_broker, from_worker
from headrace.wire.messages import (
    Chunk,
    FromBroker,
    FromWorker,
    Goodbye,
    Grant,
    Refuse,
    Release,
    Silent,
    Status,
    StatusRequest,
    Terminal,
    Welcome,
)

logger = logging.getLogger(__name__)

WORKER_WELCOME_TIMEOUT = 3.0
"""Seconds within which a worker that was granted must answer."""
_CHECK_INTERVAL = 1.0
_START_CHECK_INTERVAL = 0.05
_CLOSE_LINGER = 0.2


class EngineSource(Protocol):
    """Where the engine is, and what becomes of it. All calls come from the I/O thread."""

    address: str
    hint: str

    def open(self) -> str:
        """Return the broker's endpoint, starting an engine where that is this source's way; raises HeadraceError."""

    def problem(self) -> str | None:
        """Return why the engine cannot be there any more, or None."""

    def close(self) -> None:
        """End what :meth:`open` started."""


class Connection:
    """Runs of this process on one engine."""

    def __init__(self, reactor: Reactor, source: EngineSource, epoch: int, connect_timeout: float) -> None:
        self.owners: set[int] = set()
        self._reactor = reactor
        self._source = source
        self._connect_timeout = connect_timeout
        self._links = Links(reactor, epoch)
        self._broker: Link | None = None
        self._workers: dict[str, WorkerLink] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._wakeups: Wakeups = {}
        self._status_waiters: list[Callable[[Status | HeadraceError], None]] = []
        self._is_checking = False
        self._is_closed = False
        reactor.call(partial(reactor.each_turn, self._flush))

    # From any thread.

    def submit(self, delivery: Delivery) -> None:
        """Start a run."""
        self._reactor.call(partial(self._submit, delivery))

    def post_abort(self, delivery: Delivery) -> None:
        """Abort a run."""
        self._reactor.call(partial(self._abort, delivery))

    def post_taken(self, delivery: Delivery) -> None:
        """Give a reader's credit."""
        self._reactor.call(partial(self._credit, delivery))

    def post_status(self, answer: Callable[[Status | HeadraceError], None]) -> None:
        """Ask the engine how it is; ``answer`` is called on the I/O thread."""
        self._reactor.call(partial(self._ask_status, answer))

    def post_abort_all(self, owner: int, done: Callable[[], None]) -> None:
        """Abort one owner's runs."""
        self._reactor.call(partial(self._abort_all, owner, done))

    def post_close(self, done: Callable[[], None]) -> None:
        """End all runs, then the connection and an engine of our own."""
        self._reactor.call(partial(self._close, done))

    # Runs.

    def _submit(self, delivery: Delivery) -> None:
        span_id = delivery.span_id
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
        self._carry_out(delivery, delivery.session.aborted(time.monotonic()))
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
        lease = delivery.session.lease
        if lease is None:
            return
        link = self._workers.get(lease.endpoint)
        if link is None:
            link = self._open_worker(lease)
        link.deliveries[delivery.span_id] = delivery
        self._links.queue(link, command.message)

    def _ask_broker(self, message: msgspec.Struct) -> None:
        if self._broker is None:
            if isinstance(message, Release):
                return  # with its broker the lease is gone; the next one knows of those alone that are told to it
            self._open_broker()
        if self._broker is not None:
            self._links.queue(self._broker, message)

    def _finish(self, delivery: Delivery) -> None:
        if self._deliveries.get(delivery.span_id) is delivery:
            del self._deliveries[delivery.span_id]
        lease = delivery.session.lease
        if lease is not None and (link := self._workers.get(lease.endpoint)) is not None:
            link.deliveries.pop(delivery.span_id, None)
        delivery.ended(time.monotonic(), self._wakeups)

    def _flush(self) -> None:
        """Send what this turn produced: a frame for each link, a wake-up for each loop."""
        self._links.flush()
        if self._wakeups:
            wakeups, self._wakeups = self._wakeups, {}
            for loop, waiting in wakeups.items():
                wake_loop(loop, waiting)

    # The broker's link.

    def _open_broker(self) -> None:
        """Open a link and say hello; what waits for a lease asks again. A failure ends those that wait."""
        try:
            endpoint = self._source.open()
        except HeadraceError as error:
            self._reactor.call(partial(self._fail_waiting, error))
            return
        link = self._broker = self._links.open_broker(endpoint, self._read_broker, self._broker_ended)
        deadline = time.monotonic() + self._connect_timeout
        self._reactor.call_at(time.monotonic() + _START_CHECK_INTERVAL, partial(self._check_start, link, deadline))

    def _check_start(self, link: Link, deadline: float) -> None:
        if link is not self._broker or link.is_welcomed:
            return
        problem = self._source.problem()
        if problem is None and time.monotonic() < deadline:
            self._reactor.call_at(time.monotonic() + _START_CHECK_INTERVAL, partial(self._check_start, link, deadline))
            return
        reason = problem or f"nothing answered within {self._connect_timeout:g} s; {self._source.hint}"
        self._lose_engine(EngineUnavailableError(self._source.address, reason))

    def _lose_engine(self, error: HeadraceError) -> None:
        self._drop_broker()
        if self._source.problem() is not None:
            self._source.close()
        self._fail_waiting(error)

    def _fail_waiting(self, error: HeadraceError) -> None:
        for delivery in list(self._deliveries.values()):
            if delivery.session.phase is Phase.WAITING:
                self._fail(delivery, error)
        waiters, self._status_waiters = self._status_waiters, []
        for answer in waiters:
            answer(error)

    def _broker_ended(self, link: Link) -> None:
        self._links.close(link)
        self._broker = None
        if (problem := self._source.problem()) is not None:
            self._lose_engine(EngineUnavailableError(self._source.address, problem))
        elif self._deliveries or self._status_waiters:
            self._reopen_broker()

    def _reopen_broker(self) -> None:
        self._open_broker()
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
            for message in messages:
                self._from_broker(link, message)

    def _from_broker(self, link: Link, message: FromBroker) -> None:
        match message:
            case Grant():
                if (delivery := self._deliveries.get(message.span_id)) is not None:
                    self._carry_out(delivery, delivery.session.granted(message))
            case Refuse():
                if (delivery := self._deliveries.get(message.span_id)) is not None:
                    self._carry_out(delivery, delivery.session.refused(message))
            case Welcome():
                link.is_welcomed = True
            case Status():
                waiters, self._status_waiters = self._status_waiters, []
                for answer in waiters:
                    answer(message)
            case Silent():
                pass  # the supervisor's matter
            case Goodbye():
                self._lose_engine(EngineUnavailableError(self._source.address, message.reason))

    def _ask_status(self, answer: Callable[[Status | HeadraceError], None]) -> None:
        self._status_waiters.append(answer)
        self._ask_broker(StatusRequest())

    # The workers' links.

    def _open_worker(self, grant: Grant) -> WorkerLink:
        link = self._workers[grant.endpoint] = self._links.open_worker(grant, self._read_worker, self._worker_ended)
        self._reactor.call_at(time.monotonic() + WORKER_WELCOME_TIMEOUT, partial(self._check_welcome, link))
        return link

    def _check_welcome(self, link: WorkerLink) -> None:
        if not link.is_welcomed:
            self._lose_worker(link, f"worker {link.name} did not answer within {WORKER_WELCOME_TIMEOUT:g} s")

    def _worker_ended(self, link: WorkerLink) -> None:
        self._read_worker(link)  # what it said last
        self._lose_worker(link, f"worker {link.name} (process epoch {link.epoch:#x}) went away")

    def _lose_worker(self, link: WorkerLink, reason: str, error: HeadraceError | None = None) -> None:
        if not link.is_open:
            return
        self._links.close(link)
        del self._workers[link.endpoint]
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
            for message in messages:
                self._from_worker(link, epoch, message)
            if not link.is_open:
                return

    def _from_worker(self, link: WorkerLink, epoch: int, message: FromWorker) -> None:
        if isinstance(message, Chunk):
            delivery = link.deliveries.get(message.span_id)
            if delivery is not None:
                self._chunk(delivery, epoch, message)
        elif isinstance(message, Terminal):
            delivery = link.deliveries.get(message.span_id)
            if delivery is not None:
                self._carry_out(delivery, delivery.session.ended(epoch, message))
        elif isinstance(message, Welcome):
            link.is_welcomed = True
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
            self._reactor.call_at(time.monotonic() + _CHECK_INTERVAL, self._check_all)

    def _check_all(self) -> None:
        """Look at every run's deadline. Coarse on purpose: the worker keeps the exact clocks."""
        self._is_checking = bool(self._deliveries)
        for delivery in list(self._deliveries.values()):
            self._check(delivery)
        if self._is_checking:
            self._reactor.call_at(time.monotonic() + _CHECK_INTERVAL, self._check_all)

    def _close(self, done: Callable[[], None]) -> None:
        """End every run as aborted, tell their workers, and close."""
        for delivery in list(self._deliveries.values()):
            delivery.abandon()
            self._carry_out(delivery, delivery.session.aborted(time.monotonic(), "close"))
            self._fail(delivery, EngineUnavailableError(self._source.address, "the client was closed"))
        self._is_closed = True
        self._flush()
        for link in [*self._workers.values(), *([self._broker] if self._broker else [])]:
            self._links.close(link, _CLOSE_LINGER)
        self._workers.clear()
        self._broker = None
        self._links.end()
        self._source.close()
        self._reactor.remove_each_turn(self._flush)
        done()
