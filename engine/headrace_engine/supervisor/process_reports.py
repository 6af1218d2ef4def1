"""The supervisor's link to the collector: reports which processes belong to this engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from headrace.process.event_loop import EventLoop
from headrace.transport.link import StandingLink, hello_of
from headrace.transport.unix_dealer import UnixDealer
from headrace.wire.codec import from_collector
from headrace.wire.engine_status import ProcessStatus
from headrace.wire.messages import FromCollector, ProcessReport


class ProcessReportLink:
    """The link. The collector's messages need no answer. A new collector gets a report at once."""

    def __init__(self, loop: EventLoop, endpoint: str, processes: Callable[[], Sequence[ProcessStatus]]) -> None:
        self._processes = processes
        dial = partial(UnixDealer, endpoint, expects=self._is_collector)
        hello = partial(hello_of, "supervisor")
        self._link = StandingLink("collector", loop, dial, hello, 1, from_collector, _ignore, opened=self.report)
        self.open = self._link.open
        self.close = self._link.close

    def report(self) -> None:
        """Tell the collector which processes run now."""
        self._link.send([ProcessReport(list(self._processes()))])

    def _is_collector(self, pid: int) -> bool:
        return any(process.pid == pid and process.name == "collector" for process in self._processes())


def _ignore(message: FromCollector) -> None:
    pass
