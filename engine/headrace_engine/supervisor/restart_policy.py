"""When a process that ended is started again, and when there is no use in it. Pure."""

from __future__ import annotations

import msgspec

SHORT_LIFE = 2.0
"""A process that lived for less, in seconds, counts as failed at its start."""
FIRST_DELAY = 0.1
MAX_DELAY = 5.0
"""Half of what a client waits for an engine, unless told otherwise."""
MAX_FAILED_STARTS = 3
"""Failed starts in a row, without one success ever, after which the engine is taken to be unable to start."""


class StartAt(msgspec.Struct, frozen=True):
    """Start it again at this time."""

    when: float


class CannotStart(msgspec.Struct, frozen=True):
    """It cannot start."""

    reason: str


class RestartPolicy:
    """The fate of one process. Without one that never gives up the engine runs well enough."""

    def __init__(self, name: str, *, gives_up: bool = True) -> None:
        self._name = name
        self._gives_up = gives_up
        self._started_at = 0.0
        self._short_lives = 0
        self._has_lived = False
        self.restarts = 0

    def started(self, now: float) -> None:
        """It was started."""
        self._started_at = now

    def exited(self, status: str, now: float, *, has_served: bool = True) -> StartAt | CannotStart:
        """It ended without being told to. One that has never served has failed at its start, however long that took."""
        if has_served and now - self._started_at >= SHORT_LIFE:
            self._has_lived = True
            self._short_lives = 0
        else:
            self._short_lives += 1
        if self._gives_up and not self._has_lived and self._short_lives >= MAX_FAILED_STARTS:
            return CannotStart(f"{self._name} failed at its start {self._short_lives} times, last with {status}")
        self.restarts += 1
        if self._short_lives == 0:
            return StartAt(now)
        return StartAt(now + min(FIRST_DELAY * 2 ** min(self._short_lives - 1, 10), MAX_DELAY))
