"""A worker's link to the broker: hello, heartbeats, and the way out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from headrace.process.event_loop import EventLoop
from headrace.process.lifecycle import is_sibling
from headrace.transport.channel import REOPEN_DELAY, RETRY_DELAY, StandingChannel
from headrace.transport.sockets import Dealer
from headrace.wire.codec import from_broker
from headrace.wire.messages import FromBroker, Goodbye, Heartbeat, Hello, LeaseQuery, LeaseState, Vacated, Welcome

logger = logging.getLogger(__name__)

RunKey = tuple[str, int, int]
"""What tells a run from all others: its span id, its attempt, and its client's process."""


class BrokerLink:
    """The link. The broker says back that a leaving worker is not needed any more, and asks which runs it has.

    ``runs`` are those; of a client whose process is unknown with 0.
    """

    def __init__(
        self,
        context: Any,
        endpoint: str,
        hello: Callable[[], Hello],
        heartbeat: Callable[[], Heartbeat],
        runs: Callable[[], Collection[RunKey]],
        epoch: int,
        loop: EventLoop,
    ) -> None:
        self._hello = hello
        self._heartbeat = heartbeat
        self._runs = runs
        self._is_leaving = False
        # Nobody holds a lease on this worker, which is leaving.
        self.is_vacated = False
        dealer = partial(Dealer, context, endpoint, expects=is_sibling)
        self._channel = StandingChannel(dealer, loop, epoch, from_broker, self._received, self._opened)
        self.open = self._channel.open
        self.close = self._channel.close

    def beat(self) -> None:
        """Tell that the loop serves, and how much it can take."""
        self._channel.send([self._heartbeat()])

    def leave(self) -> None:
        """Take no further leases."""
        self._is_leaving = True
        self.beat()

    def _opened(self) -> None:
        # One that is leaving is to be known too, lest it be taken for hung; and that it leaves.
        self._channel.send([self._hello(), self._heartbeat()] if self._is_leaving else [self._hello()])

    def _received(self, message: FromBroker) -> None:
        match message:
            case Welcome():
                self._channel.reopen_delay = REOPEN_DELAY
            case Vacated():
                self.is_vacated = True
            case LeaseQuery():
                self._channel.send([LeaseState(list(self._answers(message)))])
            case Goodbye():
                logger.warning("broker refused worker", extra={"reason": message.reason})
                self._channel.reopen_delay = RETRY_DELAY  # it is not asked again at once
            case _:
                pass

    def _answers(self, query: LeaseQuery) -> Iterator[tuple[str, int, bool]]:
        runs = set(self._runs())
        any_process = {(span_id, attempt) for span_id, attempt, _ in runs}
        for span_id, attempt, process in query.leases:
            has_it = (span_id, attempt, process) in runs if process else (span_id, attempt) in any_process
            yield span_id, attempt, has_it
