"""Links to the processes of one engine. The messages of one turn of the loop leave in one frame for each link.

This module knows frames and descriptors. It does not know what the messages mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from headrace.connections.engine_source import EngineSource
from headrace.errors import EngineUnavailableError, HeadraceError, ProtocolError
from headrace.files.trusted_directory import UntrustedDirectoryError
from headrace.process.clock import monotonic
from headrace.process.event_loop import CallingLoop
from headrace.process.history import History
from headrace.runs.open_runs import OpenRun
from headrace.transport.link import Link, hello_of, one_by_one
from headrace.transport.unix_dealer import UnixDealer
from headrace.wire.codec import from_broker, from_worker
from headrace.wire.groups import GROUPS, packed
from headrace.wire.messages import BROKER_FRAME_BYTES, MAX_GROUP, FromBroker, FromWorker, Grant, SpanBatch

_LATE = 0.01
"""Seconds that a message may wait for others that go to the same process."""
_START_CHECK_INTERVAL = 0.05
"""Seconds between two looks at an engine that has not answered yet."""
_WELCOME_TIMEOUT = 3.0
"""Seconds that the worker of a lease has to answer."""

Expects = Callable[[int], bool]


class TurnLink:
    """A link to one process of an engine. Its queued messages leave together, at the end of the loop's turn."""

    def __init__(self) -> None:
        self.link: Link[Any]
        self.outbox: list[msgspec.Struct] = []
        self.late: list[msgspec.Struct] = []
        """Messages that may wait a moment for others: see :meth:`Links.queue_late`."""
        self.has_late_timer = False
        self.is_awaited = False
        """Whether waiting runs and questions fail if this process does not answer in time."""

    @property
    def is_open(self) -> bool:
        """Whether the link is open."""
        return self.link.is_open

    @property
    def is_welcomed(self) -> bool:
        """Whether the process has answered."""
        return self.link.is_welcomed

    @property
    def capabilities(self) -> Collection[str]:
        """Which optional messages the process understands. None are known before it has answered."""
        return self.link.capabilities

    def packed(self, messages: list[msgspec.Struct]) -> Sequence[msgspec.Struct]:
        """Return the messages as the process understands them best: many runs in one message, if it can read that."""
        return packed(messages) if GROUPS in self.capabilities else messages

    @property
    def refusal(self) -> str | None:
        """Why the process may not be used: it is another user's, or its directory is not to be trusted.

        None if it may.
        """
        return self.link.refusal

    @property
    def peer_pid(self) -> int:
        """The process at the other end, as the kernel says. 0 while it is unknown."""
        return self.link.peer_pid


class WorkerLink(TurnLink):
    """A link to a worker, with the runs on it."""

    def __init__(self, grant: Grant) -> None:
        super().__init__()
        self.name = grant.worker
        self.endpoint = grant.endpoint
        self.epoch = grant.epoch
        self.deliveries: dict[str, OpenRun] = {}

    def packed(self, messages: list[msgspec.Struct]) -> Sequence[msgspec.Struct]:
        """Return the messages as they are: a worker gets none about leases."""
        return messages


def watch_start(
    reactor: CallingLoop,
    source: EngineSource,
    link: TurnLink,
    began: float,
    timeout: float,
    failed: Callable[[HeadraceError], None],
) -> None:
    """Call ``failed`` once if the broker of a new link cannot answer, or does not ``timeout`` seconds after ``began``.

    An embedded engine that is starting has longer: the machine may be busy, as with the start of many engines.
    """

    def look() -> None:
        if link.is_welcomed or not link.is_open:
            return
        error = start_failure(source, began, timeout)
        if error is None:
            reactor.call_later(_START_CHECK_INTERVAL, look)
        else:
            failed(error)

    reactor.call_later(_START_CHECK_INTERVAL, look)


def start_failure(source: EngineSource, began: float, timeout: float) -> HeadraceError | None:
    """Return why a broker that has not answered is given up: it cannot answer, or has not within ``timeout`` seconds after ``began``.

    None while it may still answer.
    """
    gone = source.why_gone()
    if gone is None and (monotonic() < began + timeout or source.is_starting()):
        return None
    return source.error(gone or f"nothing answered within {timeout:g} s; {source.hint}{source.end_of_log()}")


def watch_welcome(reactor: CallingLoop, link: WorkerLink, failed: Callable[[str], None]) -> None:
    """Call ``failed`` once, with the reason, if the worker of a lease does not answer in time."""

    def look() -> None:
        if not link.is_welcomed:
            failed(f"worker {link.name} did not answer within {_WELCOME_TIMEOUT:g} s")

    reactor.call_later(_WELCOME_TIMEOUT, look)


