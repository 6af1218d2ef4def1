"""What a client does for the spans of its runs: it says what nobody else can, and asks for a flush.

Used on the connection's I/O thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.files.engine_directory import collector_endpoint
from headrace.process.event_loop import CallingLoop
from headrace.runs.delivery import Delivery
from headrace.runs.fallback_span import fallback_span
from headrace.spans.collector_link import CollectorLink
from headrace.spans.outbox import SpanOutbox
from headrace.transport.sockets import Dealer
from headrace.wire.messages import FlushResult, SpanBatch, Status

_MAX_SPANS = 10_000
_MAX_BYTES = 64 * 1024 * 1024
_CLOSE_TIMEOUT = 1.0
"""Seconds that a connection waits at its end for its own spans to be stored: a collector that died may be on its way back."""
_FLUSH_GRACE = 0.5
"""Seconds for the collector's word that it could not do it in time."""

_ASK_AGAIN = 0.1
"""Seconds between two questions to a broker that has not heard of the engine's processes yet."""

Told = Callable[[Status | HeadraceError], None]
Answer = Callable[[FlushResult | HeadraceError], None]


class RunSpans:
    """The spans of one connection's runs. ``dealer`` opens a socket, ``address`` is the engine's as errors name it."""

    def __init__(self, reactor: CallingLoop, dealer: Callable[[str], Dealer], epoch: int, address: str) -> None:
        self._reactor = reactor
        self._address = address
        self._endpoint: str | None = None
        self._outbox = SpanOutbox(_MAX_SPANS, _MAX_BYTES)
        self._link = CollectorLink(reactor, dealer, lambda: self._endpoint, "client", epoch, self._outbox)

    def engine_is_at(self, broker_endpoint: str) -> None:
        """Learn where the engine is."""
        self._endpoint = collector_endpoint(Path(broker_endpoint.removeprefix("ipc://")).parent)

    def ended(self, delivery: Delivery, now: float) -> None:
        """A run has ended: where no worker has said how, say what this side knows."""
        if delivery.session.wants_span:
            duration = now - delivery.started_at
            span = fallback_span(delivery.session, delivery.outcome, duration=duration, wall_time=time.time())
            self._link.send(span)

    def flush(self, timeout: float, answer: Answer, ask_status: Callable[[Told], None]) -> None:
        """Ask for a flush; ``answer`` is called once. The engine is asked how it is as well: it may keep no spans."""
        number = 0
        is_answered = False

        def settle(result: FlushResult | HeadraceError) -> None:
            nonlocal is_answered
            if not is_answered:
                is_answered = True
                self._link.give_up(number)
                answer(result)

        def told(status: Status | HeadraceError) -> None:
            if isinstance(status, HeadraceError):
                settle(status)
            elif not status.processes:  # the broker has not heard of the engine's processes yet
                if not is_answered:
                    self._reactor.call_later(_ASK_AGAIN, partial(ask_status, told))
            elif not any(process.name == "collector" and process.state != "off" for process in status.processes):
                lost = status.spans.dropped if status.spans is not None else {}
                settle(FlushResult(0, 0, 0, sum(lost.values())))

        number = self._link.flush(timeout, settle)
        late = EngineUnavailableError(self._address, f"its collector did not answer within {timeout:g} s")
        self._reactor.call_later(timeout + _FLUSH_GRACE, partial(settle, late))
        ask_status(told)

    def drop(self) -> None:
        """Close at once, whatever is not stored."""
        self._link.close()

    def close(self, done: Callable[[Iterable[SpanBatch]], None]) -> None:
        """Wait a moment until all is stored, close, and call ``done`` with what is not."""
        is_done = False

        def finish() -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                self._link.close()
                done(self._outbox.batches())

        if self._link.when_empty(finish):
            self._reactor.call_later(_CLOSE_TIMEOUT, finish)
        else:
            finish()
