"""The sockets of one connection to an engine: a link per process, and a frame per link and turn of the loop.

Knows frames and descriptors, not what the messages mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from headrace.delivery import Delivery
from headrace.reactor import Reactor
from headrace.sockets import Dealer, new_context
from headrace.wire.codec import encode_frame
from headrace.wire.messages import CAPABILITIES, PROTOCOL_MINOR, Grant, Hello

Read = Callable[[Any], None]


class Link:
    """A connection to one process, with the messages that leave at the end of this turn."""

    def __init__(self, dealer: Dealer, read: Read) -> None:
        self.dealer = dealer
        self.read = read
        self.outbox: list[msgspec.Struct] = []
        self.is_welcomed = False
        self.is_open = True


class WorkerLink(Link):
    """A link to a worker, with the runs on it."""

    def __init__(self, dealer: Dealer, read: Read, grant: Grant) -> None:
        super().__init__(dealer, read)
        self.name = grant.worker
        self.endpoint = grant.endpoint
        self.epoch = grant.epoch
        self.deliveries: dict[str, Delivery] = {}


class Links:
    """Opens, reads, flushes and closes links. Used on the I/O thread only."""

    def __init__(self, reactor: Reactor, epoch: int) -> None:
        self._reactor = reactor
        self._epoch = epoch
        self._context: Any = None
        self._dirty: list[Link] = []

    def open_broker(self, endpoint: str, read: Read, ended: Read) -> Link:
        """Return a new link to the broker, which has been said hello to."""
        return self._open(Link(self._dealer(endpoint), read), ended)

    def open_worker(self, grant: Grant, read: Read, ended: Read) -> WorkerLink:
        """Return a new link to the worker of a lease."""
        link = WorkerLink(self._dealer(grant.endpoint), read, grant)
        self._open(link, ended)
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
                if link.is_open:
                    link.dealer.send(encode_frame(self._epoch, messages))
                    if link.dealer.has_input():
                        link.read(link)

    def close(self, link: Link, linger: float = 0.0) -> None:
        """Close a link; may be called twice."""
        if link.is_open:
            link.is_open = False
            self._reactor.unregister(link.dealer.fd)
            self._reactor.unregister(link.dealer.monitor_fd)
            link.dealer.close(linger)

    def end(self) -> None:
        """Wait until what lingers has left; all links are closed."""
        if self._context is not None:
            self._context.term()

    def _dealer(self, endpoint: str) -> Dealer:
        if self._context is None:
            self._context = new_context()
        return Dealer(self._context, endpoint)

    def _open(self, link: Link, ended: Read) -> Link:
        def monitored() -> None:
            if link.dealer.is_disconnected() and link.is_open:
                ended(link)

        self._reactor.register(link.dealer.fd, partial(link.read, link))
        self._reactor.register(link.dealer.monitor_fd, monitored)
        self.queue(link, Hello("client", PROTOCOL_MINOR, os.getpid(), CAPABILITIES))
        return link
