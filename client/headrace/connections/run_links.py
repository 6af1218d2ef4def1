"""The sockets of one connection to an engine: a link per process, and a frame per link and turn of the loop.

Knows frames and descriptors, not what the messages mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from headrace.connections.engine_source import EngineSource
from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.files.trusted_directory import UntrustedDirectoryError
from headrace.process.clock import monotonic
from headrace.process.event_loop import CallingLoop
from headrace.process.history import History
from headrace.runs.delivery import Delivery
from headrace.transport.connector import Connector
from headrace.transport.sockets import Dealer, new_context
from headrace.wire.codec import encode_frame
from headrace.wire.messages import (
    BROKER_FRAME_BYTES,
    CAPABILITIES,
    MAX_FRAME_BYTES,
    MAX_FRAME_MESSAGES,
    PROTOCOL_MINOR,
    Grant,
    Hello,
    SpanBatch,
    Welcome,
)

_START_CHECK_INTERVAL = 0.05
_WELCOME_TIMEOUT = 3.0
"""Seconds within which a worker that was granted must answer."""

Read = Callable[[Any], None]
Expects = Callable[[int], bool]


class Link:
    """A connection to one process, with the messages that leave at the end of this turn."""

    max_frame = BROKER_FRAME_BYTES
    """Bytes of a frame that its process takes; messages that are longer together leave in several."""

    def __init__(self, read: Read) -> None:
        self.connector: Connector
        self.read = read
        self.outbox: list[msgspec.Struct] = []
        self.is_welcomed = False
        # What its process understands beyond the first version; nothing before it has answered.
        self.capabilities: Collection[str] = ()
        self.is_open = True
        # Whether somebody gives up when there is no answer for too long.
        self.is_awaited = False
        self.refusal: str | None = None
        """Why its process was told nothing, where it is another user's, or its directory is not to be trusted."""

    @property
    def peer_pid(self) -> int:
        """The process at the other end as the kernel tells it, 0 while it is unknown."""
        return self.connector.peer_pid

    def welcomed(self, welcome: Welcome) -> None:
        """Its process has answered."""
        self.is_welcomed = True
        self.capabilities = welcome.capabilities


class WorkerLink(Link):
    """A link to a worker, with the runs on it."""

    max_frame = MAX_FRAME_BYTES

    def __init__(self, read: Read, grant: Grant) -> None:
        super().__init__(read)
        self.name = grant.worker
        self.endpoint = grant.endpoint
        self.epoch = grant.epoch
        self.deliveries: dict[str, Delivery] = {}


def watch_start(
    reactor: CallingLoop,
    source: EngineSource,
    link: Link,
    began: float,
    timeout: float,
    failed: Callable[[HeadraceError], None],
) -> None:
    """Wait for a new link's broker to answer; call ``failed`` once when it cannot, or has not ``timeout`` seconds after ``began``.

    An engine of our own that is on its way is waited for: the machine may be busy with the start of many.
    """
    deadline = began + timeout

    def look() -> None:
        if link.is_welcomed or not link.is_open:
            return
        problem = source.problem()
        if problem is None and (monotonic() < deadline or source.is_starting()):
            reactor.call_later(_START_CHECK_INTERVAL, look)
            return
        reason = problem or f"nothing answered within {timeout:g} s; {source.hint}"
        failed(source.error(reason))

    reactor.call_later(_START_CHECK_INTERVAL, look)


def watch_welcome(reactor: CallingLoop, link: WorkerLink, failed: Callable[[str], None]) -> None:
    """Wait for a worker that was granted to answer; call ``failed`` once, with the reason, when it does not."""

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
        self._context: Any = None
        self._dirty: list[Link] = []

    def open_broker(self, endpoint: str, read: Read, ended: Read, is_broker: Expects | None = None) -> Link:
        """Return a new link to the broker, which is said hello to once it is there and known.

        ``ended`` is called with the link when it has ended, or is refused.
        """
        return self._open(Link(read), endpoint, ended, is_broker)

    def open_worker(self, grant: Grant, read: Read, ended: Read, *, knows_pids: bool = False) -> WorkerLink:
        """Return a new link to the worker of a lease. ``knows_pids``: the engine numbers processes as this one does."""
        link = WorkerLink(read, grant)
        is_worker = grant.pid.__eq__ if grant.pid and knows_pids else None
        self._open(link, grant.endpoint, ended, is_worker)
        return link

    def queue(self, link: Link, message: msgspec.Struct) -> None:
        """Have a message leave at the end of this turn."""
        if not link.outbox:
            self._dirty.append(link)
        link.outbox.append(message)

    def flush(self) -> None:
        """Send what this turn produced."""
        while self._dirty:
            links, self._dirty = self._dirty, []
            for link in links:
                messages, link.outbox = link.outbox, []
                for start in range(0, len(messages), MAX_FRAME_MESSAGES):
                    self._send(link, messages[start : start + MAX_FRAME_MESSAGES])

    def leave(self, broker: Link | None, spans: Iterable[SpanBatch]) -> None:
        """Leave spans with a broker that takes them, each batch in a frame of its own; one that is too large is left out."""
        if broker is not None and "spans" in broker.capabilities:
            for batch in spans:
                self._send(broker, [batch])

    def _send(self, link: Link, messages: Sequence[msgspec.Struct]) -> None:
        """Send one frame, unless what was read after one before it has closed the link."""
        if not link.is_open:
            return
        frame = encode_frame(self._epoch, messages)
        if len(frame) > link.max_frame:
            half = len(messages) // 2
            for some in (messages[:half], messages[half:]) if half else ():
                self._send(link, some)
            return
        if self._history is not None:
            self._history.frame("sent", messages)
        link.connector.send(frame)
        if link.connector.has_input():
            link.read(link)

    def close(self, link: Link, linger: float = 0.0) -> None:
        """Close a link; may be called twice."""
        if link.is_open:
            link.is_open = False
            link.connector.close(linger)

    def end(self) -> None:
        """Wait until what lingers has left; all links are closed."""
        if self._context is not None:
            self._context.term()

    def dealer(self, endpoint: str, expects: Expects | None = None) -> Dealer:
        """Return a new socket; raises OSError where there is no descriptor for it, or its directory is not to be trusted."""
        if self._context is None:
            self._context = new_context()
        return Dealer(self._context, endpoint, expects)

    def _open(self, link: Link, endpoint: str, ended: Read, expects: Expects | None) -> Link:
        again = partial(self.dealer, endpoint, expects)
        dealer: Dealer | None = None
        try:
            dealer = again()
        except FileNotFoundError:
            pass  # further attempts are made
        except UntrustedDirectoryError as error:
            raise EngineUnavailableError(endpoint, str(error.strerror)) from error
        except OSError as error:
            raise EngineUnavailableError(
                endpoint, f"this process cannot open a connection: {error.strerror}"
            ) from error

        def has_ended(reason: str | None) -> None:
            link.refusal = reason
            if link.is_open:
                ended(link)

        link.connector = Connector(self._reactor, dealer, again, partial(link.read, link), has_ended)
        self.queue(link, Hello("client", PROTOCOL_MINOR, os.getpid(), CAPABILITIES))
        return link
