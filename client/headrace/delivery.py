"""The hand-over of one run from the I/O thread to whoever reads it: buffer, waking, result, abort.

The I/O thread adds events and the outcome; one reader takes them. What a reader waits on is woken once for all that has
arrived. Nothing here refers to the stream object that the user holds, so that dropping it can abort the run.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from headrace.assembly import (
    InvalidArgumentsError,
    ResultFacts,
    aborted_result,
    embedding_result,
    finished_result,
    joined_text,
)
from headrace.costing import run_cost
from headrace.errors import EngineUnavailableError, ForkedStreamError, HeadraceError, ProviderProtocolError
from headrace.session import Session
from headrace.types import RunEmbeddingResult, RunEvent, RunLocalResult
from headrace.wire.flow import characters
from headrace.wire.messages import WINDOW_CHARACTERS, WINDOW_EVENTS, Aborted, Finished

if TYPE_CHECKING:
    import asyncio

    from headrace.prices import PriceTable

# The I/O thread gives credit by itself, at half the window, whenever events arrive. The reader asks for it only where
# no further event may come before it does.
_ASK_EVENTS = WINDOW_EVENTS * 3 // 4
_ASK_CHARACTERS = WINDOW_CHARACTERS * 3 // 4

Wakeups = dict["asyncio.AbstractEventLoop", list["asyncio.Future[None]"]]
"""Readers to wake, by their loop: each loop is woken once for all of them."""

Final = RunLocalResult | RunEmbeddingResult | HeadraceError


class Port(Protocol):
    """What a delivery asks of the connection, from any thread, without waiting."""

    def post_abort(self, delivery: Delivery) -> None:
        """Abort the run."""

    def post_taken(self, delivery: Delivery) -> None:
        """Look at how far the reader is, and give credit."""


class Settled(Protocol):
    """A future that waits for the outcome."""

    def settle(self, final: Final) -> None:
        """Resolve; called once, from any thread."""


class _ThreadWaiter:
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # woken twice: by an arrival and by an abort
            self._lock.release()

    def wait(self) -> None:
        self._lock.acquire()


class _LoopWaiter:
    __slots__ = ("future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def wake(self) -> None:
        wake_loop(self.loop, [self.future])


class Interest:
    """Somebody wants this run: held by the stream, its iterators and its result. When the last is gone, it is aborted."""

    __slots__ = ("__weakref__", "_delivery")

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def __del__(self) -> None:
        # Runs in any thread, in the middle of anything: takes no lock.
        self._delivery.abandon()


class Delivery:
    """One run on its way to its reader."""

    __slots__ = (
        "__weakref__",
        "_asked_characters",
        "_asked_events",
        "_drained",
        "_final",
        "_futures",
        "_lock",
        "_pid",
        "_pinned",
        "_port",
        "_prices",
        "_waiter",
        "drained_characters",
        "ended_at",
        "has_ended",
        "is_aborted",
        "is_draining",
        "owner",
        "session",
        "started_at",
        "taken",
        "taken_characters",
        "trace_id",
    )

    def __init__(
        self,
        session: Session,
        trace_id: str,
        started_at: float,
        port: Port,
        owner: int,
        prices: PriceTable | None = None,
    ) -> None:
        self.session = session
        self.trace_id = trace_id
        self.owner = owner
        self.started_at = started_at
        self.ended_at = started_at
        self.taken = 0
        self.taken_characters = 0
        self.has_ended = False
        self.is_aborted = False
        # Somebody asked for the result: events are read to their end whether or not anyone iterates.
        self.is_draining = not session.plan.streams
        self._port = port
        self._prices = prices
        self._pid = os.getpid()
        self.drained_characters = 0
        self._drained = 0
        self._asked_events = 0
        self._asked_characters = 0
        self._waiter: _ThreadWaiter | _LoopWaiter | None = None
        self._futures: list[weakref.ref[Any]] = []
        self._pinned: list[Settled] = []
        self._final: Final | None = None
        # Reentrant: a signal handler may abort in the middle of a call from its own thread.
        self._lock = threading.RLock()

    @property
    def span_id(self) -> str:
        """The run's id."""
        return self.session.plan.span_id

    # The I/O thread's side.

    def arrived(self, wakeups: Wakeups) -> None:
        """Events were added, or the end is there: wake the reader if it waits."""
        waiter = self._waiter
        if waiter is None:
            return
        self._waiter = None
        if isinstance(waiter, _LoopWaiter):
            wakeups.setdefault(waiter.loop, []).append(waiter.future)
        else:
            waiter.wake()

    def ended(self, now: float, wakeups: Wakeups) -> None:
        """The session has its outcome."""
        with self._lock:
            self.ended_at = now
            self.has_ended = True
            waiting = [future for reference in self._futures if (future := reference()) is not None]
            self._futures.clear()
            self._pinned.clear()
        for future in waiting:
            future.settle(self.final())
        self.arrived(wakeups)

    # The reader's side.

    def check_process(self) -> None:
        """Raise ForkedStreamError in a child of the process that made the run."""
        if os.getpid() != self._pid:
            raise ForkedStreamError(self.span_id)

    def take(self) -> list[RunEvent]:
        """Return the events that have arrived since the last call."""
        batch = self.session.events[self.taken :]
        if batch:
            self.taken += len(batch)
            self.taken_characters += characters(batch)
            if (
                self.taken - self._asked_events >= _ASK_EVENTS
                or self.taken_characters - self._asked_characters >= _ASK_CHARACTERS
            ):
                self.credited()
                self._port.post_taken(self)
        return batch

    def drained(self) -> None:
        """Nobody need take the events that have arrived: the result will have them. For the I/O thread."""
        events = self.session.events
        self.drained_characters += characters(events[self._drained :])
        self._drained = len(events)

    def credited(self) -> None:
        """Credit has been given, or asked for, up to what was taken."""
        self._asked_events = self.taken
        self._asked_characters = self.taken_characters

    def wait(self) -> None:
        """Wait, in a thread, until there may be something new."""
        waiter = _ThreadWaiter()
        if self._may_wait(waiter):
            waiter.wait()

    async def wait_async(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait, in a task, until there may be something new."""
        waiter = _LoopWaiter(loop)
        if self._may_wait(waiter):
            try:
                await waiter.future
            finally:
                self._waiter = None

    def abort(self) -> None:
        """Abort, unless the outcome was seen already. Returns at once."""
        self.check_process()
        with self._lock:
            if self.is_aborted or self._final is not None:
                return
            self.is_aborted = True
        self._port.post_abort(self)
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.wake()

    def abandon(self) -> None:
        """Nobody holds the run any more. Lock-free: called by a finalizer."""
        if self.has_ended or self.is_aborted or os.getpid() != self._pid:
            return
        self.is_aborted = True
        self._port.post_abort(self)

    def final(self) -> Final:
        """Return the outcome, as the caller sees it; from the first call on it never changes."""
        with self._lock:
            if self._final is None:
                self._final = self._priced(self._conclude())
            return self._final

    def attach(self, future: Settled) -> None:
        """Resolve ``future`` with the outcome, now or later; the run is read to its end from here on."""
        with self._lock:
            if not self.has_ended:
                self._futures.append(weakref.ref(future))
                if not self.is_draining:
                    self.is_draining = True
                    self._port.post_taken(self)
                return
        future.settle(self.final())

    def pin(self, future: Settled) -> None:
        """Keep ``future`` alive until the end: somebody waits on it who may not hold it."""
        with self._lock:
            if not self.has_ended:
                self._pinned.append(future)

    def _may_wait(self, waiter: _ThreadWaiter | _LoopWaiter) -> bool:
        """Announce the waiter; return False when something came in the meantime."""
        self._waiter = waiter
        if self.has_ended or self.is_aborted or len(self.session.events) > self.taken:
            self._waiter = None
            return False
        return True

    def _conclude(self) -> Final:
        session = self.session
        plan = session.plan
        outcome = session.outcome
        facts = ResultFacts(
            span_id=plan.span_id,
            trace_id=self.trace_id,
            provider=plan.provider,
            model=plan.model,
            latency_ms=(self.ended_at - self.started_at) * 1000,
            attempts=session.attempt,
        )
        if self.is_aborted or isinstance(outcome, Aborted):
            if not plan.streams:
                return EngineUnavailableError("the engine", "the client was closed while the run was under way")
            return self._aborted_result(facts, outcome)
        if isinstance(outcome, Finished):
            if outcome.vectors is not None:
                return embedding_result(facts, outcome)
            try:
                return finished_result(facts, session.events, outcome, aborted=False if plan.streams else None)
            except InvalidArgumentsError as error:
                text = joined_text(session.events) or (outcome.message.text if outcome.message else "")
                return ProviderProtocolError(plan.span_id, str(error), text, plan.provider, 200)
        return outcome if outcome is not None else EngineUnavailableError("the engine", "the run has no outcome")

    def _priced(self, final: Final) -> Final:
        if self._prices is None or isinstance(final, HeadraceError):
            return final
        plan = self.session.plan
        cost = run_cost(self._prices, plan.provider, plan.model, final.model, final.usage)
        return final if cost is None else msgspec.structs.replace(final, cost=cost)

    def _aborted_result(self, facts: ResultFacts, outcome: object) -> RunLocalResult:
        """Return the result of an aborted stream, whatever its worker said in the meantime."""
        if isinstance(outcome, Finished):
            outcome = Aborted(outcome.span_id, outcome.attempt, outcome.sequence, outcome.usage)
        return aborted_result(facts, self.session.events, outcome if isinstance(outcome, Aborted) else None)


def wake_loop(loop: asyncio.AbstractEventLoop, waiting: list[asyncio.Future[None]]) -> None:
    """Wake tasks of another thread's loop; a loop that is closed has nobody left to wake."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_wake, waiting)


def wake_all(wakeups: Wakeups) -> None:
    """Wake the tasks of some loops, each loop once."""
    for loop, waiting in wakeups.items():
        wake_loop(loop, waiting)


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
