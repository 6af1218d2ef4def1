"""The client's event loop as one connection sees it: whatever a callback raises ends that connection's runs, and not the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from headrace.transport.reactor import Reactor


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

    def call_now(self, action: Callable[[], None]) -> None:
        """Run ``action`` as soon as possible. See :meth:`Reactor.call_now`."""
        self._reactor.call_now(partial(self.run, action))

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

    def at_turn_end(self, action: Callable[[], None]) -> None:
        """Run ``action`` once, at the end of the present turn. In a turn only."""
        self._reactor.at_turn_end(partial(self.run, action))

    def run(self, action: Callable[[], None]) -> None:
        """Run ``action`` now."""
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - a promise of the class
            with contextlib.suppress(BaseException):
                self._failed(error)
