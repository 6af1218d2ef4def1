"""How many runs of a pool may go at once: the limit of the settings, and one that is learned from overload (AIMD). Pure.

AIMD (additive increase, multiplicative decrease): a sign of overload cuts the limit, successes let it grow again. The
limit is forgotten when the runs have stayed far below it.
"""

from __future__ import annotations

import msgspec

from headrace_engine.limits.gate import Priority

CUT = 0.7
"""A sign of overload leaves this part of the runs that go on."""
FEW = 16
"""With fewer runs a sign of overload teaches no limit: so few runs are no overload of this engine's making, and a low limit
would hold later runs behind long streams."""
CUT_INTERVAL = 1.0
"""Seconds between two cuts: the signs of one overload come together."""
FORGET_AFTER = 60.0
"""Seconds without a sign, with at most half of the limit in use, after which the learned limit is forgotten."""
_RESERVED = 10
"""One part of this many is kept for interactive runs."""


class ConcurrencyState(msgspec.Struct, frozen=True):
    """What a new broker must know. It counts the runs itself. Times are on the monotonic clock of the machine."""

    learned: int
    cut_at: float


class Concurrency:
    """The runs that go on, and how many may. ``configured``: the limit of the settings; ``None``: there is none."""

    def __init__(self, configured: int | None = None) -> None:
        self.configured = configured
        self.running = 0
        self._learned: int | None = None
        self._cut_at = float("-inf")
        self._successes = 0
        # Since when at most half of the learned limit is in use.
        self._low_since: float | None = None

    @property
    def limit(self) -> int | None:
        """Runs at once that are allowed; ``None`` for any number."""
        if self._learned is None or self.configured is None:
            return self._learned if self.configured is None else self.configured
        return min(self._learned, self.configured)

    @property
    def share_left(self) -> float:
        """The part of the limit that is left, from 0 to 1."""
        limit = self.limit
        return 1.0 if limit is None else max(0.0, (limit - self.running) / limit)

    def has_room(self, priority: Priority, now: float) -> bool:
        """Return whether one more run may go. A tenth of the limit, at least one place of two, is kept for interactive runs."""
        self._forget(now)
        limit = self.limit
        if limit is None:
            return True
        if priority == "batch" and limit > 1:
            limit -= max(1, limit // _RESERVED)
        return self.running < limit

    def enter(self) -> None:
        """One more run goes on."""
        self.running += 1
        if self._learned is not None and 2 * self.running > self._learned:
            self._low_since = None

    def leave(self, now: float, *, is_success: bool = False) -> None:
        """A run has ended. Successes count while the limit is in use."""
        if is_success and self._learned is not None and self.running >= self._learned:
            self._successes += 1
            if self._successes >= self._learned:
                self._learned += 1
                self._successes = 0
        self.running -= 1
        if self._learned is not None and self._low_since is None and 2 * self.running <= self._learned:
            self._low_since = now

    def overloaded(self, now: float) -> None:
        """The provider showed that it has too much to do. To be told before the run that met it leaves."""
        if now - self._cut_at < CUT_INTERVAL or self.running < FEW:
            return
        cut = int(CUT * self.running)
        self._learned = cut if self._learned is None else min(self._learned, cut)
        self._cut_at = now
        self._successes = 0
        self._low_since = None

    def is_at_rest(self, now: float) -> bool:
        """Return whether nothing would be lost if this was made anew."""
        self._forget(now)
        return self.running == 0 and self._learned is None

    def state(self) -> ConcurrencyState | None:
        """Return what a new broker must know; ``None`` for nothing."""
        return None if self._learned is None else ConcurrencyState(self._learned, self._cut_at)

    def restore(self, state: ConcurrencyState | None, now: float) -> None:
        """Take over the state of an earlier broker."""
        if state is not None:
            self._learned, self._cut_at = max(1, state.learned), min(state.cut_at, now)
            self._low_since = now

    def forgotten_at(self) -> float | None:
        """Return when the learned limit is forgotten, if nothing happens until then; ``None`` if it is in use."""
        return None if self._low_since is None else max(self._low_since, self._cut_at) + FORGET_AFTER

    def _forget(self, now: float) -> None:
        until = self.forgotten_at()
        if until is not None and now >= until:
            self._learned = self._low_since = None
