"""A worker's link to the broker: the hello, heartbeats, the answers about leases, reports of limits, and the end of the worker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

from headrace.process.event_loop import EventLoop
from headrace.process.lifecycle import is_sibling
from headrace.transport.link import StandingLink
from headrace.transport.unix_dealer import UnixDealer
from headrace.wire.codec import from_broker
from headrace.wire.messages import (
    FromBroker,
    Heartbeat,
    Hello,
    KeyReport,
    LeaseQuery,
    LeaseState,
    LimitReport,
    Vacated,
    Welcome,
)

RunKey = tuple[str, int, int]
"""Identifies a run in a worker: its span id, its attempt, and the pid of its client (0 if the kernel does not tell the pid)."""


class BrokerLink:
    """The link. ``hello`` and ``heartbeat`` make the messages of this worker. ``runs`` returns the runs that the worker has.

    ``keys`` has the short hashes of the worker's keys: see :class:`headrace.wire.messages.KeyReport`.
    """

    def __init__(
        self,
        endpoint: str,
        hello: Callable[[], Hello],
        heartbeat: Callable[[], Heartbeat],
        runs: Callable[[], Collection[RunKey]],
        epoch: int,
        loop: EventLoop,
        keys: Mapping[str, list[str]],
    ) -> None:
        self._runs = runs
        self._keys = keys
        self._takes_limits = False
        self._is_leaving = False
        self.is_vacated = False
        """Whether the worker is leaving and no client holds a lease on it any more."""
        dial = partial(UnixDealer, endpoint, expects=is_sibling)
        self._link = StandingLink(
            "broker", loop, dial, hello, epoch, from_broker, self._received, opened=self._opened, heartbeat=heartbeat
        )
        self.open = self._link.open
        self.close = self._link.close
        self.beat = self._link.beat
        self.beat_if_connected = self._link.beat_if_connected

    def leave(self) -> None:
        """Tell the broker that this worker takes no more leases."""
        self._is_leaving = True
        self.beat()

    def report_limits(self, report: LimitReport) -> None:
        """Tell the broker of responses. A broker that does not understand it, or does not answer, is told nothing."""
        if self._takes_limits:
            self._link.send([report])

    def _opened(self) -> None:
        self._takes_limits = False
        if self._is_leaving:
            self.beat()  # a new broker must know at once that this worker is leaving

    def _received(self, message: FromBroker) -> None:
        match message:
            case Welcome() if "limits" in message.capabilities:
                self._takes_limits = True
                if self._keys:
                    self._link.send([KeyReport(dict(self._keys))])
            case Vacated():
                self.is_vacated = True
            case LeaseQuery():
                self._link.send([LeaseState(list(self._answers(message)))])
            case _:
                pass

    def _answers(self, query: LeaseQuery) -> Iterator[tuple[str, int, bool]]:
        runs = set(self._runs())
        any_process = {(span_id, attempt) for span_id, attempt, _ in runs}
        for span_id, attempt, process in query.leases:
            has_it = (span_id, attempt, process) in runs if process else (span_id, attempt) in any_process
            yield span_id, attempt, has_it
