"""Pacing: a token bucket that spreads the grants of a limit per minute over the minute. Pure.

Without it, all of a minute's limit could leave in one moment, and then nothing for the rest of the minute.
"""

from __future__ import annotations

from headrace_engine.limits.sliding_window import WINDOW

_BURST_PART = 10
"""One burst is at most a tenth of the limit."""
_LEAST_BURST = 10
"""But at least this much, if the limit allows it."""
_BATCH_PART = 0.2
"""The part of the burst that batch runs may use. The rest is kept for interactive runs."""
_OVERFILL = 2.0
"""Returned amounts may fill the bucket to this many bursts: what a run reserved and did not use is not lost."""
_TOLERANCE = 1e-6
"""Part of a token that may be missing, because of rounding."""


class Pacing:
    """One token bucket. ``rate``: per second. ``burst``: how much may leave at once after a pause."""

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, limit: int, now: float) -> None:
        self._at = now
        self.rate = 0.0
        self.burst = 0.0
        self._level = float("inf")
        self.configure(limit, now)

    def configure(self, limit: int, now: float) -> None:
        """The limit per minute is another one from now on."""
        self._level = self.level(now)
        self._at = now
        self.rate = limit / WINDOW
        self.burst = float(min(limit, max(limit / _BURST_PART, _LEAST_BURST)))
        self._level = min(self._level, self.burst)

    def level(self, now: float) -> float:
        """Return how much may leave now. Below zero after a run that was larger than the burst."""
        if self._level >= self.burst:
            return self._level
        return min(self._level + (now - self._at) * self.rate, self.burst)

    def wait(self, amount: int, now: float, *, is_batch: bool) -> float:
        """Return the seconds until an amount may leave; 0.0 if it may now. A larger amount than the burst needs a full bucket."""
        burst = self.burst
        level = self._level
        if level < burst:
            level = min(level + (now - self._at) * self.rate, burst)
        need = float(amount)
        if is_batch and burst > 1:
            part = burst * _BATCH_PART
            need = max(burst - part + min(need, part), min(need, burst))
        elif need > burst:
            need = burst
        missing = need - level - _TOLERANCE
        return missing / self.rate + _TOLERANCE if missing > 0 else 0.0

    def take(self, amount: int, now: float) -> None:
        """An amount leaves. A negative amount comes back."""
        self._level = min(self.level(now) - amount, max(_OVERFILL * self.burst, self._level))
        self._at = now
