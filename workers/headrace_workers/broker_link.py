"""A worker's link to the broker: hello, heartbeats, a new link when there is a new broker, and the way out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from headrace.errors import ProtocolError
from headrace.sockets import Dealer
from headrace.wire.codec import encode_frame, from_broker
from headrace.wire.messages import Heartbeat, Hello, Vacated

logger = logging.getLogger(__name__)

_REOPEN_DELAY = 0.05
_RETRY_DELAY = 1.0


class BrokerLink:
    """The link. Of what the broker says back only that a leaving worker is not needed any more is of interest."""

    def __init__(
        self,
        context: Any,
        endpoint: str,
        hello: Callable[[], Hello],
        heartbeat: Callable[[], Heartbeat],
        epoch: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._hello = hello
        self._heartbeat = heartbeat
        self._epoch = epoch
        self._loop = loop
        self._dealer: Dealer | None = None
        self._is_leaving = False
        self._is_closed = False
        # Nobody holds a lease on this worker, which is leaving.
        self.is_vacated = False

    def open(self) -> None:
        """Say hello to whichever broker is, or comes, at the endpoint."""
        if self._is_closed:
            return
        try:
            dealer = self._dealer = Dealer(self._context, self._endpoint)
        except OSError:  # no descriptors: there may be some later
            logger.exception("no link to the broker")
            self._loop.call_later(_RETRY_DELAY, self.open)
            return
        self._loop.add_reader(dealer.fd, self._read)
        self._loop.add_reader(dealer.monitor_fd, self._monitored)
        # One that is leaving is to be known too, lest it be taken for hung; and that it leaves.
        messages = [self._hello(), self._heartbeat()] if self._is_leaving else [self._hello()]
        dealer.send(encode_frame(self._epoch, messages))

    def beat(self) -> None:
        """Tell that the loop serves, and how much it can take."""
        if self._dealer is not None:
            self._dealer.send(encode_frame(self._epoch, [self._heartbeat()]))
            self._read()

    def leave(self) -> None:
        """Take no further leases."""
        self._is_leaving = True
        self.beat()

    def close(self) -> None:
        """Close; no link is opened after it."""
        self._is_closed = True
        self._drop()

    def _drop(self) -> None:
        dealer, self._dealer = self._dealer, None
        if dealer is not None:
            self._loop.remove_reader(dealer.fd)
            self._loop.remove_reader(dealer.monitor_fd)
            dealer.close()

    def _read(self) -> None:
        for frame in self._dealer.receive() if self._dealer is not None else ():
            try:
                _, messages = from_broker.decode(frame)
            except ProtocolError:
                logger.exception("the broker's message cannot be read")
                continue
            self.is_vacated = self.is_vacated or any(isinstance(message, Vacated) for message in messages)

    def _monitored(self) -> None:
        """A broker that went away comes back as another, which does not know us."""
        if self._dealer is not None and self._dealer.is_disconnected():
            self._drop()
            self._loop.call_later(_REOPEN_DELAY, self.open)
