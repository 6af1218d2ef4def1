"""Decides when a process that ended is started again, and when the engine gives up. Pure."""

from __future__ import annotations

import msgspec

SHORT_LIFE = 2.0
"""Seconds. A process that ran for a shorter time counts as failed at its start."""
FIRST_DELAY = 0.1
MAX_DELAY = 5.0
"""Seconds at most until the next start: half of the time that a client waits for an engine by default."""
MAX_FAILED_STARTS = 3
"""Failed starts in a row, without any success before, after which the engine cannot start."""


class StartAt(msgspec.Struct, frozen=True):
    """Start the process again at this time."""

    when: float


class CannotStart(msgspec.Struct, frozen=True):
    """The process cannot start, and so the engine cannot."""

    reason: str


class RestartPolicy:
    """Decides for one process.

    ``gives_up`` False: the engine can run without this process, so it is started again and again.
    """

    def __init__(self, name: str, *, gives_up: bool = True) -> None:
        self._name = name
        self._gives_up = gives_up
        self._started_at = 0.0
        self._short_lives = 0
        self._has_lived = False
        self.restarts = 0

    def started(self, now: float) -> None:
        """The process was started."""
        self._started_at = now

    def exited(self, status: str, now: float, *, has_served: bool = True) -> StartAt | CannotStart:
        """The process ended, and was not told to.

        If it has never served, it failed at its start, however long it ran.
        """
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
