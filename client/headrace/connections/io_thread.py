"""Starts the I/O thread of a client, the only thread of a program that speaks to engines. Its loop is in ``transport/reactor.py``.

The thread makes its loop itself: under gevent (``patch_all(thread=False)``) a selector serves only the thread that made it. The
caller waits until the loop is there, because a thread can end before: a hook of ``threading.settrace`` or
``threading.setprofile`` runs first, and may raise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from headrace.process.callbacks import mark_io_thread
from headrace.process.clock import monotonic
from headrace.process.watchdog import Alarm
from headrace.transport.reactor import Reactor

_LOOK_AFTER = 0.1
"""Seconds after which a thread that starts is looked at: one that has ended wakes nobody."""
_START_TIMEOUT = 30.0
"""Seconds that a caller waits for the loop of the new thread."""


class _Start:
    """What the caller and the new thread tell each other."""

    def __init__(self, serve: Callable[[Reactor], None]) -> None:
        self._serve = serve
        self._reactor: Reactor | None = None
        self._error: BaseException | None = None
        self._alarm = Alarm()
        self._is_given_up = False

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
        if self._is_given_up:
            reactor.stop()
        self._serve(reactor)

    def reactor(self, thread: threading.Thread) -> Reactor:
        """Wait for the loop that ``thread`` makes. Raises what making it raised, RuntimeError when there is none."""
        until = monotonic() + _START_TIMEOUT
        while not self._alarm.wait(_LOOK_AFTER) and thread.is_alive() and monotonic() < until:
            pass
        if self._error is not None:
            raise self._error
        if self._reactor is None:
            what = f"did not get on for {_START_TIMEOUT:g} s" if thread.is_alive() else "ended as soon as it began"
            raise RuntimeError(f"the new thread {what}")
        return self._reactor

    def give_up(self) -> None:
        """Have the thread end: its caller was interrupted, or waited for too long."""
        self._is_given_up = True
        if self._reactor is not None:
            self._reactor.stop()


def start_io_thread(serve: Callable[[Reactor], None]) -> tuple[Reactor, threading.Thread]:
    """Start an I/O thread, which makes a loop and calls ``serve`` with it. Returns once the loop is there.

    Raises OSError where no descriptor is left for the loop, RuntimeError where the thread cannot start.
    """
    start = _Start(serve)
    thread = threading.Thread(target=start.run, name="headrace-io", daemon=True)
    thread.start()
    try:
        return start.reactor(thread), thread
    except BaseException:
        start.give_up()
        raise
