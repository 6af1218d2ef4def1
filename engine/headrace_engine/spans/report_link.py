"""The collector's link to the broker: reports the state of the spans, for the status of the engine."""

from __future__ import annotations

from functools import partial

from headrace.process.event_loop import EventLoop
from headrace.process.lifecycle import is_sibling
from headrace.transport.link import StandingLink, hello_of
from headrace.transport.unix_dealer import UnixDealer
from headrace.wire.codec import from_broker
from headrace.wire.engine_status import SpanStatus
from headrace.wire.messages import CollectorReport, FromBroker


class ReportLink:
    """The link. The broker's messages need no answer. A new broker gets the last report."""

    def __init__(self, loop: EventLoop, endpoint: str, epoch: int) -> None:
        self._last: SpanStatus | None = None
        dial = partial(UnixDealer, endpoint, expects=is_sibling)
        hello = partial(hello_of, "collector")
        self._link = StandingLink("broker", loop, dial, hello, epoch, from_broker, _ignore, opened=self._opened)
        self.open = self._link.open
        self.close = self._link.close

    def report(self, status: SpanStatus) -> None:
        """Tell the broker the state of the spans."""
        self._last = status
        self._link.send([CollectorReport(status)])

    def _opened(self) -> None:
        if self._last is not None:
            self.report(self._last)


def _ignore(message: FromBroker) -> None:
    pass
