"""The circuit breaker of a pool: while the provider fails too often, runs wait, and single ones try whether it is back. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace_engine.limits.gate import Draw
from headrace_engine.limits.recent_count import RecentCount

BreakerWord = Literal["closed", "open", "half-open"]

WINDOW = 10.0
"""Seconds over which failures are counted."""
MIN_OUTCOMES = 5
FAILED_SHARE = 0.5
COOLDOWN = 5.0
"""Seconds from the opening to the first probe, give or take a fifth. Each probe that fails doubles them."""
MAX_COOLDOWN = 60.0
_JITTER = 0.2
_SLOT = 0.5


class BreakerState(msgspec.Struct, frozen=True):
    """What a new broker must know of an open breaker. ``until``: on the monotonic clock of the machine."""

    until: float
    cooldown: float


class Breaker:
    """Counts the runs of the last ten seconds, and how many of them failed: half of them open it.

    Closed: all runs go. Open: none goes until the cooldown is over. Half-open: one probe goes, and tells.

    If a probe is lost, or has no answer within a further cooldown, another one goes.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._went = RecentCount(WINDOW, _SLOT)
        self._failures = RecentCount(WINDOW, _SLOT)
        self._outcomes = RecentCount(WINDOW, _SLOT)
        self._cooldown = COOLDOWN
        # When the next probe may go. None: the breaker is closed.
        self._until: float | None = None
        self._probes = 0

    @property
    def word(self) -> BreakerWord:
        """What the breaker is."""
        if self._until is None:
            return "closed"
        return "half-open" if self._probes else "open"

    @property
    def is_closed(self) -> bool:
        """Whether all runs may go."""
        return self._until is None

    def until(self, now: float) -> float | None:
        """Return when the next run may go; ``None`` if one may go now."""
        return self._until if self._until is not None and now < self._until else None

    def is_watching(self, now: float) -> bool:
        """Return whether there were failures lately, so that each outcome counts."""
        return self._until is not None or self._failures.at_most(now) > 0

    def enter(self, now: float) -> bool:
        """A run goes. Return whether it is a probe."""
        if self._until is None:
            self._went.add(now)
            return False
        self._probes += 1
        self._until = now + self._drawn_cooldown()
        return True

    def succeeded(self, now: float, *, is_probe: bool) -> bool:
        """The provider answered a run with a status below 500. Return whether that closed the breaker."""
        if self._until is None:
            self._outcomes.add(now)
            return False
        if not is_probe:
            return False  # it began before the breaker opened
        self._until = None
        self._probes = 0
        self._cooldown = COOLDOWN
        self._went.clear()
        self._failures.clear()
        self._outcomes.clear()
        return True

    def failed(self, now: float, *, is_probe: bool) -> None:
        """The provider was unavailable to a run."""
        if self._until is not None:
            if is_probe:
                self._probes = max(0, self._probes - 1)
                self._cooldown = min(2 * self._cooldown, MAX_COOLDOWN)
                self._until = max(self._until, now + self._drawn_cooldown())
            return
        self._failures.add(now)
        self._outcomes.add(now)
        outcomes = self._outcomes.at_most(now)
        # Failures come sooner than successes: the runs that go on count too.
        runs = max(outcomes, self._went.at_most(now))
        if outcomes >= MIN_OUTCOMES and self._failures.at_most(now) >= FAILED_SHARE * runs:
            self._until = now + self._drawn_cooldown()

    def lost(self, now: float) -> None:
        """A probe ended, and nobody knows what the provider did. The next run is a probe."""
        if self._until is not None:
            self._probes = max(0, self._probes - 1)
            self._until = min(self._until, now)

    def state(self) -> BreakerState | None:
        """Return what a new broker must know; ``None`` for nothing."""
        return None if self._until is None else BreakerState(self._until, self._cooldown)

    def restore(self, state: BreakerState | None, now: float) -> None:
        """Take over the state of an earlier broker. Its probes are lost."""
        if state is not None:
            self._cooldown = min(max(state.cooldown, COOLDOWN), MAX_COOLDOWN)
            self._until = min(state.until, now + MAX_COOLDOWN)

    def _drawn_cooldown(self) -> float:
        return self._cooldown * self._draw(1 - _JITTER, 1 + _JITTER)
