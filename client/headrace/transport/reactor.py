"""A small event loop for one thread that owns sockets: readable and writable descriptors, calls from other threads, timers.

The client's I/O thread, the broker, the collector and the supervisor run on it. It never runs users' code.
:class:`GuardedLoop` is the same loop for one connection of a client.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import selectors
from collections import deque
from collections.abc import Callable
from functools import partial

from headrace.process.callbacks import log
from headrace.process.clock import monotonic

logger = logging.getLogger(__name__)

_MAX_WAIT = 3600.0

_Watched = tuple[Callable[[], None] | None, Callable[[], None] | None]
"""What to run when a descriptor is readable, and when it takes bytes."""
_NOTHING: _Watched = (None, None)


class Reactor:
    """Runs callbacks when descriptors are readable or take bytes, when a thread asks for it, and when a timer is due."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, _Watched] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self.add_reader(self._wake_read, self._clear_wake)
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_count = 0
        self._turn_end: list[Callable[[], None]] = []
        # True while the thread waits for work. Only then must another thread write a wake-up.
        self._is_idle = False
        self._is_stopping = False
        self.has_ended = False
        """Whether :meth:`run` has returned or raised. Then the loop runs no more callbacks."""

    def call(self, action: Callable[[], None]) -> None:
        """Run ``action`` on the loop's thread soon. Safe from any thread, a signal handler or a finalizer."""
        self._calls.append(action)
        if self._is_idle:
            self._is_idle = False
            self.wake()

    call_soon = call  # asyncio's name

    def wake(self) -> None:
        """End the present wait. If the pipe is full, another wake-up is on its way."""
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"\0")

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` once ``time.monotonic()`` reaches ``when``. From the loop's thread only."""
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, action))

    def call_later(self, delay: float, action: Callable[[], None]) -> None:
        """Run ``action`` in ``delay`` seconds. From the loop's thread only."""
        self.call_at(monotonic() + delay, action)

    def each_turn(self, action: Callable[[], None]) -> None:
        """Run ``action`` at the end of each turn of the loop."""
        self._turn_end.append(action)

    def remove_each_turn(self, action: Callable[[], None]) -> None:
        """Undo :meth:`each_turn`. An unknown action is ignored."""
        self._turn_end = [known for known in self._turn_end if known != action]

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
        events = (selectors.EVENT_READ if reader is not None else 0) | (
            selectors.EVENT_WRITE if writer is not None else 0
        )
        if not events:
            self._watched.pop(fd, None)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(fd)
            return
        actions = reader, writer
        if fd in self._watched:
            self._selector.modify(fd, events, actions)
        else:
            self._selector.register(fd, events, actions)
        self._watched[fd] = actions

    def stop(self) -> None:
        """Make :meth:`run` return. Safe from any thread."""
        self._is_stopping = True
        self.wake()

    def run(self) -> None:
        """Run until :meth:`stop`, then close. What callbacks raise is logged. Raises only what ends the loop itself."""
        try:
            while not self._is_stopping:
                self.turn()
        finally:
            self.has_ended = True
            self.close()

    def turn(self) -> None:
        """Wait for work, and run the callbacks that are due: one turn of the loop."""
        self._is_idle = True
        wait = 0.0 if self._calls else self._wait()
        ready = self._selector.select(wait)
        self._is_idle = False
        for key, events in ready:
            # An earlier callback of this turn may have closed the descriptor, and even have opened another one with the same number.
            reader, writer = key.data
            if reader is not None and events & selectors.EVENT_READ and self._watched.get(key.fd) is key.data:
                self._guard(reader)
            if writer is not None and events & selectors.EVENT_WRITE and self._watched.get(key.fd) is key.data:
                self._guard(writer)
        for _ in range(len(self._calls)):
            self._guard(self._calls.popleft())
        self._run_timers()
        for action in self._turn_end:
            self._guard(action)

    def close(self) -> None:
        """Release the descriptors; may be called twice."""
        self._selector.close()
        # Forget the numbers before the descriptors are closed: a late wake-up must not write into another file with that number.
        descriptors, self._wake_read, self._wake_write = (self._wake_read, self._wake_write), -1, -1
        for fd in descriptors:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _wait(self) -> float:
        if not self._timers:
            return _MAX_WAIT
        return min(max(self._timers[0][0] - monotonic(), 0.0), _MAX_WAIT)

    def _run_timers(self) -> None:
        if not self._timers:
            return
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
            log(logger, logging.ERROR, "callback failed", error=error)


class GuardedLoop:
    """A loop for one connection: ``failed`` is called with whatever a callback raises, and the loop goes on.

    That includes SystemExit and KeyboardInterrupt, which must not end the I/O thread.
    """

    def __init__(self, reactor: Reactor, failed: Callable[[BaseException], None]) -> None:
        self._reactor = reactor
        self._failed = failed
        self.remove_reader = reactor.remove_reader
        self.remove_writer = reactor.remove_writer

    @property
    def has_ended(self) -> bool:
        """Whether the loop has ended. Then it runs no more callbacks."""
        return self._reactor.has_ended

    def call(self, action: Callable[[], None]) -> None:
        """Run ``action`` on the loop's thread soon. Safe from any thread, a signal handler or a finalizer."""
        self._reactor.call(partial(self.run, action))

    call_soon = call  # asyncio's name

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` once ``time.monotonic()`` reaches ``when``. From the loop's thread only."""
        self._reactor.call_at(when, partial(self.run, action))

    def call_later(self, delay: float, action: Callable[[], None]) -> None:
        """Run ``action`` in ``delay`` seconds. From the loop's thread only."""
        self._reactor.call_later(delay, partial(self.run, action))

    def add_reader(self, fd: int, action: Callable[[], None]) -> None:
        """Run ``action`` whenever ``fd`` is readable, until ``remove_reader``."""
        self._reactor.add_reader(fd, partial(self.run, action))

    def add_writer(self, fd: int, action: Callable[[], None]) -> None:
        """Run ``action`` whenever ``fd`` takes bytes, until ``remove_writer``."""
        self._reactor.add_writer(fd, partial(self.run, action))

    def each_turn(self, action: Callable[[], None]) -> Callable[[], None]:
        """Run ``action`` at the end of each turn of the loop. Call the returned function to undo this."""
        guarded = partial(self.run, action)
        self._reactor.each_turn(guarded)
        return partial(self._reactor.remove_each_turn, guarded)

    def run(self, action: Callable[[], None]) -> None:
        """Run ``action`` now."""
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - a promise of the class
            with contextlib.suppress(BaseException):
                self._failed(error)
