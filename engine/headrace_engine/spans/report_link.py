"""The collector's link to the broker: how spans are, for the engine's status."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from headrace.process.event_loop import EventLoop
from headrace.process.lifecycle import is_sibling
from headrace.transport.channel import StandingChannel
from headrace.transport.sockets import Dealer
from headrace.wire.codec import from_broker
from headrace.wire.engine_status import SpanStatus
from headrace.wire.messages import CAPABILITIES, PROTOCOL_MINOR, CollectorReport, FromBroker, Hello


class ReportLink:
    """The link. What the broker says back needs no answer; a new one is told again what was said last."""

    def __init__(self, loop: EventLoop, context: Any, endpoint: str, epoch: int) -> None:
        self._last: SpanStatus | None = None
        dealer = partial(Dealer, context, endpoint, expects=is_sibling)
        self._channel = StandingChannel(dealer, loop, epoch, from_broker, _ignore, self._opened)
        self.open = self._channel.open
        self.close = self._channel.close

    def report(self, status: SpanStatus) -> None:
        """Tell how spans are."""
        self._last = status
        self._channel.send([CollectorReport(status)])

    def _opened(self) -> None:
        self._channel.send([Hello("collector", PROTOCOL_MINOR, os.getpid(), CAPABILITIES)])
        if self._last is not None:
            self.report(self._last)


def _ignore(message: FromBroker) -> None:
    pass
