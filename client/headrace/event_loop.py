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
