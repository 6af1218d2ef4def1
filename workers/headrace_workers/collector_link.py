"""A worker's link to the collector: hello, what the tracer has to send, and a new link when there is a new collector.

Nothing waits for it. Frames that leave before there is a collector are kept by ZeroMQ; the tracer bounds how many.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from headrace.errors import ProtocolMismatchError, RemoteProtocolError
from headrace.sockets import Dealer
from headrace.wire.codec import encode_frame, from_collector
from headrace.wire.messages import Flushed, FlushRequest, Goodbye, Hello, SpanAck, SpanBatch

logger = logging.getLogger(__name__)

_REOPEN_DELAY = 0.05
_RETRY_DELAY = 1.0


class Listener(Protocol):
    """Who is told what the collector says."""

    def link_opened(self) -> None:
        """A link is there, to a collector that may be a new one."""

    def acknowledged(self, ack: SpanAck) -> None:
        """Batches are committed."""

    def flush_asked(self, request: FlushRequest) -> None:
        """Somebody waits for everything to be sent."""


class CollectorLink:
    """The link."""

    def __init__(
        self,
        context: Any,
        endpoint: str,
        hello: Callable[[], Hello],
        epoch: int,
        loop: asyncio.AbstractEventLoop,
        listener: Listener,
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._hello = hello
        self._epoch = epoch
        self._loop = loop
        self._listener = listener
        self._dealer: Dealer | None = None
        self._is_closed = False
        # A collector that refuses us is not asked again at once.
        self._reopen_delay = _REOPEN_DELAY

    @property
    def is_open(self) -> bool:
        """Whether something can be sent."""
        return self._dealer is not None

    def open(self) -> None:
        """Say hello to whichever collector is, or comes, at the endpoint."""
        if self._is_closed:
            return
        try:
            dealer = self._dealer = Dealer(self._context, self._endpoint)
        except OSError:  # no descriptors: there may be some later
            logger.exception("no link to the collector")
            self._loop.call_later(_RETRY_DELAY, self.open)
            return
        self._loop.add_reader(dealer.fd, self._read)
        self._loop.add_reader(dealer.monitor_fd, self._monitored)
        self.send([self._hello()])
        self._listener.link_opened()

    def send(self, messages: Sequence[Hello | SpanBatch | Flushed]) -> None:
        """Send, if there is a link."""
        dealer = self._dealer
        if dealer is None:
            return
        dealer.send(encode_frame(self._epoch, messages))
        if dealer.has_input():
            self._loop.call_soon(self._read)

    def close(self) -> None:
        """Close; no link is opened after it. May be called twice."""
        self._is_closed = True
        self._drop()

    def _drop(self) -> None:
        dealer, self._dealer = self._dealer, None
        if dealer is not None:
            self._loop.remove_reader(dealer.fd)
            self._loop.remove_reader(dealer.monitor_fd)
            dealer.close()

    def _read(self) -> None:
        dealer = self._dealer
        for frame in dealer.receive() if dealer is not None else ():
            try:
                _, messages = from_collector.decode(frame)
            except (RemoteProtocolError, ProtocolMismatchError):
                logger.exception("the collector's message cannot be read")
                continue
            for message in messages:
                self._handle(message)
            if self._dealer is not dealer:
                return

    def _handle(self, message: object) -> None:
        match message:
            case SpanAck():
                self._reopen_delay = _REOPEN_DELAY
                self._listener.acknowledged(message)
            case FlushRequest():
                self._listener.flush_asked(message)
            case Goodbye():
                logger.warning("refused by the collector", extra={"reason": message.reason})
                self._reopen_delay = _RETRY_DELAY
            case _:
                pass

    def _monitored(self) -> None:
        """A collector that went away comes back as another, which does not know us."""
        if self._dealer is not None and self._dealer.is_disconnected():
            self._read()  # what it acknowledged before it went
            self._drop()
            self._loop.call_later(self._reopen_delay, self.open)
