"""A worker's link to the collector: hello, what the tracer has to send, and who is told what the collector says.

Nothing waits for it. Frames that leave before there is a collector are kept by ZeroMQ; the tracer bounds how many.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from headrace.process.event_loop import EventLoop
from headrace.process.lifecycle import is_sibling
from headrace.transport.channel import REOPEN_DELAY, RETRY_DELAY, StandingChannel
from headrace.transport.sockets import Dealer
from headrace.wire.codec import from_collector
from headrace.wire.messages import Flushed, FlushRequest, FromCollector, Goodbye, Hello, SpanAck, SpanBatch

logger = logging.getLogger(__name__)


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
        loop: EventLoop,
        listener: Listener,
    ) -> None:
        self._hello = hello
        self._listener = listener
        dealer = partial(Dealer, context, endpoint, expects=is_sibling)
        self._channel = StandingChannel(dealer, loop, epoch, from_collector, self._received, self._opened)
        self.open = self._channel.open
        self.close = self._channel.close

    @property
    def is_open(self) -> bool:
        """Whether something can be sent."""
        return self._channel.is_open

    def send(self, messages: Sequence[SpanBatch | Flushed]) -> None:
        """Send, if there is a link."""
        self._channel.send(messages)

    def _opened(self) -> None:
        self._channel.send([self._hello()])
        self._listener.link_opened()

    def _received(self, message: FromCollector) -> None:
        match message:
            case SpanAck():
                self._channel.reopen_delay = REOPEN_DELAY
                self._listener.acknowledged(message)
            case FlushRequest():
                self._listener.flush_asked(message)
            case Goodbye():
                logger.warning("collector refused worker", extra={"reason": message.reason})
                self._channel.reopen_delay = RETRY_DELAY  # it is not asked again at once
            case _:
                pass
