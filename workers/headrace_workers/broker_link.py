"""A worker's link to the broker: hello, heartbeats, and a new link when there is a new broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from headrace.sockets import Dealer
from headrace.wire.codec import encode_frame
from headrace.wire.messages import Goodbye, Heartbeat, Hello

_REOPEN_DELAY = 0.05


class BrokerLink:
    """The link. What the broker says back needs no answer."""

    def __init__(
        self,
        context: Any,
        endpoint: str,
        hello: Callable[[], Hello],
        epoch: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._hello = hello
        self._epoch = epoch
        self._loop = loop
        self._dealer: Dealer | None = None
        self._is_leaving = False

    def open(self) -> None:
        """Say hello to whichever broker is, or comes, at the endpoint."""
        dealer = self._dealer = Dealer(self._context, self._endpoint)
        self._loop.add_reader(dealer.fd, self._drain)
        self._loop.add_reader(dealer.monitor_fd, self._monitored)
        dealer.send(encode_frame(self._epoch, [self._hello()]))

    def beat(self) -> None:
        """Tell that the loop serves."""
        if self._dealer is not None and not self._is_leaving:
            self._dealer.send(encode_frame(self._epoch, [Heartbeat()]))
            self._drain()

    def leave(self) -> None:
        """Take no further leases."""
        self._is_leaving = True
        if self._dealer is not None:
            self._dealer.send(encode_frame(self._epoch, [Goodbye("the worker is stopping")]))

    def _drain(self) -> None:
        if self._dealer is not None:
            for _ in self._dealer.receive():
                pass

    def _monitored(self) -> None:
        """A broker that went away comes back as another, which does not know us."""
        dealer = self._dealer
        if dealer is None or not dealer.is_disconnected():
            return
        self._loop.remove_reader(dealer.fd)
        self._loop.remove_reader(dealer.monitor_fd)
        dealer.close()
        self._dealer = None
        if not self._is_leaving:
            self._loop.call_later(_REOPEN_DELAY, self.open)
