"""One run as its caller sees it.

Reads it, and checks after each step what must hold of the session and its delivery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from headrace.answers.assembly import joined_text
from headrace.connections.connection import Connection
from headrace.errors import HeadraceError
from headrace.process.watchdog import Alarm
from headrace.runs.delivery import Delivery
from headrace.runs.endings import Ending
from headrace.runs.hedged_session import HedgedSession
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Phase
from headrace.runs.session_commands import Command, WakeAt
from headrace.runs.task_alarm import TasksToWake
from headrace.streams import EndedError, LocalStream, Reader
from headrace.types import Message
from headrace.wire.codec import encode_request
from headrace.wire.flow import characters
from headrace.wire.messages import (
    WINDOW_CHARACTERS,
    WINDOW_EVENTS,
    Chunk,
    Refuse,
    Terminal,
)
from headrace.wire.run_request import RunRequest
from tests.simulation.plans import Order
from tests.simulation.provider_calls import Call, ScriptedProvider
from tests.simulation.world import Host, SimulationViolation

_POKED = 0.15
"""The share of runs that are told again, after their end, of all that can happen to a run."""
BEATEN_BOUND = 0.5
"""Seconds until the provider's connection of an attempt that was beaten is closed."""
ATTEMPT_SLACK = 0.1
"""Seconds by which an attempt may be late after a failure. The clients look at their runs only each second."""
MAX_STARTS = 2
"""How often a run may be started on workers that are then lost."""


