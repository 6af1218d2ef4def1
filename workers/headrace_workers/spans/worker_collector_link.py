"""A worker's link to the collector: the hello, the tracer's batches of spans, and the collector's answers.

No run waits for this link. Frames that are sent before the collector starts are kept in memory. The tracer limits their
number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from headrace.process.event_loop import EventLoop
from headrace.process.lifecycle import is_sibling
from headrace.transport.link import StandingLink
from headrace.transport.unix_dealer import UnixDealer
from headrace.wire.codec import from_collector
from headrace.wire.messages import FlushRequest, FromCollector, Hello, SpanAck


class BatchSender(Protocol):
    """Sends batches of spans over the link, and gets the collector's answers."""

    def link_opened(self) -> None:
        """The link is open. The collector may be a new one, which has no batch of this worker."""

    def acknowledged(self, ack: SpanAck) -> None:
        """The collector has stored batches."""

    def flush_asked(self, request: FlushRequest) -> None:
        """The collector asks for all spans."""


class WorkerCollectorLink:
    """The link of one worker."""

    def __init__(
        self,
        endpoint: str,
        hello: Callable[[], Hello],
        epoch: int,
        loop: EventLoop,
        sender: BatchSender,
    ) -> None:
        self._sender = sender
        dial = partial(UnixDealer, endpoint, expects=is_sibling)
        self._link = StandingLink(
            "collector", loop, dial, hello, epoch, from_collector, self._received, opened=sender.link_opened
        )
        self.open = self._link.open
        self.send = self._link.send
        self.close = self._link.close

    @property
    def is_open(self) -> bool:
        """Whether the link is open, so that frames can be sent."""
        return self._link.is_open

    def _received(self, message: FromCollector) -> None:
        match message:
            case SpanAck():
                self._sender.acknowledged(message)
            case FlushRequest():
                self._sender.flush_asked(message)
            case _:
                pass