class Links:
    """Opens, reads, flushes and closes links. Used on the I/O thread only."""

    def __init__(self, reactor: CallingLoop, epoch: int, history: History | None = None) -> None:
        self._reactor = reactor
        self._history = history
        self._epoch = epoch
        self._dirty: list[TurnLink] = []
        self._is_end_due = False  # whether the end of this turn is awaited

    def open_broker(
        self,
        endpoint: str,
        received: Callable[[TurnLink, FromBroker], None],
        ended: Callable[[TurnLink], None],
        unreadable: Callable[[ProtocolError], None],
        is_broker: Expects | None = None,
    ) -> TurnLink:
        """Return a new link to the broker. It says hello when the broker is there and is the right process.

        ``ended`` is called when the broker has gone or is refused, ``unreadable`` when a frame cannot be decoded.
        ``is_broker`` says whether a pid is the broker's.
        """
        made = TurnLink()
        made.link = Link(
            self._reactor,
            partial(UnixDealer, endpoint, is_broker),
            partial(hello_of, "client"),
            self._epoch,
            from_broker,
            one_by_one(partial(received, made)),
            partial(ended, made),
            unreadable=unreadable,
            max_frame=BROKER_FRAME_BYTES,
            history=self._history,
        )
        _open(made.link, endpoint)
        return made

    def open_worker(
        self,
        grant: Grant,
        received: Callable[[WorkerLink, list[FromWorker]], None],
        ended: Callable[[WorkerLink], None],
        unreadable: Callable[[WorkerLink, ProtocolError], None],
        *,
        knows_pids: bool = False,
    ) -> WorkerLink:
        """Return a new link to the worker of a lease. ``received`` is called with the messages of each frame.

        ``knows_pids``: the engine numbers processes as this process does.
        """
        made = WorkerLink(grant)
        is_worker = grant.pid.__eq__ if grant.pid and knows_pids else None
        made.link = Link(
            self._reactor,
            partial(UnixDealer, grant.endpoint, is_worker),
            partial(hello_of, "client"),
            self._epoch,
            from_worker,
            partial(received, made),
            partial(ended, made),
            unreadable=partial(unreadable, made),
            history=self._history,
        )
        _open(made.link, grant.endpoint)
        return made

    def queue(self, link: TurnLink, message: msgspec.Struct) -> None:
        """Send a message at the end of this turn of the loop."""
        if not link.outbox:
            self._dirty.append(link)
        link.outbox.append(message)
        if not self._is_end_due:
            self._await_end()

    def queue_late(self, link: TurnLink, message: msgspec.Struct) -> None:
        """Send a message with the next one, or within :data:`_LATE` seconds. It never overtakes one that was queued before it."""
        if link.outbox:
            link.outbox.append(message)
            return
        link.late.append(message)
        if not link.has_late_timer:
            link.has_late_timer = True
            self._reactor.call_later(_LATE, partial(self._late_is_over, link))
        if len(link.late) == MAX_GROUP:
            self.send_late(link)

    def _late_is_over(self, link: TurnLink) -> None:
        link.has_late_timer = False
        self.send_late(link)

    def send_late(self, link: TurnLink) -> None:
        """Send the messages that wait for others at the end of this turn."""
        if link.late and not link.outbox:
            self._dirty.append(link)
            if not self._is_end_due:
                self._await_end()

    def _await_end(self) -> None:
        self._reactor.at_turn_end(self.end_turn)
        self._is_end_due = True

    def end_turn(self) -> None:
        """The turn ends, or has raised: send what was queued. Whatever this raises, the next message is sent at the end of its turn."""
        self._is_end_due = False
        self.flush()

    def flush(self) -> None:
        """Send the messages that were queued in this turn. A link that has been closed meanwhile sends nothing.

        If one link raises, its messages are lost, and those of the other links wait for the next call.
        """
        dirty = self._dirty
        while dirty:
            link = dirty.pop()
            messages, link.outbox = link.outbox, []
            if link.late:
                messages, link.late = link.late + messages, []
            if messages:  # else they have left since with others
                link.link.send(link.packed(messages))

    def leave(self, broker: TurnLink | None, spans: Iterable[SpanBatch]) -> None:
        """Leave spans with a broker that takes them, each batch in a frame of its own.

        A batch that is too large is left out.
        """
        if broker is not None and "spans" in broker.capabilities:
            for batch in spans:
                broker.link.send([batch])

    def close(self, link: TurnLink, linger: float = 0.0) -> None:
        """Close a link, at most ``linger`` seconds after its last message. May be called twice."""
        link.link.close(linger)


def _open(link: Link[Any], endpoint: str) -> None:
    """Open a link. Raises EngineUnavailableError if there is no descriptor, or the directory is not to be trusted."""
    try:
        link.open()
    except UntrustedDirectoryError as error:
        raise EngineUnavailableError(endpoint, str(error.strerror)) from error
    except OSError as error:
        raise EngineUnavailableError(endpoint, f"this process cannot open a connection: {error.strerror}") from error
