"""Starts the I/O thread of a client: the only thread of a program that speaks to engines.

Its loop is in ``transport/reactor.py``. The thread makes its loop itself: under gevent (``patch_all(thread=False)``) a
selector serves only the thread that made it. The caller waits until the loop exists, because the thread may end before
that: a hook of ``threading.settrace`` or ``threading.setprofile`` runs first, and may raise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from headrace.process.callbacks import mark_io_thread
from headrace.process.clock import monotonic
from headrace.process.watchdog import Alarm
from headrace.transport.reactor import Reactor

_LOOK_AFTER = 0.1
"""Seconds after which the caller checks whether the new thread has ended: a thread that ends early does not wake it."""
_START_TIMEOUT = 30.0
"""Seconds that a caller waits for the loop of the new thread."""


class _Start:
    """What the caller and the new thread share during the start."""

    def __init__(self, serve: Callable[[Reactor], None]) -> None:
        self._serve = serve
        self._reactor: Reactor | None = None
        self._error: BaseException | None = None
        self._alarm = Alarm()
        self._is_cancelled = False

    def run(self) -> None:
        """Be the I/O thread."""
        mark_io_thread()
        try:
            self._reactor = reactor = Reactor()
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            self._error = error
            return
        finally:
            self._alarm.wake()
        if self._is_cancelled:
            reactor.stop()
        self._serve(reactor)

    def reactor(self, thread: threading.Thread) -> Reactor:
        """Wait for the loop of ``thread``.

        Raises the error of making it; RuntimeError where the thread ended, or is too slow.
        """
        until = monotonic() + _START_TIMEOUT
        while not self._alarm.wait(_LOOK_AFTER) and thread.is_alive() and monotonic() < until:
            pass
        if self._error is not None:
            raise self._error
        if self._reactor is None:
            what = f"did not start within {_START_TIMEOUT:g} s" if thread.is_alive() else "ended as soon as it began"
            raise RuntimeError(f"the new thread {what}")
        return self._reactor

    def cancel(self) -> None:
        """Have the thread end. Its caller was interrupted, or has waited for too long."""
        self._is_cancelled = True
        if self._reactor is not None:
            self._reactor.stop()


def start_io_thread(serve: Callable[[Reactor], None]) -> tuple[Reactor, threading.Thread]:
    """Start an I/O thread. It makes a loop, and calls ``serve`` with it. Returns the loop and the thread.

    Raises OSError where no descriptor is left for the loop; RuntimeError where the thread cannot start.
    """
    start = _Start(serve)
    thread = threading.Thread(target=start.run, name="headrace-io", daemon=True)
    thread.start()
    try:
        return start.reactor(thread), thread
    except BaseException:
        start.cancel()
        raise