class Caller:
    """One run: what its caller does, and what was seen of it."""

    def __init__(
        self,
        order: Order,
        host: Host,
        connection: Connection,
        submit: Callable[[Delivery], None],
        provider: ScriptedProvider,
        told: Callable[[Caller], None],
    ) -> None:
        self.order = order
        self.host = host
        self.submitted_at = host.world.now
        self.aborted_at: float | None = None
        self.ended_at: float | None = None
        self.outcome: Ending | None = None
        self.event_count = 0
        self.text_length = 0
        self.starts = 0
        self.failures = 0
        """How many starts ended with a failure of the provider, after which the run went on."""
        self.retries = 0
        """How often its present model was tried again."""
        self.fallbacks = 0
        self.delivered: set[int] = set()
        """The attempts from which something arrived."""
        self.has_lost: Callable[[Host, int], bool]
        """Whether a process has lost the worker with an epoch."""
        self.expect: Callable[[float, Callable[[], bool], str], None]
        """Notes that something must become true within so many seconds."""
        self.trip: Callable[[], None] = cast("Any", connection)._reactor._reactor.trip
        """Called at each step that may be made to raise."""
        self.connection = connection
        self._result: object = None
        self._provider = provider
        self._told = told
        self._last: tuple[int, Terminal] | None = None
        self.session = CheckedSession(_session_plan(order))
        self.session.caller = self
        self.delivery = CheckedDelivery(self.session, "tr", host.world.now, connection, 0)
        self.delivery.caller = self
        self._stream: LocalStream | None = LocalStream(self.delivery)
        self._reader: Reader | None = None
        self._has_stalled = False
        submit(self.delivery)
        if not order.streams or order.reading == "result":
            _ = self._stream.result
        if order.streams and order.reading == "iterate":
            self._reader = Reader(self._stream)
            self._read_soon(0.0)
        if order.abort_at is not None:
            host.act(max(host.world.now, 1000.0 + order.abort_at), self._abort)

    @property
    def is_over(self) -> bool:
        """Whether the run is over: it has its outcome, or its caller has ended."""
        return self.ended_at is not None or not self.host.is_alive

    @property
    def is_given_up(self) -> bool:
        """Whether something else than its session has ended it."""
        return self.delivery.outcome.is_given_up

    def calls(self) -> list[Call]:
        """Return this run's calls of the provider."""
        return [call for call in self._provider.calls.values() if call.span_id == self.order.span_id]

    # What the caller does.

    def _abort(self) -> None:
        if self._stream is None or self.delivery.outcome.has_ended:
            return
        self.host.world.note(self.host, f"{self.order.span_id}: {self.order.abort_by}")
        self.aborted_at = self.host.world.now
        self._told(self)
        if self.order.abort_by == "drop":
            self._reader = self._stream = None  # its finalizer does the rest
        else:
            self._stream.abort()

    def _read_soon(self, delay: float) -> None:
        self.host.act(self.host.world.now + delay, self._read)

    def _read(self) -> None:
        reader = self._reader
        if reader is None:
            return
        taken = self.delivery.credit.taken
        try:
            reader.take()
        except (EndedError, HeadraceError):
            self._reader = None
            return
        if self.delivery.credit.taken > taken:
            self._pause()
            return
        self.delivery._waiter = _Waiter(partial(self._read_soon, 0.0001))
        if self.delivery._has_news():
            self.delivery._waiter = None
            self._read_soon(0.0)

    def _pause(self) -> None:
        order = self.order
        if order.stall_after is not None and not self._has_stalled and self.delivery.credit.taken >= order.stall_after:
            self._has_stalled = True
            self.host.world.note(self.host, f"{order.span_id}: its reader pauses")
            self._read_soon(order.stall_seconds)
        else:
            self._read_soon(order.pace)

    # What is seen.

    def arrived(self, before: int) -> None:
        """Events were accepted: they are the next that the provider said, and within the window."""
        session = self.session
        if self.is_given_up:
            return  # its I/O thread has yet to hear of it
        if self.ended_at is not None:
            raise SimulationViolation(f"{self.order.span_id}: events after the outcome")
        events = session.events[before:]
        call = self._provider.calls.get((self.order.span_id, session.attempt))
        self.delivered.add(session.attempt)
        text = joined_text(events)
        if call is None or not call.answer.text.startswith(text, self.text_length):
            raise SimulationViolation(
                f"{self.order.span_id}: text arrived that the provider did not send: {text[:60]!r}"
            )
        self.text_length += len(text)
        if self.text_length > call.sent_length:
            raise SimulationViolation(f"{self.order.span_id}: text arrived before the provider sent it")
        if not self.delivery.credit.reads_all:
            self._check_window()

    def _check_window(self) -> None:
        delivery, session = self.delivery, self.session
        waiting = len(session.events) - delivery.credit.taken
        if waiting > WINDOW_EVENTS:
            raise SimulationViolation(f"{self.order.span_id}: {waiting} events wait for a reader, beyond the window")
        if waiting and (size := characters(session.events[delivery.credit.taken :])) > WINDOW_CHARACTERS:
            raise SimulationViolation(f"{self.order.span_id}: {size} characters wait for a reader, beyond the window")

    def started(self) -> None:
        """It was given to a worker."""
        self.starts += 1
        if self.delivered:
            raise SimulationViolation(f"{self.order.span_id}: started again after some of it was delivered")
        if self.starts - self.failures > MAX_STARTS:
            raise SimulationViolation(
                f"{self.order.span_id}: started again after {MAX_STARTS} workers were lost with it"
            )

    def lost(self, epoch: int, reason: str) -> None:
        """Its worker is said to be lost."""
        if "did not answer" not in reason and not self.has_lost(self.host, epoch):
            raise SimulationViolation(f"{self.order.span_id}: counts its worker as lost, which is there ({reason})")

    def moved_on(self) -> None:
        """Its worker took no new runs, so that this start was none."""
        self.starts -= 1

    def one_attempt_won(self) -> None:
        """It had two attempts, and the first event came: the other attempt ends."""
        attempt = self.session.attempt
        what = f"{self.order.span_id}: the attempt that was beaten is stopped"

        def is_stopped() -> bool:
            return not any(call.closed_at is None for call in self.calls() if call.attempt != attempt)

        self.expect(BEATEN_BOUND, is_stopped, what)

    def backs_off(self, delay: float) -> None:
        """Its provider failed, and it is tried again in so many seconds."""
        session, attempt = self.session, self.session.attempt
        self.failures += 1
        self.retries += 1
        if self.delivered:
            raise SimulationViolation(f"{self.order.span_id}: tried again after some of it was delivered")
        if self.retries > self.order.max_retries:
            raise SimulationViolation(f"{self.order.span_id}: tried again {self.retries} times")
        what = f"{self.order.span_id}: its next attempt"
        self.expect(delay + ATTEMPT_SLACK, lambda: self.is_over or session.attempt != attempt, what)

    def falls_back(self, *, has_run: bool) -> None:
        """It is given to another model. ``has_run``: a provider failed, not the broker."""
        self.failures += has_run
        self.fallbacks += 1
        self.retries = 0
        if self.delivered:
            raise SimulationViolation(f"{self.order.span_id}: given to another model after some of it was delivered")
        if self.fallbacks > self.order.fallbacks:
            raise SimulationViolation(f"{self.order.span_id}: given to a model that nobody named")

    def told(self, epoch: int, terminal: Terminal) -> None:
        """A terminal message came."""
        self._last = (epoch, terminal)

    def ended(self) -> None:
        """The outcome is there."""
        world = self.host.world
        if self.ended_at is not None:
            raise SimulationViolation(f"{self.order.span_id}: a second outcome")
        self.ended_at = world.now
        self._result = self.delivery.see_result()
        self.outcome = self.delivery.outcome.ending
        self.event_count = len(self.session.events)
        world.note(self.host, f"{self.order.span_id}: {type(self.outcome).__name__}")
        self._told(self)
        if world.random.random() < _POKED and not self.is_given_up:
            self.host.act(world.now + world.random.random(), self._poke)

    def check_unchanged(self) -> None:
        """The outcome is what it was, and so is what was delivered."""
        session = self.session
        if self.delivery.see_result() is not self._result:
            raise SimulationViolation(f"{self.order.span_id}: the outcome changed from {self._result!r}")
        if self.is_given_up:
            return
        if session.ending is not self.outcome or session.phase is not Phase.ENDED:
            raise SimulationViolation(
                f"{self.order.span_id}: the outcome changed from {self.outcome!r} to {session.ending!r}"
            )
        if len(session.events) != self.event_count:
            raise SimulationViolation(f"{self.order.span_id}: events were added after the outcome")

    def _poke(self) -> None:
        """Tell the session again what can happen to a run: late messages, a lost worker, time, its caller, its connection."""
        session, now = self.session, self.host.world.now
        commands: list[Command] = []
        if self._last is not None:
            commands += session.ended(*self._last, now)
        if session.lease is not None:
            epoch = session.lease.epoch
            commands += session.chunk(epoch, Chunk(self.order.span_id, session.attempt, len(session.events), ["late"]))
        commands += session.worker_lost("late", now)
        commands += session.stop(now)
        commands += session.due(now + 1000.0)
        commands += session.broker_changed(now)
        commands += session.give_credit()
        if commands:
            raise SimulationViolation(f"{self.order.span_id}: has ended, and still wants {commands}")
        self.check_unchanged()


