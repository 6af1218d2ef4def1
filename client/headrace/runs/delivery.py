"""Hands one run over from the I/O thread to its reader: events, waking, and the result. Any thread may abort.

The I/O thread adds events and ends the run; one reader takes the events. Any number of threads and tasks may wait for
the first event: they take nothing, and do not disturb the reader. A thread that waits for the run also keeps the run's
time limit (``process/watchdog.py`` states the rule). ``outcome.py`` states the rule of an abort. A delivery does not
refer to the stream object that the user holds: so dropping the stream can abort the run.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from headrace.answers.assembly import ResultFacts, joined_text
from headrace.errors import ForkedStreamError, HeadraceError, RunError, RunTimeoutError
from headrace.process.callbacks import is_io_thread, run_elsewhere, thread_marks
from headrace.process.clock import monotonic
from headrace.process.own_process import own_process
from headrace.process.watchdog import LOOK_AFTER, Alarm
from headrace.runs.outcome import ResultOrError, RunOutcome
from headrace.runs.session import DEADLINE_GRACE, Session
from headrace.runs.task_alarm import TaskAlarm, TasksToWake
from headrace.types import RunEvent

if TYPE_CHECKING:
    import asyncio

    from headrace.pricing.prices import PriceTable

_NEVER = float("inf")
LOCK_TIMEOUT = 0.2
"""Seconds that the I/O thread waits for the lock of a run. A signal handler or a finalizer may block the lock's
holder."""


class RunConnection(Protocol):
    """What a delivery asks of the connection. May be called from any thread, and returns at once."""

    def post_abort(self, delivery: Delivery, /) -> None:
        """Have the worker stop the run."""

    def post_credit(self, delivery: Delivery, /) -> None:
        """Look at how much the reader has taken, and give credit."""

    def task_waits(self, loop: asyncio.AbstractEventLoop, /) -> None:
        """A task of ``loop``, which runs in this thread, waits for a run."""


class ResultWaiter(Protocol):
    """A future that waits for the result."""

    def resolve(self, result: ResultOrError) -> None:
        """Resolve the future. Called once, from any thread."""


class RunHandle:
    """Keeps a run going. The stream, its iterators and its result each hold it; without a holder the run is aborted."""

    __slots__ = ("__weakref__", "_delivery")

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def __del__(self) -> None:
        # A finalizer runs in any thread, between any two steps of its code. So it takes no lock.
        self._delivery.abandon()


class Delivery:
    """One run on its way to its reader."""

    __slots__ = (
        "__weakref__",
        "_alarm",
        "_connection",
        "_futures",
        "_lock",
        "_pinned",
        "_prices",
        "_start_waiters",
        "_waiter",
        "bound",
        "credit",
        "ended_at",
        "outcome",
        "owner",
        "pid",
        "session",
        "span_id",
        "started_at",
        "trace_id",
    )

    def __init__(
        self,
        session: Session,
        trace_id: str,
        started_at: float,
        connection: RunConnection,
        owner: int,
        prices: PriceTable | None = None,
        pid: int | None = None,
    ) -> None:
        """Make the delivery of a run that was asked for at ``started_at``. ``pid``: this process, if the caller knows it."""
        self.session = session
        self.span_id = session.plan.span_id
        """The run's id."""
        self.credit = session.credit
        self.outcome = RunOutcome()
        """Changed under the lock, except by a finalizer: see :meth:`abandon`."""
        self.trace_id = trace_id
        self.owner = owner
        self.started_at = started_at
        self.ended_at = started_at
        self.bound = _NEVER
        """When the run must have ended, on the monotonic clock."""
        if session.plan.total_timeout is not None:
            self.limit(session.plan.total_timeout)
        self._connection = connection
        self._prices = prices
        self.pid = own_process.pid if pid is None else pid
        """The process that has made the run."""
        self._waiter: Alarm | asyncio.Future[None] | None = None
        """Wakes the reader: a thread, or a task."""
        self._alarm: Alarm | None = None
        """What threads have waited on. It is used again."""
        # Most runs have none of the next three, all the time.
        self._start_waiters: list[Alarm | TaskAlarm] | None = None
        """Wake the threads and tasks that wait for the first event."""
        self._futures: list[weakref.ref[Any]] | None = None
        self._pinned: list[ResultWaiter] | None = None
        # Reentrant: a signal handler may abort the run while its own thread is in one of these methods.
        self._lock = threading.RLock()

    # Any thread: ends the run in time, also where the I/O thread does not.

    def limit(self, total_timeout: float | None) -> None:
        """Set the bound by a total timeout, in seconds. ``None`` leaves the bound as it is."""
        if total_timeout is not None:
            self.bound = self.started_at + total_timeout + DEADLINE_GRACE
            self.session.times.total_timeout = total_timeout

    def look(self, now: float) -> None:
        """End the run if its bound has passed. Does nothing for a run that has ended."""
        if now < self.bound or self.outcome.has_ended:
            return
        limit = self.bound - self.started_at - DEADLINE_GRACE
        reason = f"not finished within {limit:g} s (total timeout), and this process's I/O thread did not say so"
        self.give_up(RunTimeoutError(self.span_id, reason, joined_text(self.session.events), "total", limit))

    def give_up(self, error: HeadraceError) -> None:
        """End the run with an error, without its session. Does nothing for a run that has ended."""
        if not self._lock.acquire(timeout=LOCK_TIMEOUT):
            return  # the watchdog, or a thread that waits for the run, tries again
        try:
            if not self.outcome.give_up(error):
                return
        finally:
            self._lock.release()
        to_wake = TasksToWake()
        self.ended(monotonic(), to_wake)
        to_wake.wake()
        self._connection.post_abort(self)

    # The I/O thread.

    def arrived(self, to_wake: TasksToWake) -> None:
        """Events were added, or the run has ended. Wake threads that wait; add tasks that wait to ``to_wake``."""
        if self._start_waiters and self._has_started():
            self._wake_start_waiters()
        waiter = self._waiter
        if waiter is None:
            return
        self._waiter = None
        if isinstance(waiter, Alarm):
            waiter.wake()
        else:
            to_wake.add(waiter)

    def ended(self, now: float, to_wake: TasksToWake) -> None:
        """The session has its ending, or the run was given up. The second call does nothing."""
        if not self._lock.acquire(blocking=False) and not self._lock.acquire(timeout=LOCK_TIMEOUT):
            run_elsewhere([partial(self._ended_late, now)])  # the lock's holder may be waiting for this thread
            return
        try:
            if not self.outcome.end(self.session.ending):
                return
            self.ended_at = now
            references, self._futures = self._futures, None
            pinned, self._pinned = self._pinned, None
            result = self.see_result() if references else None
        finally:
            self._lock.release()
        try:
            if references and result is not None:
                _resolve(references, result)
        finally:
            if pinned:
                run_elsewhere([pinned.clear])  # this may run finalizers, which are users' code
            self.arrived(to_wake)

    def _ended_late(self, now: float) -> None:
        """Do the same in a thread that may wait for the lock."""
        to_wake = TasksToWake()
        with self._lock:
            self.ended(now, to_wake)
        to_wake.wake()

    # The reader.

    def check_process(self) -> None:
        """Raise ForkedStreamError in a child of the process that made the run."""
        if own_process.pid != self.pid:
            raise ForkedStreamError(self.span_id)

    def check_may_wait(self) -> None:
        """Raise RunError on the I/O thread, which would wait for itself."""
        if is_io_thread():
            reason = "a finalizer waited for the run on Headrace's own I/O thread; wait in a thread of your program"
            raise RunError(self.span_id, reason, joined_text(self.session.events))

    def take(self) -> list[RunEvent]:
        """Return the events that have arrived since the last call."""
        credit = self.credit
        batch = self.session.events[credit.taken :]
        if batch and credit.take(batch):
            self._connection.post_credit(self)
        return batch

    def wait(self) -> None:
        """Wait, in a thread, until there may be something new."""
        alarm = self._alarm
        if alarm is None:
            alarm = self._alarm = Alarm()
        self._waiter = alarm
        if self._has_news():
            self._waiter = None
            return
        if thread_marks.is_io_thread:
            self._waiter = None
            self.check_may_wait()
        while not alarm.wait(LOOK_AFTER):
            self.look(monotonic())
            if self._has_news():
                return  # the I/O thread is blocked, and did not wake this thread

    def waiter(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None] | None:
        """Return what a task of ``loop`` must await until there may be something new. None: there is something already."""
        self._waiter = future = loop.create_future()
        outcome = self.outcome
        # As _has_news, without a call for each chunk.
        if len(self.session.events) > self.credit.taken or outcome.has_ended or outcome.is_aborted:
            self._waiter = None
            return None
        if thread_marks.is_io_thread:
            self._waiter = None
            self.check_may_wait()
        return future

    async def wait_async(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait, in a task, until there may be something new."""
        if (future := self.waiter(loop)) is not None:
            try:
                await future
            finally:
                self._waiter = None

    def see_result(self) -> ResultOrError:
        """Return what the caller gets. The first call decides it: an abort comes too late from then on."""
        session, plan = self.session, self.session.plan
        with self._lock:
            facts = ResultFacts(
                plan.span_id,
                self.trace_id,
                plan.provider,
                plan.model,
                (self.ended_at - self.started_at) * 1000,
                session.attempt,
                session.times.queue_seconds * 1000,
                session.times.queue_reason or None,
            )
            return self.outcome.see(plan, facts, session.events, self._prices)

    def attach(self, future: ResultWaiter) -> None:
        """Resolve ``future`` with the result, now or later. From here on the run is read to its end."""
        with self._lock:
            if not self.outcome.has_ended:
                self._futures = [*(self._futures or ()), weakref.ref(future)]
                if not self.credit.reads_all:
                    self.credit.reads_all = True
                    self._connection.post_credit(self)
                return
        future.resolve(self.see_result())

    def task_waits(self, loop: asyncio.AbstractEventLoop) -> None:
        """A task of ``loop``, which runs in this thread, waits for the result."""
        self._connection.task_waits(loop)

    def pin(self, future: ResultWaiter) -> None:
        """Keep ``future`` alive until the end of the run, because its waiters may not hold it."""
        with self._lock:
            if not self.outcome.has_ended:
                self._pinned = [*(self._pinned or ()), future]

    # Whoever waits for the first event. Nothing is taken, and the reader is not disturbed.

    def wait_for_start(self, limit: float | None) -> None:
        """Wait, in a thread, for the first event or for the end. Raises TimeoutError after ``limit`` seconds."""
        until = None if limit is None else monotonic() + limit
        while not self._has_started():
            self.check_may_wait()
            alarm = Alarm()
            with self._awaits_start(alarm):
                if not self._has_started():
                    alarm.wait(min(self._left(until), LOOK_AFTER))
            self.look(monotonic())

    async def wait_for_start_async(self, loop: asyncio.AbstractEventLoop, limit: float | None) -> None:
        """Wait, in a task, for the first event or for the end. Raises TimeoutError after ``limit`` seconds."""
        until = None if limit is None else monotonic() + limit
        while not self._has_started():
            self.check_may_wait()
            alarm = TaskAlarm(loop)
            with self._awaits_start(alarm):
                if self._has_started():
                    return
                timer = None if until is None else loop.call_later(self._left(until), alarm.wake)
                try:
                    await alarm.future
                finally:
                    if timer is not None:
                        timer.cancel()

    def start_error(self) -> HeadraceError | None:
        """Return the error of a run that failed before its first event, else None. The caller has then seen the result."""
        outcome = self.outcome
        if self.session.events or outcome.is_aborted or not isinstance(outcome.ending, HeadraceError):
            return None
        result = self.see_result() if outcome.has_ended else None
        return result if isinstance(result, HeadraceError) else None

    # Whoever wants no more of the run.

    def abort(self) -> None:
        """Abort, unless the result was seen already. Returns at once."""
        self.check_process()
        with self._lock:
            if not self.outcome.abort():
                return
        self._connection.post_abort(self)
        waiter, self._waiter = self._waiter, None
        if isinstance(waiter, Alarm):
            waiter.wake()
        elif waiter is not None:
            to_wake = TasksToWake()
            to_wake.add(waiter)
            to_wake.wake()
        self._wake_start_waiters()

    def abandon(self) -> None:
        """Abort the run: its stream, iterators and result were dropped. Takes no lock, because a finalizer calls this."""
        if own_process.pid == self.pid and self.outcome.abandon():
            self._connection.post_abort(self)

    @contextlib.contextmanager
    def _awaits_start(self, alarm: Alarm | TaskAlarm) -> Iterator[None]:
        """Have ``alarm`` woken at the first event and at the end.

        The caller checks :meth:`_has_started` after this: the event may have come before, with nobody to wake.
        """
        with self._lock:
            if self._start_waiters is None:
                self._start_waiters = []
            waiters = self._start_waiters
            waiters.append(alarm)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):  # it was woken
                waiters.remove(alarm)

    def _wake_start_waiters(self) -> None:
        """Wake all that wait for the start. Called only after it: an alarm that is added meanwhile may be missed."""
        waiters, self._start_waiters = self._start_waiters, None
        for alarm in tuple(waiters or ()):  # whoever is woken removes its alarm from the list meanwhile
            alarm.wake()

    def _has_started(self) -> bool:
        outcome = self.outcome
        return bool(self.session.events) or outcome.has_ended or outcome.is_aborted

    def _left(self, until: float | None) -> float:
        """Return the seconds until ``until``. Raises TimeoutError if there are none."""
        left = float("inf") if until is None else until - monotonic()
        if left <= 0:
            raise TimeoutError(f"run {self.span_id}: nothing came from the model in time; the run goes on")
        return left

    def _has_news(self) -> bool:
        outcome = self.outcome
        return len(self.session.events) > self.credit.taken or outcome.has_ended or outcome.is_aborted


def _resolve(references: list[weakref.ref[Any]], result: ResultOrError) -> None:
    for reference in references:
        if (future := reference()) is not None:
            with contextlib.suppress(Exception):  # its holder has resolved it already; the others must not suffer
                future.resolve(result)
