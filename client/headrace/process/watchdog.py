"""Ends every run in time, whatever becomes of the I/O thread; the rule that all of the client keeps is stated here.

A run ends within its total timeout plus 5 s, at its caller, with a result or a HeadraceError. The total timeout is the run's
own or the engine's. In detail:

1.  What a callback raises on the I/O thread (SystemExit too) ends the runs that it was about, and the thread goes on:
    one run where the callback was about one, else all runs of the connection (``connections/engine_runs.py``).
2.  An I/O thread that ends, for whatever reason, ends all its runs first; the next call starts another (``connections/client_process.py``). Where
    none can be started, and once Headrace's exit handler has run, the call raises EngineUnavailableError at once.
3.  Users' code does not run on the I/O thread: callbacks and log handlers have threads of their own (``process/callbacks.py``).
    Python may still run a finalizer there; a call in it that would wait raises at once.
4.  An I/O thread that is blocked, by such a finalizer or anything else, ends no run. This module's thread does then,
    and so does any thread that waits for a run (``delivery.py``): neither waits for the I/O thread, nor for the other.
5.  Whoever comes first decides the outcome, and it never changes: a late I/O thread only has the worker stop.

The thread wakes once a second while there are runs, and not at all while there are none. It never runs users' code.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from headrace.process.clock import monotonic

LOOK_AFTER = 1.0
"""Seconds after which a waiting thread looks at the clock. A run's bound is at least 5 s away when it begins."""


class Bounded(Protocol):
    """A run, as the watchdog sees it."""

    bound: float

    def look(self, now: float) -> None:
        """End the run if its bound has passed. Of no effect on a run that has ended."""


class Alarm:
    """Wakes one thread. Safe in a signal handler, where an Event is not."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        """Wake the thread that waits, or the next that would wait."""
        with contextlib.suppress(RuntimeError):  # twice is once
            self._lock.release()

    def wait(self, timeout: float = -1) -> bool:
        """Wait until woken, at most ``timeout`` seconds (-1: for ever); return whether it was woken."""
        return self._lock.acquire(timeout=timeout)


class Watchdog:
    """The thread. ``runs`` returns the runs that have not ended."""

    def __init__(self, runs: Callable[[], Iterable[Bounded]]) -> None:
        self._runs = runs
        self._alarm = Alarm()
        self._thread: threading.Thread | None = None
        self._is_idle = False
        self._is_stopping = False

    def start(self) -> None:
        """Start the thread unless it runs. Where it cannot be started, waiting threads still keep the bound."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._watch, name="headrace-watchdog", daemon=True)
            with contextlib.suppress(RuntimeError):
                self._thread.start()

    def run_added(self) -> None:
        """There is a run to look after. Safe from any thread or signal handler."""
        if self._is_idle:
            self._is_idle = False
            self._alarm.wake()

    def stop(self) -> None:
        """Have the thread end."""
        self._is_stopping = True
        self._alarm.wake()

    def look(self, now: float) -> float | None:
        """Look at all runs; return the seconds until the next look, None where there is no run."""
        # Set before the runs are read: a run that is added meanwhile is either among them or wakes the thread.
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
