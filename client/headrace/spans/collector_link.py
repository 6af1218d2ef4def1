"""The link of a client or of the broker to the collector: sends spans and asks for flushes.

It is opened when there is something to send.

Nothing waits for this link. To be used on the loop's thread only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Literal

from headrace.process.callbacks import log
from headrace.process.event_loop import CallingLoop
from headrace.spans.encoded_span import encode_bounded
from headrace.spans.outbox import SpanOutbox
from headrace.spans.span import Span
from headrace.transport.frame_socket import FrameSocket
from headrace.transport.link import RETRY_DELAY, Link, hello_of, one_by_one
from headrace.wire.codec import from_collector
from headrace.wire.messages import (
    Flush,
    FlushResult,
    FromCollector,
    Goodbye,
    SpanAck,
)

logger = logging.getLogger(__name__)

_REOPEN_DELAY = 0.2
"""Seconds from the end of the collector, or from a look that did not find it, to the next attempt to connect."""

Answer = Callable[[FlushResult], None]


class CollectorLink:
    """The link.

    ``endpoint`` returns the collector's endpoint, or None while it is unknown. ``dial`` makes a socket to an endpoint.
    ``outbox`` keeps the spans until the collector has stored them.
    """

    def __init__(
        self,
        reactor: CallingLoop,
        dial: Callable[[str], FrameSocket],
        endpoint: Callable[[], str | None],
        role: Literal["client", "broker"],
        epoch: int,
        outbox: SpanOutbox,
    ) -> None:
        self._reactor = reactor
        self._dial = dial
        self._endpoint = endpoint
        self._role: Literal["client", "broker"] = role
        self._epoch = epoch
        self._outbox = outbox
        self._link: Link[FromCollector] | None = None
        self._flushes: dict[int, tuple[Flush, Answer]] = {}
        # The flushes for which the collector of this connection was asked.
        self._asked: set[int] = set()
        self._flush_count = 0
        self._is_scheduled = False
        self._is_closed = False
        self._when_empty: Callable[[], None] | None = None

    def send(self, span: Span) -> None:
        """Send a span, now or when there is a collector."""
        self.pass_on([encode_bounded(span)])

    def pass_on(self, spans: Iterable[bytes]) -> None:
        """Send encoded spans, of this process or of another."""
        for span in spans:
            self._outbox.add(span)
        self._schedule()

    def flush(self, timeout: float, answer: Answer) -> int:
        """Ask for a flush of all spans that were sent before.

        ``answer`` gets the result. Return the flush's number for :meth:`give_up`.
        """
        self._flush_count += 1
        self._flushes[self._flush_count] = (Flush(self._flush_count, timeout), answer)
        self._schedule()
        return self._flush_count

    def give_up(self, number: int) -> None:
        """Forget a flush: its answer is not called. An unknown number is ignored."""
        self._flushes.pop(number, None)

    def when_empty(self, action: Callable[[], None]) -> bool:
        """Call ``action`` once when all spans are stored.

        Return False, and do not call it, if there are no spans or no collector.
        """
        if not self._outbox or not self._is_there():
            return False
        self._when_empty = action
        return True

    def close(self) -> None:
        """Close for good; may be called twice."""
        self._is_closed = True
        self._drop()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._reactor.call(self._pump)

    def _pump(self) -> None:
        """Send the waiting spans and flushes. If there is no collector, try again after a moment."""
        self._is_scheduled = False
        if self._is_closed or not (self._outbox or self._flushes):
            return
        link = self._link or self._open()
        if link is None:
            self._pump_later(_REOPEN_DELAY)
            return
        for batch in self._outbox.batches():
            link.send([batch])
        for number in self._flushes.keys() - self._asked:
            self._asked.add(number)
            link.send([self._flushes[number][0]])

    def _is_there(self) -> bool:
        endpoint = self._endpoint()
        return endpoint is not None and Path(endpoint.removeprefix("ipc://")).exists()

    def _open(self) -> Link[FromCollector] | None:
        endpoint = self._endpoint()
        if endpoint is None or not self._is_there():
            return None  # an engine that stores no spans has no collector: do not make sockets all the time
        link = Link(
            self._reactor,
            partial(self._dial, endpoint),
            partial(hello_of, self._role),
            self._epoch,
            from_collector,
            one_by_one(self._handle),
            self._lost,
            waits=False,
        )
        try:
            link.open()
        except FileNotFoundError:
            return None
        except OSError as error:
            log(logger, logging.ERROR, "collector cannot be reached", error=error)
            return None
        self._link = link
        return link

    def _handle(self, message: FromCollector) -> None:
        match message:
            case SpanAck():
                self._acknowledged(message.sequence)
            case FlushResult():
                if (known := self._flushes.pop(message.token, None)) is not None:
                    known[1](message)
            case Goodbye():
                log(logger, logging.WARNING, "collector refused connection", extra={"reason": message.reason})
            case _:
                pass

    def _acknowledged(self, sequence: int) -> None:
        self._outbox.acknowledged(sequence)
        if not self._outbox and self._when_empty is not None:
            action, self._when_empty = self._when_empty, None
            action()

    def _lost(self) -> None:
        """The collector has gone. Its successor has heard nothing of the spans that were not stored."""
        refusal = self._link.refusal if self._link is not None else None
        if refusal is not None:
            log(logger, logging.ERROR, "collector is not trusted", extra={"reason": refusal})
        self._drop()
        if not self._is_scheduled:
            self._pump_later(RETRY_DELAY if refusal is not None else _REOPEN_DELAY)

    def _pump_later(self, delay: float) -> None:
        self._is_scheduled = True
        self._reactor.call_later(delay, self._pump)

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
            self._outbox.disconnected()
            self._asked.clear()
