"""Carries out the commands of one run's core, and reports to it what the HTTP exchange does.

Also holds one client's runs.

Any exception in here ends the run with a terminal message at once. If the loop only logged it, the run would hang until
a clock runs out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import msgspec

from headrace.process.history import History
from headrace.wire.messages import Chunk, Run, Terminal
from headrace_workers.http.http_client import HttpClient, HttpExchange
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.limit_reports import LimitReports
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.run_commands import SEND, Command, Commands
from headrace_workers.runs.shared_deadlines import RemoveDeadline, SharedDeadlines, early_delay
from headrace_workers.spans.tracer import OpenSpan, Tracer

logger = logging.getLogger(__name__)


TURN_SECONDS = 0.01
"""Seconds that a run may map events in one turn of the loop. All other runs wait meanwhile."""


class WorkerServices(Protocol):
    """The services of a worker that its runs use: HTTP, sending, spans, history, reports of limits."""

    loop: asyncio.AbstractEventLoop
    http: HttpClient
    history: History | None
    tracer: Tracer | None
    limits: LimitReports
    deadlines: SharedDeadlines
    early_deadlines: SharedDeadlines

    def schedule(self, run: LiveRun) -> None:
        """Send the run's messages at the end of this turn of the loop."""

    def tell(self, client: ConnectedClient, message: msgspec.Struct) -> None:
        """Send ``message`` to ``client`` at the end of this turn."""


class ClientRun(Protocol):
    """A run as its worker sees it, in its short or in its general form. ``size``: see :class:`LiveRun`."""

    size: int
    span_id: str
    attempt: int

    def start(self) -> None:
        """Send the request, after the first record of its span is written."""

    def as_live(self) -> LiveRun:
        """Return the run in its general form."""

    def stop(self, reason: str) -> None:
        """The worker stops: end the run. The client keeps what it was sent."""

    def abandon(self) -> None:
        """The client is gone: close the provider's connection."""

    def broke(self, error: Exception) -> None:
        """The worker failed at this run: send a terminal message and end it."""


class ConnectedClient:
    """One connected client: its runs, the messages for it, and the runs with messages to take (``ready_runs``)."""

    __slots__ = ("identity", "is_frame_due", "is_there", "messages", "pid", "ready_runs", "runs")

    def __init__(self, identity: bytes, pid: int = 0) -> None:
        self.identity = identity
        self.pid = pid  # of its process; 0 if the kernel does not tell it
        self.is_there = False  # whether it was seen to be connected in this turn of the loop
        self.runs: dict[str, ClientRun] = {}
        self.messages: list[msgspec.Struct] = []
        self.ready_runs: dict[str, LiveRun] = {}
        self.is_frame_due = False  # whether a frame leaves at the end of this turn

    def next_turn(self) -> None:
        """The next turn of the loop begins: the client may have gone."""
        self.is_there = False


