"""The asyncio loop of a caller that reads the client's sockets itself, as the guest of the Reactor: no read wakes a second thread.

A guest's loop watches a copy of the reactor's epoll descriptor. It is readable when any socket of the reactor is readable.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.process.own_process import own_process

if TYPE_CHECKING:
    import asyncio

GUEST_CHECK = 0.1
"""Seconds between two looks at the guest. A loop that is blocked by its program delays other threads' streams by this, once."""
GUEST_GRACE = 0.005
"""Seconds that the guest has for input that was there at such a look."""
_OFFERS = 8
_OFFER_TIME = 0.1
"""So many offers within so many seconds make a loop the guest. Below that rate, the looks would cost more than they save."""
_QUIET_TIME = 1.0
_QUIET_TURNS = 10
"""With fewer turns in so many seconds, a guest leaves."""
_PAUSE = 0.05
"""Seconds without a guest after one has left."""
_MAX_FAILURES = 3
"""A loop that has been the guest so many times without any turn is not asked again: it does not watch the descriptor."""


class Offers:
    """Says when loops are offered so often that a guest saves time. Pure."""

    def __init__(self) -> None:
        self._count = 0
        self._since = 0.0
        self._not_before = 0.0

    def is_enough(self, clock: Callable[[], float]) -> bool:
        """Count an offer. Return whether there were many in a short time."""
        self._count += 1
        if self._count < _OFFERS:
            return False
        now = clock()
        self._count = 0
        since, self._since = self._since, now
        return now - since <= _OFFER_TIME and now >= self._not_before

    def pause(self, now: float) -> None:
        """A guest has left."""
        self._not_before = now + _PAUSE


class GuestLoop:
    """One event loop that may be the guest. ``turn`` has a turn of the reactor; or calls :meth:`leave` if this loop is not the guest any more.

    Its methods are called in the loop's thread, except ``come_soon``, ``is_quiet`` and ``was_absent``. Raises OSError if there is
    no descriptor.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, turn: Callable[[GuestLoop], None]) -> None:
        self.loop = weakref.ref(loop)
        self._turn = turn
        self.pid = own_process.pid
        """The process of the reactor. A forked child must not touch it."""
        # The loop keeps this object as long as it watches the descriptor. So the number is not used for another file meanwhile.
        self._fd = os.dup(fd)
        self._is_registered = False
        self._is_scheduled = False
        self._thread = 0
        self._failures = 0
        self._turns_at_begin = 0
        self._turns_at_look = 0
        self._looked_at = 0.0
        self.turns = 0
        """How many turns the guest has had."""

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._fd)

    def begin(self, now: float) -> bool:
        """Watch the descriptor from now on. Return False if the loop cannot."""
        loop = self.loop()
        if loop is None or self._failures >= _MAX_FAILURES:
            return False
        self._thread = threading.get_ident()
        self._is_scheduled = False
        self._turns_at_begin = self._turns_at_look = self.turns
        self._looked_at = now
        if not self._is_registered:
            try:
                loop.add_reader(self._fd, self._turn, self)
            except Exception:  # noqa: BLE001 - a loop of any make; some cannot watch descriptors
                self._failures = _MAX_FAILURES
                return False
            self._is_registered = True
        return True

    def come_soon(self) -> bool:
        """Have a turn soon. Return False in another thread than the loop's, where that cannot be arranged."""
        if threading.get_ident() != self._thread:
            return False
        if not self._is_scheduled:
            loop = self.loop()
            try:
                if loop is None:
                    return False
                loop.call_soon(self._come)
            except Exception:  # noqa: BLE001 - the loop is closed
                return False
            self._is_scheduled = True
        return True

    def is_quiet(self, now: float) -> bool:
        """Return whether the guest has had few turns lately."""
        if now - self._looked_at < _QUIET_TIME:
            return False
        count = self.turns - self._turns_at_look
        self._turns_at_look, self._looked_at = self.turns, now
        return count < _QUIET_TURNS

    def was_absent(self) -> None:
        """The guest did not take its turn in time."""
        self._failures = self._failures + 1 if self.turns == self._turns_at_begin else 0

    def leave(self) -> None:
        """Do not watch the descriptor any more."""
        if self._is_registered:
            self._is_registered = False
            if (loop := self.loop()) is not None:
                loop.remove_reader(self._fd)

    def _come(self) -> None:
        self._is_scheduled = False
        self._turn(self)  # if this is not the guest any more, the reactor's own thread has made the calls
