"""Sends the spans of runs for which no worker could say how they ended. Asks the collector for a flush.

Used on the I/O thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.files.engine_directory import collector_endpoint
from headrace.process.event_loop import CallingLoop
from headrace.runs.fallback_span import fallback_span
from headrace.runs.open_runs import OpenRun
from headrace.spans.collector_link import CollectorLink
from headrace.spans.outbox import SpanOutbox
from headrace.transport.frame_socket import FrameSocket
from headrace.wire.messages import FlushResult, SpanBatch, Status

_MAX_SPANS = 10_000
"""Spans that wait for the collector, at most."""
_MAX_BYTES = 64 * 1024 * 1024
"""Bytes of spans that wait for the collector, at most."""
_CLOSE_TIMEOUT = 1.0
"""Seconds that closing waits until the spans are stored: a collector that died may be starting again."""
_FLUSH_GRACE = 0.5
"""Seconds beyond the timeout of a flush, for the collector's answer that it was not done in time."""

_ASK_AGAIN = 0.1
"""Seconds until the broker is asked again, if it does not know the processes of its engine yet."""

StatusAnswer = Callable[[Status | HeadraceError], None]
FlushAnswer = Callable[[FlushResult | HeadraceError], None]


class RunSpans:
    """The spans of one connection's runs. ``dealer`` opens a socket; ``address`` is the engine's address in errors."""

    def __init__(self, reactor: CallingLoop, dealer: Callable[[str], FrameSocket], epoch: int, address: str) -> None:
        self._reactor = reactor
        self._address = address
        self._endpoint: str | None = None
        self._outbox = SpanOutbox(_MAX_SPANS, _MAX_BYTES)
        self._link = CollectorLink(reactor, dealer, lambda: self._endpoint, "client", epoch, self._outbox)

    def engine_is_at(self, broker_endpoint: str) -> None:
        """Learn the endpoint of the broker: the collector is in the same directory."""
        self._endpoint = collector_endpoint(Path(broker_endpoint.removeprefix("ipc://")).parent)

    def ended(self, delivery: OpenRun, now: float) -> None:
        """A run has ended. Send its span, if its worker did not say how it ended."""
        if delivery.session.wants_span:
            duration = now - delivery.started_at
            span = fallback_span(delivery.session, delivery.outcome, duration=duration, wall_time=time.time())
            self._link.send(span)

    def flush(self, timeout: float, answer: FlushAnswer, ask_status: Callable[[StatusAnswer], None]) -> None:
        """Ask for a flush within ``timeout`` seconds.

        ``answer`` is called once. Also asks for the status: the engine may keep no spans.
        """
        number = 0
        is_answered = False

        def finish(result: FlushResult | HeadraceError) -> None:
            nonlocal is_answered
            if not is_answered:
                is_answered = True
                self._link.give_up(number)
                answer(result)

        def status_came(status: Status | HeadraceError) -> None:
            if isinstance(status, HeadraceError):
                finish(status)
            elif not status.processes:  # the broker does not know the processes of its engine yet
                if not is_answered:
                    self._reactor.call_later(_ASK_AGAIN, partial(ask_status, status_came))
            elif not any(process.name == "collector" and process.state != "off" for process in status.processes):
                lost = status.spans.dropped if status.spans is not None else {}
                finish(FlushResult(0, 0, 0, sum(lost.values())))

        number = self._link.flush(timeout, finish)
        late = EngineUnavailableError(self._address, f"its collector did not answer within {timeout:g} s")
        self._reactor.call_later(timeout + _FLUSH_GRACE, partial(finish, late))
        ask_status(status_came)

    def drop(self) -> None:
        """Close at once. Spans that are not stored are lost."""
        self._link.close()

    def close(self, done: Callable[[Iterable[SpanBatch]], None]) -> None:
        """Wait up to 1 s until all spans are stored, close, and call ``done`` with the others."""
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
