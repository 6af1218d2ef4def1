"""The collector's link to the broker: how spans are, for the engine's status."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from headrace.reactor import Reactor
from headrace.sockets import Dealer
from headrace.wire.codec import encode_frame
from headrace.wire.messages import (
    CAPABILITIES,
    PROTOCOL_MINOR,
    CollectorReport,
    Hello,
)
from headrace.wire.status import SpanStatus

logger = logging.getLogger(__name__)

_REOPEN_DELAY = 0.1


class ReportLink:
    """The link, which is opened anew when there is a new broker. What the broker says back needs no answer."""

    def __init__(self, reactor: Reactor, context: Any, endpoint: str, epoch: int) -> None:
        self._reactor = reactor
        self._context = context
        self._endpoint = endpoint
        self._epoch = epoch
        self._dealer: Dealer | None = None
        self._last: SpanStatus | None = None
        self._is_closed = False

    def open(self) -> None:
        """Say hello to whichever broker is, or comes, at the endpoint, and say again what was said last."""
        if self._is_closed:
            return
        try:
            dealer = self._dealer = Dealer(self._context, self._endpoint)
        except OSError:  # no descriptors: there may be some later
            logger.exception("no link to the broker")
            self._reactor.call_at(time.monotonic() + 1.0, self.open)
            return
        self._reactor.register(dealer.fd, self._read)
        self._reactor.register(dealer.monitor_fd, self._monitored)
        dealer.send(encode_frame(self._epoch, [Hello("collector", PROTOCOL_MINOR, os.getpid(), CAPABILITIES)]))
        if self._last is not None:
            self.report(self._last)

    def report(self, status: SpanStatus) -> None:
        """Tell how spans are."""
        self._last = status
        if self._dealer is not None:
            self._dealer.send(encode_frame(self._epoch, [CollectorReport(status)]))
            self._read()

    def close(self) -> None:
        """Close for good; may be called twice."""
        self._is_closed = True
        self._drop()

    def _drop(self) -> None:
        dealer, self._dealer = self._dealer, None
        if dealer is not None:
            self._reactor.unregister(dealer.fd)
            self._reactor.unregister(dealer.monitor_fd)
            dealer.close()

    def _read(self) -> None:
        for _ in self._dealer.receive() if self._dealer is not None else ():
            pass

    def _monitored(self) -> None:
        """A broker that went away comes back as another, which does not know us."""
        if self._dealer is not None and self._dealer.is_disconnected():
            self._drop()
            self._reactor.call_at(time.monotonic() + _REOPEN_DELAY, self.open)
