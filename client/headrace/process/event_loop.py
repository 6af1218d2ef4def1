"""The interface of an event loop. The reactor, asyncio's loops and the simulator's loops have its methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class EventLoop(Protocol):
    """An event loop. The names and the order of the arguments are asyncio's. To be used on the loop's thread only."""

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> object:
        """Call ``callback`` whenever the descriptor ``fd`` is readable."""

    def remove_reader(self, fd: int, /) -> object:
        """Undo :meth:`add_reader`. An unknown descriptor is ignored."""

    def add_writer(self, fd: int, callback: Callable[[], None], /) -> object:
        """Call ``callback`` whenever the descriptor ``fd`` takes bytes."""

    def remove_writer(self, fd: int, /) -> object:
        """Undo :meth:`add_writer`. An unknown descriptor is ignored."""

    def call_soon(self, callback: Callable[[], None], /) -> object:
        """Call ``callback`` in the next turn of the loop."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object:
        """Call ``callback`` in ``delay`` seconds."""


class CallingLoop(EventLoop, Protocol):
    """An event loop with methods that asyncio's loops do not have: the reactor and the simulator's reactor."""

    def call(self, action: Callable[[], None], /) -> None:
        """Call ``action`` soon. May be called from any thread."""

    def at_turn_end(self, action: Callable[[], None], /) -> None:
        """Call ``action`` once, at the end of the present turn."""

    def call_at(self, when: float, action: Callable[[], None], /) -> None:
        """Call ``action`` once ``time.monotonic()`` reaches ``when``."""
