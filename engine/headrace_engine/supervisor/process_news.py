"""The supervisor's link to the collector, which learns by it which processes are this engine's."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from headrace.process.event_loop import EventLoop
from headrace.transport.channel import StandingChannel
from headrace.transport.sockets import Dealer
from headrace.wire.codec import from_collector
from headrace.wire.engine_status import ProcessStatus
from headrace.wire.messages import CAPABILITIES, PROTOCOL_MINOR, FromCollector, Hello, ProcessReport


class NewsLink:
    """The link. What the collector says back needs no answer; a new one is told at once."""

    def __init__(
        self, loop: EventLoop, context: Any, endpoint: str, processes: Callable[[], Sequence[ProcessStatus]]
    ) -> None:
        self._processes = processes
        dealer = partial(Dealer, context, endpoint, expects=self._is_collector)
        self._channel = StandingChannel(dealer, loop, 1, from_collector, _ignore, self._opened)
        self.open = self._channel.open
        self.close = self._channel.close

    def report(self) -> None:
        """Tell of a change."""
        self._channel.send([ProcessReport(list(self._processes()))])

    def _is_collector(self, pid: int) -> bool:
        return any(process.pid == pid and process.name == "collector" for process in self._processes())

    def _opened(self) -> None:
        self._channel.send([Hello("supervisor", PROTOCOL_MINOR, os.getpid(), CAPABILITIES)])
        self.report()


def _ignore(message: FromCollector) -> None:
    pass