class _Waiter(Alarm):
    """In place of an alarm that a thread waits for."""

    def __init__(self, wake: Callable[[], None]) -> None:
        super().__init__()
        self._wake: Callable[[], None] | None = wake

    def wake(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()


class CheckedSession(HedgedSession):
    """The real session, watched. Without a hedge it is a plain session."""

    __slots__ = ("caller",)

    caller: Caller

    def start(self, now: float) -> list[Command]:
        self.caller.trip()
        return super().start(now)

    def due(self, now: float) -> list[Command]:
        self.caller.trip()
        return super().due(now)

    def granted(self, *arguments: Any) -> list[Command]:
        self.caller.trip()
        was_waiting = self.phase is Phase.WAITING
        commands = super().granted(*arguments)
        if was_waiting and self.phase is Phase.RUNNING:
            self.caller.started()
        return commands

    def chunk(self, epoch: int, chunk: Chunk) -> list[Command]:
        self.caller.trip()
        before, had_hedge = len(self.events), self._hedge is not None
        commands = super().chunk(epoch, chunk)
        if len(self.events) != before:
            self.caller.arrived(before)
            if had_hedge:
                self.caller.one_attempt_won()
        return commands

    def ended(self, epoch: int, terminal: Terminal, now: float) -> list[Command]:
        self.caller.told(epoch, terminal)
        attempt, plan, span_id = self.attempt, self.plan, self.span_id
        commands = super().ended(epoch, terminal, now)
        if self.phase is Phase.BACKING_OFF and self.attempt == attempt:
            self._check_wake(commands, now)
        elif self.plan is not plan:
            self.caller.falls_back(has_run=True)
        elif self.attempt != attempt and self.span_id == span_id:
            self.caller.moved_on()
        self.caller.trip()
        return commands

    def refused(self, refusal: Refuse, now: float, address: str = "the engine") -> list[Command]:
        plan = self.plan
        commands = super().refused(refusal, now, address)
        if self.plan is not plan:
            self.caller.falls_back(has_run=False)
        return commands

    def _check_wake(self, commands: list[Command], now: float) -> None:
        for command in commands:
            if isinstance(command, WakeAt):
                self.caller.backs_off(command.when - now)

    def worker_lost(self, reason: str, now: float, span_id: str | None = None) -> list[Command]:
        if self.phase is Phase.RUNNING and self.lease is not None and span_id in (None, self.span_id):
            self.caller.lost(self.lease.epoch, reason)
        return super().worker_lost(reason, now, span_id)

    def leases(self) -> Iterator[tuple[str, int, int]]:
        """Yield the leases that the run has: id, attempt, epoch of the worker."""
        if self.phase in (Phase.RUNNING, Phase.STOPPING) and self.lease is not None:
            yield self.span_id, self.attempt, self.lease.epoch
        if self._hedge is not None and self._hedge.lease is not None:
            yield self._hedge.span_id, self._hedge.attempt, self._hedge.lease.epoch


class CheckedDelivery(Delivery):
    """The real delivery, watched."""

    __slots__ = ("caller",)

    caller: Caller

    def ended(self, now: float, to_wake: TasksToWake) -> None:
        had_ended = self.outcome.has_ended
        super().ended(now, to_wake)
        if not had_ended:
            self.caller.ended()


_HELLO = [Message("user", "Hello")]


def _session_plan(order: Order, number: int = 0) -> RunPlan:
    model = f"m{number}"
    request = RunRequest(
        provider="simulated",
        model=model,
        messages=_HELLO,
        stream=order.streams,
        total_timeout=order.total_timeout,
    )
    return RunPlan(
        span_id=order.span_id,
        provider="simulated",
        model=model,
        request=encode_request(request),
        streams=order.streams,
        priority=order.priority,
        on_abort=order.on_abort,
        total_timeout=order.total_timeout,
        max_retries=order.max_retries,
        fallback=_session_plan(order, number + 1) if number < order.fallbacks else None,
        hedge_after=order.hedge_after,
    )
