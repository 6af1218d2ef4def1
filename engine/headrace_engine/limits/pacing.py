"""Pacing: a token bucket that spreads the grants of a limit per minute over the minute. Pure.

Without it, all of a minute's limit could leave in one moment, and then nothing for the rest of the minute. Most
providers take a burst, and a program that starts some runs at once shall not wait for nothing. So a fifth of the limit
may leave at once, until the provider refuses a run although its minute has room: it counts shorter times then.
"""

from __future__ import annotations

import math

from headrace_engine.limits.sliding_window import WINDOW

_BURST_PART = 5
"""One burst is at most this part of the limit: a fifth of it."""
_CAREFUL_PART = 10
"""The same, a tenth, where the provider has refused a burst."""
_CAREFUL_FOR = 600.0
"""Seconds for which a refused burst is remembered."""
_LEAST_BURST = 20
"""But at least this much, if the limit allows it."""
_BATCH_PART = 50
"""Batch runs may use this part of the limit as their burst: a fiftieth. The rest is kept for interactive runs."""
_OVERFILL = 2.0
"""Returned amounts may fill the bucket to this many bursts: what a run reserved and did not use is not lost."""
_PEAK = 2.0
"""After a hold, amounts leave at this multiple of the rate."""
_TOLERANCE = 1e-6
"""Part of a token that may be missing, because of rounding."""


class Pacing:
    """One token bucket. ``rate``: per second. ``burst``: how much may leave at once after a pause.

    After runs have waited for something else than the bucket, the burst leaves at twice the rate, not at once.
    """

    __slots__ = ("_at", "_batch_burst", "_careful_until", "_level", "_limit", "_peak", "_peak_at", "burst", "rate")

    def __init__(self, limit: int, now: float) -> None:
        self._at = now
        self._level = math.inf
        # What may leave after a hold. It grows at twice the rate from _peak_at on.
        self._peak = math.inf
        self._peak_at = now
        self._careful_until = -math.inf
        self._limit = limit
        self._batch_burst = 0.0
        self.rate = 0.0
        self.burst = 0.0
        self.configure(limit, now)

    def configure(self, limit: int, now: float) -> None:
        """The limit per minute is another one from now on."""
        self._move(now)
        self._limit = limit
        self.rate = limit / WINDOW
        part = _CAREFUL_PART if now < self._careful_until else _BURST_PART
        self.burst = float(min(limit, max(limit / part, _LEAST_BURST)))
        self._batch_burst = min(limit, max(limit / _CAREFUL_PART, _LEAST_BURST)) * _CAREFUL_PART / _BATCH_PART
        self._level = min(self._level, self.burst)

    def refused(self, now: float) -> None:
        """The provider refused a run although the minute had room: bursts are small for some time."""
        self._careful_until = now + _CAREFUL_FOR
        self.configure(self._limit, now)

    def level(self, now: float) -> float:
        """Return how much may leave now. Below zero after a run that was larger than the burst."""
        level = self._level
        if level < self.burst:
            level = min(level + (now - self._at) * self.rate, self.burst)
        return min(level, self._peak + max(now - self._peak_at, 0.0) * _PEAK * self.rate)

    def wait(self, amount: int, now: float, *, is_batch: bool) -> float:
        """Return the seconds until an amount may leave; 0.0 if it may now. A larger amount than the burst needs a full bucket."""
        burst = self.burst
        level = self._level
        if level < burst:
            level = min(level + (now - self._at) * self.rate, burst)
        least = need = min(float(amount), burst)
        if is_batch and burst > 1:
            part = self._batch_burst
            need = max(burst - part + min(need, part), need)
        wait = (need - level - _TOLERANCE) / self.rate
        missing = least - self._peak - _TOLERANCE
        if missing > 0.0:
            wait = max(wait, missing / (_PEAK * self.rate) + self._peak_at - now)
        return wait + _TOLERANCE if wait > 0.0 else 0.0

    def take(self, amount: int, now: float) -> None:
        """An amount leaves. A negative amount comes back."""
        if now >= self._careful_until > 0.0:
            self._careful_until = -math.inf
            self.configure(self._limit, now)
        self._move(now)
        # However much more than they reserved runs have used: after a minute, the provider has forgotten it.
        self._level = max(min(self._level - amount, max(_OVERFILL * self.burst, self._level)), -self._limit)
        self._peak = max(self._peak - amount, -self._limit)

    def hold(self, amount: int, until: float, now: float) -> None:
        """A run of this amount waits for something else, as far as is known until this time. Only it may leave at once then."""
        self._move(now)
        self._peak = min(self._peak, float(max(amount, 1)))
        self._peak_at = until

    def _move(self, now: float) -> None:
        if self._level < self.burst:
            self._level = min(self._level + (now - self._at) * self.rate, self.burst)
        self._at = now
        self._peak += max(now - self._peak_at, 0.0) * _PEAK * self.rate
        self._peak_at = now
