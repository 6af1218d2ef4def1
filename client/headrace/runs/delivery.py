"""The hand-over of one run from the I/O thread to whoever reads it: buffer, waking, result, abort.

The I/O thread adds events and the outcome; one reader takes them. What a reader waits on is woken once for all that has
arrived. Whoever waits keeps the run's bound itself (``process/watchdog.py`` has the rule). Nothing here refers to the stream object that the user holds, so that dropping it can abort the run.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from headrace.answers.assembly import ResultFacts, joined_text
from headrace.errors import ForkedStreamError, HeadraceError, RunError, RunTimeoutError
from headrace.process.callbacks import is_io_thread, run_elsewhere
from headrace.process.clock import monotonic
from headrace.process.watchdog import LOOK_AFTER, Alarm
from headrace.runs.conclusion import Final, conclude, priced
from headrace.runs.session import DEADLINE_GRACE, Session
from headrace.types import RunEvent
from headrace.wire.flow import characters
from headrace.wire.messages import WINDOW_CHARACTERS, WINDOW_EVENTS

if TYPE_CHECKING:
    import asyncio

    from headrace.pricing.prices import PriceTable

# The I/O thread gives credit by itself, at half the window, whenever events arrive. The reader asks for it only where
# no further event may come before it does.
_ASK_EVENTS = WINDOW_EVENTS * 3 // 4
_ASK_CHARACTERS = WINDOW_CHARACTERS * 3 // 4

Wakeups = dict["asyncio.AbstractEventLoop", list["asyncio.Future[None]"]]
"""Readers to wake, by their loop: each loop is woken once for all of them."""


class Port(Protocol):
    """What a delivery asks of the connection, from any thread, without waiting."""

    def post_abort(self, delivery: Delivery, /) -> None:
        """Abort the run."""

    def post_taken(self, delivery: Delivery, /) -> None:
        """Look at how far the reader is, and give credit."""


class Settled(Protocol):
    """A future that waits for the outcome."""

    def settle(self, final: Final) -> None:
        """Resolve; called once, from any thread."""


LOCK_TIMEOUT = 0.2
"""Seconds that a run which is to end waits for a lock: a signal handler or a finalizer may block the thread that has it."""


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
        "_failure",
        "_final",
        "_futures",
        "_lock",
        "_pid",
        "_pinned",
        "_port",
        "_prices",
        "_waiter",
        "bound",
        "drained_characters",
        "ended_at",
        "has_ended",
        "is_aborted",
        "is_draining",
        "owner",
        "reading",
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
        self.bound = float("inf")
        """When the run must have ended, on the monotonic clock."""
        self.limit(session.plan.total_timeout)
        self.reading = threading.Lock()
        """Held by the one reader that takes events; another must not wait for it."""
        # Somebody asked for the result: events are read to their end whether or not anyone iterates.
        self.is_draining = not session.plan.streams
        self._port = port
        self._prices = prices
        self._pid = os.getpid()
        self.drained_characters = 0
        self._drained = 0
        self._asked_events = 0
        self._asked_characters = 0
        self._waiter: Alarm | _LoopWaiter | None = None
        self._futures: list[weakref.ref[Any]] = []
        self._pinned: list[Settled] = []
        self._final: Final | None = None
        # Why the run was given up, by somebody else than its session.
        self._failure: HeadraceError | None = None
        # Reentrant: a signal handler may abort in the middle of a call from its own thread.
        self._lock = threading.RLock()

    @property
    def span_id(self) -> str:
        """The run's id."""
        return self.session.plan.span_id

    @property
    def is_given_up(self) -> bool:
        """Whether the run was ended with an error by :meth:`give_up`, not by its session."""
        return self._failure is not None

    # Any thread: the end that does not depend on the I/O thread.

    def limit(self, total_timeout: float | None) -> None:
        """Set the bound by a total timeout, in seconds; ``None`` leaves it as it is."""
        if total_timeout is not None:
            self.bound = self.started_at + total_timeout + DEADLINE_GRACE

    def look(self, now: float) -> None:
        """End the run if its bound has passed. Of no effect on a run that has ended."""
        if now < self.bound or self.has_ended:
            return
        limit = self.bound - self.started_at - DEADLINE_GRACE
        reason = f"not finished within {limit:g} s (total timeout), and this process's I/O thread did not say so"
        self.give_up(RunTimeoutError(self.span_id, reason, joined_text(self.session.events), "total", limit))

    def give_up(self, error: HeadraceError) -> None:
        """End the run with an error, without its session; of no effect on a run that has ended."""
        if not self._lock.acquire(timeout=LOCK_TIMEOUT):
            return  # whoever waits looks again
        try:
            if self.has_ended:
                return
            self._failure = self._failure or error
        finally:
            self._lock.release()
        wakeups: Wakeups = {}
        self.ended(monotonic(), wakeups)
        wake_all(wakeups)
        self._port.post_abort(self)

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
        """The session has its outcome, or the run was given up; the second time has no effect."""
        if not self._lock.acquire(timeout=LOCK_TIMEOUT):
            run_elsewhere([partial(self._ended_late, now)])  # the lock's holder may wait for this thread
            return
        try:
            if self.has_ended:
                return
            self.ended_at = now
            self.has_ended = True
            references, self._futures = self._futures, []
            pinned, self._pinned = self._pinned, []
            final = self.final() if references else None
        finally:
            self._lock.release()
        try:
            if final is not None:
                _settle(references, final)
        finally:
            if pinned:
                run_elsewhere([pinned.clear])  # what they hold may have finalizers, which are users' code
            self.arrived(wakeups)

    def _ended_late(self, now: float) -> None:
        """The same, in a thread that may wait for the lock."""
        wakeups: Wakeups = {}
        with self._lock:
            self.ended(now, wakeups)
        wake_all(wakeups)

    # The reader's side.

    def check_process(self) -> None:
        """Raise ForkedStreamError in a child of the process that made the run."""
        if os.getpid() != self._pid:
            raise ForkedStreamError(self.span_id)

    def check_may_wait(self) -> None:
        """Raise RunError on the I/O thread, which would wait for itself."""
        if is_io_thread():
            reason = "a finalizer waited for the run on Headrace's own I/O thread; wait in a thread of your program"
            raise RunError(self.span_id, reason, joined_text(self.session.events))

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
        self.check_may_wait()
        waiter = Alarm()
        if self._may_wait(waiter):
            while not waiter.wait(LOOK_AFTER):
                self.look(monotonic())
                if self._has_news():
                    return  # and nobody could say so

    async def wait_async(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait, in a task, until there may be something new."""
        self.check_may_wait()
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
                try:
                    self._final = self._conclude()
                except Exception as error:  # noqa: BLE001 - whatever it is, the run ends with it
                    reason = f"its result cannot be made: {type(error).__name__}: {error}"
                    self._final = RunError(self.span_id, reason, joined_text(self.session.events))
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

    def _may_wait(self, waiter: Alarm | _LoopWaiter) -> bool:
        """Announce the waiter; return False when something came in the meantime."""
        self._waiter = waiter
        if self._has_news():
            self._waiter = None
            return False
        return True

    def _has_news(self) -> bool:
        return self.has_ended or self.is_aborted or len(self.session.events) > self.taken

    def _conclude(self) -> Final:
        plan = self.session.plan
        facts = ResultFacts(
            span_id=plan.span_id,
            trace_id=self.trace_id,
            provider=plan.provider,
            model=plan.model,
            latency_ms=(self.ended_at - self.started_at) * 1000,
            attempts=self.session.attempt,
        )
        final = conclude(self.session, facts, self._failure, is_aborted=self.is_aborted)
        return priced(final, plan, self._prices)


def _settle(references: list[weakref.ref[Any]], final: Final) -> None:
    for reference in references:
        if (future := reference()) is not None:
            with contextlib.suppress(Exception):  # one that its holder has resolved keeps no other waiting
                future.settle(final)


def wake_loop(loop: asyncio.AbstractEventLoop, waiting: list[asyncio.Future[None]]) -> None:
    """Wake tasks of another thread's loop. A loop that is closed has no task left to wake."""
    with contextlib.suppress(Exception):
        loop.call_soon_threadsafe(_wake, waiting)


def wake_all(wakeups: Wakeups) -> None:
    """Wake the tasks of some loops, each loop once."""
    for loop, waiting in wakeups.items():
        wake_loop(loop, waiting)


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
