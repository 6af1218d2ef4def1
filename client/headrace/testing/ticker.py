"""Timers for many streams: one timer of the event loop for all callbacks of the same millisecond."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

_TICKS_PER_SECOND = 1000  # the loop's own resolution


class Ticker:
    """Calls callbacks at given times of the loop.

    A callback cannot be cancelled: it must check whether it is still needed.
    """

    __slots__ = ("_due", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._due: dict[int, list[Callable[[], None]]] = {}

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` at ``when`` (seconds, ``loop.time()``) or up to a millisecond later."""
        tick = math.ceil(when * _TICKS_PER_SECOND)
        callbacks = self._due.get(tick)
        if callbacks is not None:
            callbacks.append(callback)
            return
        self._due[tick] = [callback]
        self.loop.call_at(tick / _TICKS_PER_SECOND, self._fire, tick)

    def _fire(self, tick: int) -> None:
        for callback in self._due.pop(tick):
            callback()
