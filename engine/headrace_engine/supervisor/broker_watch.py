"""Watches the broker: the link to it, its heartbeats, and whether its loop hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from headrace.process.event_loop import CallingLoop
from headrace.process.lifecycle import processor_wait
from headrace.transport.link import StandingLink, hello_of
from headrace.transport.unix_dealer import UnixDealer
from headrace.wire.codec import from_broker
from headrace.wire.messages import FromBroker, Heartbeat, Silent
from headrace_engine.liveness import Liveness
from headrace_engine.supervisor.children import Child

ASK_INTERVAL = 2.0
"""Seconds between two questions to the broker whether its loop serves."""
_EARLY = 0.1
"""Seconds by which a question may come early: timers are not exact."""


class BrokerWatch:
    """The broker's process and the link to it.

    ``heard`` is called with each message of the broker. ``connected`` is called for each new connection, after the
    hello.
    """

    def __init__(
        self,
        child: Child,
        loop: CallingLoop,
        endpoint: str,
        heard: Callable[[FromBroker], None],
        connected: Callable[[], None],
    ) -> None:
        self.child = child
        self._heard = heard
        self._liveness = Liveness()
        self._next_look: float | None = None
        self._is_open = False
        self._asked_at = self._heard_at = float("-inf")
        self._link = StandingLink(
            "broker",
            loop,
            partial(UnixDealer, endpoint, expects=self._is_broker),
            partial(hello_of, "supervisor"),
            1,
            from_broker,
            self._hear,
            opened=connected,
            heartbeat=Heartbeat,
        )

    def started(self) -> None:
        """A broker was started. The silence of the broker before it does not count."""
        self._liveness = Liveness()
        self._liveness.look_by(self._next_look)
        self._asked_at = float("-inf")
        if not self._is_open:
            self._is_open = True
            self._link.open()

    def send(self, messages: Sequence[msgspec.Struct]) -> None:
        """Send messages to the broker, if it is connected."""
        if self._is_open:
            self._link.send(messages)

    @property
    def is_answer_due(self) -> bool:
        """Whether the broker has said nothing since it was asked last, or could not be asked."""
        return self._heard_at < self._asked_at

    def ask(self, now: float) -> None:
        """Ask the broker whether its loop serves, if :data:`ASK_INTERVAL` has passed since the last question."""
        if now - self._asked_at >= ASK_INTERVAL - _EARLY:
            self._asked_at = now
            self._link.beat_if_connected()

    def look(self, now: float, next_look: float) -> Silent | None:
        """Return that the broker is hung, once. To be called again at ``next_look``."""
        self._next_look = next_look
        if self.child.process is None:
            return None
        epoch = self.child.epoch
        self._liveness.expected({epoch: False}, now)
        self._liveness.due(now)
        self._liveness.look_by(next_look)
        for _ in self._liveness.in_doubt():
            self._liveness.waited(epoch, processor_wait(self.child.process.pid))
        if epoch not in self._liveness.hung(now):
            return None
        return Silent(self.child.name, epoch, self._liveness.silence(epoch, now))

    def _is_broker(self, pid: int) -> bool:
        return self.child.process is not None and self.child.process.pid == pid

    def _hear(self, message: FromBroker) -> None:
        self._heard_at = time.monotonic()
        self._liveness.joined(self.child.epoch, self._heard_at)  # its messages come from the loop that serves
        self.child.has_served = True
        self._heard(message)
