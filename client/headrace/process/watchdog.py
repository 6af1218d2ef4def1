"""Ends every run in time, even if the client's I/O thread hangs or has ended. The rule for the whole client is stated here.

Each run ends for its caller within its total timeout plus 5 s, with a result or a HeadraceError. The total timeout is the run's own,
or the engine's. In detail:

1.  If a callback raises on the I/O thread (SystemExit too), the runs of that callback end, and the thread goes on. If the callback
    was not about one run, all runs of the connection end (``connections/engine_runs.py``).
2.  If the I/O thread ends, for whatever reason, it ends all its runs first. The next call starts another thread
    (``connections/client_process.py``). If none can be started, or if Headrace's exit handler has run, the call raises
    EngineUnavailableError at once.
3.  Users' code does not run on the I/O thread: callbacks and log handlers have separate threads (``process/callbacks.py``). Python
    may still run a finalizer there. A call in it that would wait raises at once.
    The event loop of a caller may do the work of the I/O thread for a while (``transport/guest_loop.py``). The same holds then: it
    runs no users' code in it. What a signal handler raises there reaches the program, after the runs that it has disturbed have ended.
4.  If the I/O thread is blocked, for example by such a finalizer, it ends no run. Then the thread of this module ends the run, and
    so does any thread that waits for the run (``runs/delivery.py``). Neither waits for the I/O thread or for the other.
5.  The first of them decides the outcome, and it never changes. An I/O thread that is late only tells the worker to stop.

The thread wakes once a second while there are runs, and not at all while there are none. It never runs users' code.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from headrace.process.clock import monotonic

LOOK_AFTER = 1.0
"""Seconds between two looks of a waiting thread at the clock. When a run begins, its bound is at least 5 s away."""


class Bounded(Protocol):
    """A run, as the watchdog sees it."""

    bound: float
    """The time at which the run must end, by the monotonic clock."""

    def look(self, now: float) -> None:
        """End the run if its bound has passed. This does nothing if the run has ended."""


class Alarm:
    """Wakes one thread. A signal handler may use it; it may not use ``threading.Event``."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        """Wake the thread that waits, or the next thread that would wait."""
        try:  # noqa: SIM105 - a chunk of a stream comes here
            self._lock.release()
        except RuntimeError:
            pass  # it was woken already

    def wait(self, timeout: float = -1) -> bool:
        """Wait until :meth:`wake`, at most ``timeout`` seconds (-1: no limit). Return whether it was woken."""
        return self._lock.acquire(timeout=timeout)


class Watchdog:
    """A thread that ends runs whose bound has passed. ``runs`` returns the runs that have not ended."""

    def __init__(self, runs: Callable[[], Iterable[Bounded]]) -> None:
        self._runs = runs
        self._alarm = Alarm()
        self._thread: threading.Thread | None = None
        self._is_idle = False
        self._is_stopping = False

    def start(self) -> None:
        """Start the thread if it does not run. If it cannot be started, threads that wait for runs still keep the bound."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._watch, name="headrace-watchdog", daemon=True)
            with contextlib.suppress(RuntimeError):
                self._thread.start()

    def run_added(self) -> None:
        """A run was added. May be called from any thread or signal handler."""
        if self._is_idle:
            self._is_idle = False
            self._alarm.wake()

    def stop(self) -> None:
        """Tell the thread to end."""
        self._is_stopping = True
        self._alarm.wake()

    def look(self, now: float) -> float | None:
        """End the runs whose bound has passed. Return the seconds until the next look, or None if there is no run."""
        # Set this before the runs are read. Then a run that is added meanwhile is either among them, or wakes the thread.
        self._is_idle = True
        runs = list(self._runs())
        if not runs:
            return None
        self._is_idle = False
        for run in runs:
            if run.bound <= now:
                run.look(now)
        ahead = [run.bound - now for run in runs if run.bound > now]
        return min([LOOK_AFTER, *ahead])

    def _watch(self) -> None:
        while not self._is_stopping:
            wait = self.look(monotonic())
            self._alarm.wait(-1 if wait is None else wait)
