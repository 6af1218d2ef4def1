"""A timer that acts at the earliest deadline it was told of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from headrace.process.event_loop import CallingLoop


class DeadlineTimer:
    """Calls ``act`` at a deadline that may change. To be used on the loop's thread only.

    An earlier deadline replaces the one that is set. A later one does not: ``act`` is called at the earlier time, finds
    nothing to do, and sets the timer again. So a deadline that moves on and on, as that of heartbeats does, costs no
    new timer each time.
    """

    def __init__(self, loop: CallingLoop, act: Callable[[], None]) -> None:
        self._loop = loop
        self._act = act
        self.at: float | None = None
        """When ``act`` is called next, on the monotonic clock; ``None`` for never."""

    def set(self, deadline: float | None) -> None:
        """Have ``act`` called at ``deadline``, unless it is called before; ``None`` for no deadline."""
        if deadline is not None and (self.at is None or deadline < self.at):
            self.at = deadline
            self._loop.call_at(deadline, partial(self._reached, deadline))

    def _reached(self, deadline: float) -> None:
        if deadline == self.at:  # else an earlier deadline has taken its place
            self.at = None
            self._act()
