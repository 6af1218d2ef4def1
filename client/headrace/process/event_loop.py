"""What is needed of an event loop: the reactor has it, asyncio's loops have it, the simulator's too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class EventLoop(Protocol):
    """The names and the order of arguments are asyncio's."""

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> object:
        """Call whenever ``fd`` is readable."""

    def remove_reader(self, fd: int, /) -> object:
        """Do so no more."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> object:
        """Call in ``delay`` seconds."""


class CallingLoop(EventLoop, Protocol):
    """What only the reactor has, its guarded form and the simulator's."""

    def call(self, action: Callable[[], None], /) -> None:
        """Call soon; from any thread."""

    def call_at(self, when: float, action: Callable[[], None], /) -> None:
        """Call once ``time.monotonic()`` reaches ``when``."""
