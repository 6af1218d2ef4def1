"""A small event loop for one thread that owns sockets: readable and writable descriptors, calls from other threads, timers.

The client's I/O thread, the broker, the collector and the supervisor run on it. It never runs users' code.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from headrace.process.callbacks import log, thread_marks
from headrace.process.clock import monotonic
from headrace.process.own_process import own_process
from headrace.process.watchdog import Alarm
from headrace.transport.guest_loop import GUEST_CHECK, GUEST_GRACE, GuestLoop, Offers

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger(__name__)

_MAX_WAIT = 3600.0
_NEVER = float("-inf")

_Watched = tuple[Callable[[], None] | None, Callable[[], None] | None]
"""What to run when a descriptor is readable, and when it takes bytes."""
_NOTHING: _Watched = (None, None)
_READ, _WRITE = select.EPOLLIN | select.EPOLLPRI, select.EPOLLOUT
_IS_READABLE = ~select.EPOLLOUT
_TAKES_BYTES = ~select.EPOLLIN
"""An error or the end of a connection is reported to the reader and to the writer, as Python's selectors do."""
_MAX_END_ACTIONS = 100
"""Actions at the end of one turn. One that always adds itself again does not keep the thread."""


class Reactor:
    """Runs callbacks when descriptors are readable or take bytes, when a thread asks for it, and when a timer is due.

    Callbacks run one after the other, in turns. One thread at a time has a turn. Usually it is the thread of :meth:`run`. While the
    reactor has a guest (``guest_loop.py``), the guest's thread reads the descriptors, and the thread of :meth:`run` runs the timers
    and the calls of other threads. It takes all turns back when the guest is absent.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, _Watched] = {}
        self._gone: set[int] = set()
        """Descriptors that are not watched any more since the last turn began. What the kernel has said about them counts no more."""
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.add_reader(self._wake_read, self._clear_wake)
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_count = 0
        self._each_turn: list[Callable[[], None]] = []
        self._turn_end: list[Callable[[], None]] = []
        self._turn = threading.Lock()
        """Held by the thread that has a turn."""
        # True while nobody has a turn. Only then must another thread wake whoever has the next one.
        self._is_idle = False
        self._is_stopping = False
        self._alarm = Alarm()
        """Wakes the thread of :meth:`run` while the reactor has a guest."""
        self._watches_until = _NEVER
        """When that thread wakes by itself."""
        self._offers = Offers()
        # Only the thread of run() changes the guest. A candidate is the guest once that thread has left its wait.
        self._guest: GuestLoop | None = None
        self._guest_loop: asyncio.AbstractEventLoop | None = None
        self._candidate: GuestLoop | None = None
        self.turn_loop: asyncio.AbstractEventLoop | None = None
        """The guest's event loop while it has a turn, else None: the loop whose thread this is."""
        self._look_at = 0.0
        """When that thread looks next whether the guest has had a turn."""
        self._turns_seen = 0
        self._guests: WeakKeyDictionary[asyncio.AbstractEventLoop, GuestLoop] = WeakKeyDictionary()
        self.has_ended = False
        """Whether :meth:`run` has returned or raised. Then the loop runs no more callbacks."""

    def call(self, action: Callable[[], None]) -> None:
        """Run ``action`` on the loop's thread soon. Safe from any thread, a signal handler or a finalizer."""
        self._calls.append(action)
        if self._is_idle:
            self._wake_next()

    call_soon = call  # asyncio's name

    def call_now(self, action: Callable[[], None]) -> None:
        """As :meth:`call`, and do not wait for a guest: it may be about to do something else."""
        self._calls.append(action)
        if self._guest is not None:
            self._alarm.wake()
        elif self._is_idle:
            self._wake_next()

    def _wake_next(self) -> None:
        """Wake whoever has the next turn."""
        guest = self._guest
        if guest is None:
            self._is_idle = False
            self.wake()
        elif not guest.come_soon():
            self._alarm.wake()

    def wake(self) -> None:
        """End the present wait. If the pipe is full, another wake-up is on its way."""
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"\0")

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` once ``time.monotonic()`` reaches ``when``. In a turn only."""
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, action))
        if when < self._watches_until:
            self._watches_until = when
            self._alarm.wake()

    def call_later(self, delay: float, action: Callable[[], None]) -> None:
        """Run ``action`` in ``delay`` seconds. In a turn only."""
        self.call_at(monotonic() + delay, action)

    def each_turn(self, action: Callable[[], None]) -> None:
        """Run ``action`` at the end of each turn of the loop."""
        self._each_turn.append(action)

    def at_turn_end(self, action: Callable[[], None]) -> None:
        """Run ``action`` once, at the end of the present turn. In a turn only."""
        self._turn_end.append(action)

    def add_reader(self, fd: int, action: Callable[[], None]) -> None:
        """Run ``action`` whenever ``fd`` is readable, until :meth:`remove_reader`."""
        self._watch(fd, action, self._watched.get(fd, _NOTHING)[1])

    def remove_reader(self, fd: int) -> None:
        """Undo :meth:`add_reader`. An unknown descriptor is ignored."""
        self._watch(fd, None, self._watched.get(fd, _NOTHING)[1])

    def add_writer(self, fd: int, action: Callable[[], None]) -> None:
        """Run ``action`` whenever ``fd`` takes bytes, until :meth:`remove_writer`."""
        self._watch(fd, self._watched.get(fd, _NOTHING)[0], action)

    def remove_writer(self, fd: int) -> None:
        """Undo :meth:`add_writer`. An unknown descriptor is ignored."""
        self._watch(fd, self._watched.get(fd, _NOTHING)[0], None)

    def _watch(self, fd: int, reader: Callable[[], None] | None, writer: Callable[[], None] | None) -> None:
        events = (_READ if reader is not None else 0) | (_WRITE if writer is not None else 0)
        if not events:
            if self._watched.pop(fd, None) is not None:
                self._gone.add(fd)
                with contextlib.suppress(OSError, ValueError):  # it was closed already, or the reactor was
                    self._epoll.unregister(fd)
            return
        if fd in self._watched:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._watched[fd] = reader, writer

    def stop(self) -> None:
        """Make :meth:`run` return. Safe from any thread."""
        self._is_stopping = True
        self.wake()
        self._alarm.wake()

    def run(self) -> None:
        """Run until :meth:`stop`, then close. What callbacks raise is logged. Raises only what ends the loop itself."""
        try:
            while not self._is_stopping:
                if self._guest is None:
                    self.turn()
                    self._take_guest()
                else:
                    self._watch_guest(self._guest)
        finally:
            self._guest = self._guest_loop = None
            self.has_ended = True
            with self._turn:  # a guest may have its last turn
                self.close()

    def turn(self) -> None:
        """Wait for work, and run the callbacks that are due: one turn of the loop."""
        self._is_idle = True
        ready = self._epoll.poll(0.0 if self._calls else self._wait())
        with self._turn:
            self._is_idle = False
            self._run(ready)

    def _run(self, ready: Sequence[tuple[int, int]], *, is_guests: bool = False) -> None:
        """Run the callbacks that are due. A guest leaves the timers out: an exception of a signal handler must not lose one."""
        watched, gone = self._watched, self._gone
        if gone:
            gone.clear()
        for fd, events in ready:
            # An earlier callback of this turn may have closed the descriptor, and even have opened another one with the same number.
            reader = None if fd in gone else watched.get(fd, _NOTHING)[0]
            if reader is not None and events & _IS_READABLE:
                try:  # as _guard does: there is a read for each chunk
                    reader()
                except Exception as error:  # noqa: BLE001 - any exception
                    _log_failure(error)
            if events & _TAKES_BYTES and fd not in gone and (writer := watched.get(fd, _NOTHING)[1]) is not None:
                self._guard(writer)
        if self._calls:
            self._run_calls()
        if self._timers and not is_guests:
            self._run_timers()
        for action in self._each_turn:
            self._guard(action)
        if self._turn_end:
            self._end_turn()

    def _end_turn(self) -> None:
        actions = self._turn_end
        for _ in range(_MAX_END_ACTIONS):
            if not actions:
                return
            self._guard(actions[0])
            del actions[
                0
            ]  # only now: if a signal handler of the program has raised, the next turn has the action again

    def _run_calls(self) -> None:
        calls = self._calls
        for _ in range(len(calls)):
            action = calls.popleft()
            try:
                self._guard(action)
            except BaseException:
                # A signal handler of the program has raised in the thread of the guest. The action may not have run.
                calls.appendleft(action)
                raise

    # A guest: see guest_loop.py.

    def offer(self, loop: asyncio.AbstractEventLoop) -> None:
        """A task was woken by another thread, or will be. Make its event loop, which runs in this thread, the guest if that saves time."""
        if self._guest is not None or not self._offers.is_enough(monotonic) or self._candidate is not None:
            return
        guest = self._guests.get(loop)
        if guest is None:
            try:
                guest = self._guests[loop] = GuestLoop(loop, self._epoll.fileno(), self.guest_turn)
            except (OSError, TypeError):
                return  # there is no descriptor, or the loop is of a kind that cannot be a key
        if guest.begin(monotonic()):
            self._candidate = guest
            self.wake()

    def _take_guest(self) -> None:
        """Have the candidate as the guest."""
        guest, self._candidate = self._candidate, None
        if guest is not None:
            self._guest_loop = guest.loop()
            self._guest = guest
            self._look_at = monotonic() + GUEST_CHECK
            self._turns_seen = guest.turns
            self._is_idle = True
            if self._calls:
                self._alarm.wake()

    def guest_turn(self, guest: GuestLoop) -> None:
        """Have a turn in the guest's thread. If ``guest`` is not the guest any more, it leaves.

        If a signal handler of the program raises KeyboardInterrupt or SystemExit meanwhile, so does this.
        """
        guest.turns += 1
        if guest.pid != own_process.pid:
            guest.leave()
            return
        marks = thread_marks
        if self._turn.locked() or marks.is_io_thread:
            return  # another thread has a turn, or a finalizer in a turn of this thread has run the loop
        # A signal handler may raise between any two steps here: so each step that must not be left out is the first of a block.
        with self._turn:
            if guest is not self._guest:
                if guest is not self._candidate:
                    guest.leave()
                return
            try:
                marks.is_io_thread = True
                self.turn_loop = self._guest_loop
                self._is_idle = False
                self._run(self._epoll.poll(0.0), is_guests=True)
            finally:
                marks.is_io_thread = False
                self.turn_loop = None
                self._is_idle = True
        if self._calls:
            self._wake_next()
        interrupt = marks.interrupt
        if interrupt is not None:
            marks.interrupt = None
            raise interrupt

    def _watch_guest(self, guest: GuestLoop) -> None:
        """Run timers and the calls of other threads. Look now and then whether the guest has its turns, however many of them there are."""
        now = monotonic()
        wait = max(min(self._wait(), self._look_at - now), 0.0)
        self._watches_until = now + wait
        is_called = self._alarm.wait(wait)
        self._watches_until = _NEVER
        if is_called or self._wait() <= 0.0:
            self._own_turn()
        now = monotonic()
        if now < self._look_at:
            return
        self._look_at = now + GUEST_CHECK
        turns, self._turns_seen = self._turns_seen, guest.turns
        if guest.turns == turns and self._has_work():
            self._alarm.wait(GUEST_GRACE)
            if guest.turns == turns:
                guest.was_absent()
                self._take_back()
        elif guest.is_quiet(now):
            self._take_back()

    def _own_turn(self) -> None:
        """Run what does not come from descriptors."""
        with self._turn:
            self._is_idle = False
            self._run(())
            self._is_idle = True
        if self._calls:
            self._alarm.wake()

    def _has_work(self) -> bool:
        return bool(self._calls) or bool(self._epoll.poll(0.0))

    def _take_back(self) -> None:
        self._guest = self._guest_loop = None
        self._offers.pause(monotonic())

    def close(self) -> None:
        """Release the descriptors; may be called twice."""
        self._epoll.close()
        # Forget the numbers before the descriptors are closed: a late wake-up must not write into another file with that number.
        descriptors, self._wake_read, self._wake_write = (self._wake_read, self._wake_write), -1, -1
        for fd in descriptors:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _wait(self) -> float:
        first = self._timers[:1]  # the guest may remove it meanwhile
        return min(max(first[0][0] - monotonic(), 0.0), _MAX_WAIT) if first else _MAX_WAIT

    def _run_timers(self) -> None:
        now = monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._guard(heapq.heappop(self._timers)[2])

    def _clear_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, 4096):
                pass

    def _guard(self, action: Callable[[], None]) -> None:
        """Run one callback. An exception is logged, and does not end the loop."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - any exception
            _log_failure(error)


def _log_failure(error: Exception) -> None:
    log(logger, logging.ERROR, "callback failed", error=error)