class LiveRun:
    """The shell of one run. ``size`` is the weight of its request in bytes, as the worker counts it.

    ``message``: the message that started the run, without its request.
    """

    __slots__ = (
        "_exchange",
        "_is_next_turn_scheduled",
        "_late_end",
        "_message",
        "_remove_deadline",
        "_request",
        "_span",
        "_timer",
        "_turn_began",
        "_wakes_at",
        "attempt",
        "client",
        "clocks",
        "core",
        "outgoing",
        "size",
        "span_id",
        "worker",
    )

    def __init__(
        self,
        worker: WorkerServices,
        client: ConnectedClient,
        core: ProviderRun,
        request: HttpRequest,
        span: OpenSpan | None,
        size: int,
        message: Run,
    ) -> None:
        self.size = size
        self.worker = worker
        self.client = client
        self.core = core
        self.outgoing, self.clocks = core.outgoing, core.clocks
        self.span_id = core.span_id
        self.attempt = core.attempt
        self._request: HttpRequest | None = request  # None when it is not needed any more
        self._message = message
        self._span = span
        self._exchange: HttpExchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._remove_deadline: RemoveDeadline | None = None  # takes the place of a timer
        self._wakes_at = 0.0  # when one of the two fires, at the latest
        self._turn_began = 0.0
        self._is_next_turn_scheduled = False  # whether next_turn() is already scheduled
        self._late_end: Callable[[], None] | None = None  # the exchange's end, reported once all input is mapped
        core.limit_turn(self._may_continue)

    def start(self) -> None:
        """Send the request. If the run has a span, send it after the span's first record is written."""
        if self._span is None or self.worker.tracer is None:
            self._send()
        else:
            self.worker.tracer.start(self)

    def start_now(self) -> None:
        # Meanwhile the run may have been aborted, or its client may have gone.
        if self.core.has_ended or self.client.runs.get(self.core.span_id) is not self:
            return
        try:
            self._send()
        except Exception as error:  # noqa: BLE001 - any exception ends the run: see the first lines of this module
            self.broke(error)

    def _send(self) -> None:
        if self._request is not None:
            self.carry_on(self.worker.http.send(self._request, self))

    def carry_on(self, exchange: HttpExchange) -> None:
        """The request was sent: wait for its response, and watch the clocks."""
        self._exchange = exchange
        if exchange.is_connected:
            self.core.clocks.connected()
        self._set_timer()

    def as_live(self) -> LiveRun:
        """Return this run. A short run returns the run that takes its place."""
        return self

    # Calls by the HTTP exchange.

    def on_response(self, status: int, headers: dict[str, str]) -> None:
        now = time.monotonic()
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("provider answers", extra={"span_id": self.core.span_id, "status": status})
        try:
            self.core.clocks.connected()
            self.worker.limits.responded(self._message, self.core.request, status, headers)
            self.carry_out(self.core.responded(status, headers, now))
            if not self.core.can_continue:
                self._request = None
            self._set_timer()  # the idle clock runs from now on
        except Exception as error:  # noqa: BLE001
            self.broke(error)

    def on_chunk(self, data: bytes) -> bool:
        try:
            outgoing = self.outgoing
            if outgoing.deltas.take_chunk(data, outgoing.pending):
                self.worker.schedule(self)
                return True
        except Exception as error:  # noqa: BLE001
            self.broke(error)
            return True
        return False

    def on_bytes(self, data: bytes) -> None:
        try:
            now = self._turn_began = time.monotonic()
            commands = self.core.received(data, now)
            if commands is SEND:
                self.worker.schedule(self)
            elif commands:
                self.carry_out(commands)
        except Exception as error:  # noqa: BLE001
            self.broke(error)

    def _may_continue(self) -> bool:
        return time.monotonic() - self._turn_began < TURN_SECONDS

    def _schedule_next_turn(self) -> None:
        """The input takes longer than one turn may: pause reading, and map the rest in the next turn."""
        if self._exchange is not None:
            self._exchange.pause()
        if not self._is_next_turn_scheduled:
            self._is_next_turn_scheduled = True
            self.worker.loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._is_next_turn_scheduled = False
        core = self.core
        if not core.wants_next_turn or self.client.runs.get(core.span_id) is not self:
            return  # meanwhile the run may have ended, or its client may have gone
        try:
            now = self._turn_began = time.monotonic()
            self.carry_out(core.next_turn(now))
            if not core.is_behind:
                self._caught_up()
        except Exception as error:  # noqa: BLE001
            self.broke(error)

    def _caught_up(self) -> None:
        """All input is mapped: report the end of the exchange if it has come, else read on."""
        late_end, self._late_end = self._late_end, None
        if late_end is not None:
            late_end()
        elif self._exchange is not None and not self.core.is_paused and not self.core.has_ended:
            self._exchange.resume()

    def on_complete(self) -> None:
        if self.core.is_behind:
            self._late_end = self.on_complete
            return
        try:
            now = self._turn_began = time.monotonic()
            self.carry_out(self.core.completed(now))
        except Exception as error:  # noqa: BLE001
            self.broke(error)

    def on_failure(self, stage: str, reason: str) -> None:
        if self.core.is_behind:
            self._late_end = partial(self.on_failure, stage, reason)
            return
        try:
            now = self._turn_began = time.monotonic()
            self.carry_out(self.core.failed(stage, reason, now))
        except Exception as error:  # noqa: BLE001
            self.broke(error)

    # Calls by the worker.

    def carry_out(self, commands: Commands) -> None:
        for command in commands:
            match command:
                case Command.SEND:
                    self.worker.schedule(self)
                case _:
                    self._steer(command)

    def broke(self, error: Exception) -> None:
        """The worker failed at this run, in any state of it: send a terminal message and end it."""
        logger.error("run failed in worker", exc_info=error, extra={"span_id": self.core.span_id})
        if self.core.is_over:
            self.client.runs.pop(self.core.span_id, None)
            return
        message = self.core.broke(f"the worker failed at the run: {type(error).__name__}")
        try:
            self._steer(Command.CLOSE)
        finally:
            self.worker.tell(self.client, message)
            self.finish()

    def stop(self, reason: str) -> None:
        """The worker stops: end the run. The client keeps what it was sent."""
        try:
            self.carry_out(self.core.stopped(reason, time.monotonic()))
        except Exception as error:  # noqa: BLE001
            self.broke(error)

    def take(self, now: float) -> list[Chunk | Terminal]:
        """Return the messages that may leave now, after :meth:`OutgoingEvents.text_chunk` had none."""
        messages: list[Chunk | Terminal] = []
        core = self.core
        try:
            messages, commands = core.take(now)
            if commands:
                self.carry_out(commands)
            if core.terminal is not None:
                self.finish()
        except Exception as error:  # noqa: BLE001
            self.broke(error)
        return messages

    def finish(self) -> None:
        """The terminal message was handed out, or the client is gone: end the span and free everything."""
        core, worker = self.core, self.worker
        self._stop_timer()
        if self._span is not None and worker.tracer is not None:
            if self._exchange is not None and self._exchange.is_connected:
                core.clocks.connected()
            worker.tracer.end(self._span, core.for_span)
        if worker.history is not None:
            worker.history.note("let go", span_id=core.span_id, attempt=core.attempt)
        if logger.isEnabledFor(logging.DEBUG):
            outcome = type(core.terminal).__name__ if core.terminal is not None else "abandoned"
            logger.debug("run ends", extra={"span_id": core.span_id, "outcome": outcome})
        self.client.runs.pop(core.span_id, None)
        self.client.ready_runs.pop(core.span_id, None)
        # Break the reference cycles: else the answer stays in memory until the next garbage collection.
        core.limit_turn(None)
        self._late_end = None

    def abandon(self) -> None:
        """The client is gone: close the provider's connection."""
        self._steer(Command.CLOSE)
        self.finish()
        if self.worker.tracer is not None:
            self.worker.tracer.commit_soon()

    def _steer(self, command: Command) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        match command:
            case Command.PAUSE:
                exchange.pause()
                self._set_timer()
            case Command.RESUME:
                if self.core.wants_next_turn:
                    self._schedule_next_turn()
                else:
                    exchange.resume()
                self._set_timer()
            case Command.SET_TIMER:
                if not exchange.is_read:
                    self._set_timer()
            case Command.NEXT_TURN:
                self._schedule_next_turn()
            case Command.RELEASE:
                exchange.release()
            case Command.SEND_CONTINUATION if self._request is not None:
                self._request = self.core.continue_request(self._request)
                self._exchange = self.worker.http.send(self._request, self)
            case _:
                exchange.close()

    def _set_timer(self) -> None:
        """Set the timer to the next deadline, or leave an earlier one: when it fires, it is set again."""
        deadline = self.core.clocks.next_deadline()
        if self._timer is not None or self._remove_deadline is not None:
            if self._wakes_at <= deadline:
                return
            self._stop_timer()
        now = time.monotonic()
        delay = max(deadline - now, 0.0)
        if (early := early_delay(delay)) is not None:
            self._wakes_at = now + early
            self._remove_deadline = self.worker.early_deadlines.add(self, now, early)
        if self._remove_deadline is None:
            self._wakes_at = deadline
            self._timer = self.worker.loop.call_later(min(delay + 0.001, 3600.0), self.look_at_clocks)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._remove_deadline is not None:
            self._remove_deadline(self, None)
            self._remove_deadline = None

    def time_is_over(self) -> None:
        """The time of :func:`early_delay` is over: set the timer to what is left until the next deadline."""
        self._remove_deadline = None
        self.look_at_clocks()

    def look_at_clocks(self) -> None:
        """Do what the clocks ask for, and set the timer again."""
        self._timer = None
        now = self._turn_began = time.monotonic()
        try:
            if self._exchange is not None and self._exchange.is_connected:
                self.core.clocks.connected()
            self.carry_out(self.core.due(now))
            if not self.core.is_over:
                self._set_timer()
        except Exception as error:  # noqa: BLE001
            self.broke(error)


def messages_of(runs: Iterable[LiveRun], now: float) -> list[msgspec.Struct]:
    """Return the messages of runs that may leave now. ``now`` is the time of this turn: flowing text has come in it."""
    messages: list[msgspec.Struct] = []
    for run in runs:
        try:
            chunk = run.outgoing.text_chunk()
        except Exception as error:  # noqa: BLE001
            run.broke(error)
            continue
        if chunk is None:
            messages += run.take(now)
        else:
            run.clocks.last_life = now
            messages.append(chunk)
    return messages
