"""When a pool may send again after a 429: Retry-After for the whole pool, own backoff, and a paced release with jitter. Pure."""

from __future__ import annotations

from math import sqrt

import msgspec

from headrace_engine.limits.gate import Draw
from headrace_engine.limits.recent_count import RecentCount

MAX_BLOCK = 120.0
"""Seconds. A provider that asks for more is asked again after so long."""
_LATER = 0.05
"""A block lasts up to this part longer, so that several engines do not come back at the same moment."""
_BACKOFF = 0.5
"""Seconds: the most that the first backoff takes. Each further one may take twice as long."""
MAX_BACKOFF = 60.0
_BEFORE = 10.0
"""Seconds before a block. How many runs went in them says how fast they are released after it."""
MIN_RATE = 5.0
"""Runs in a second: the slowest release."""
_GROWTH = 0.1
"""In each second the release grows by this part of the rate with which it began.

It does not grow by a part of what it has become: a long queue would end in a burst.
"""
_LEAST_GROWTH = 1.0
"""Runs in a second by which the release grows in each second at least: else a thousand runs would wait for minutes."""
_CUT = 0.7
"""A 429 during a release leaves this part of its rate."""
_JITTER = 0.2
_CATCH_UP = 0.01
"""Seconds of lateness that are made up for: the broker acts a little after each time that it is told."""
_NOBODY_WAITS = 1.0
"""Seconds. If no run takes its turn for so long, no run waits, and the release is over."""


class Pace(msgspec.Struct):
    """A release: ``rate`` runs in a second at ``since``. The next run may go at ``next_at``."""

    rate: float
    since: float
    next_at: float

    def seconds_for(self, runs: int, now: float) -> float:
        """Return the seconds in which so many runs are released, from now on."""
        rate, growth = self.rate_at(now), self._growth
        return (sqrt(rate * rate + 2 * growth * runs) - rate) / growth

    def rate_at(self, now: float) -> float:
        """Return the rate to which the release has grown."""
        return self.rate + self._growth * max(0.0, now - self.since)

    @property
    def _growth(self) -> float:
        return max(self.rate * _GROWTH, _LEAST_GROWTH)


class BlockingState(msgspec.Struct, frozen=True):
    """What a new broker must know. Times are on the monotonic clock of the machine."""

    blocked_until: float
    backoffs: int
    told_at: float
    pace: Pace | None = None


class Blocking:
    """One pool's block, and the release after it."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._went = RecentCount(_BEFORE, 0.5)
        self._blocked_until = float("-inf")
        # When the provider refused last, and how many backoffs in a row there were.
        self._told_at = float("-inf")
        self._backoffs = 0
        self._pace: Pace | None = None
        # Runs that went before this was made: when they were counted last, how many, and their ages in all.
        self._resumed = (float("-inf"), 0, 0.0)

    def blocked_for(self, now: float) -> float:
        """Return the seconds until the next run may leave; 0.0 if none is held back by a block."""
        return max(0.0, self._blocked_until - now)

    def rate(self, now: float) -> float | None:
        """Return how many runs in a second are released now, or will be after the block; ``None`` for all that come."""
        return None if self._pace is None else self._pace.rate_at(now)

    def until(self, now: float) -> float | None:
        """Return when the next run may go; ``None`` if one may go now."""
        if self._pace is None:
            return None
        return self._pace.next_at if now < self._pace.next_at else None

    def expected_wait(self, ahead: int, now: float) -> float:
        """Return the seconds until a run goes behind so many others."""
        pace = self._pace
        begin = max(now, self._blocked_until)
        return begin - now + (0.0 if pace is None else pace.seconds_for(ahead, begin))

    def resume(self, now: float, went_at: float) -> None:
        """Count a run that goes on, and went before this was made."""
        self._went.add(now)
        at, count, ages = self._resumed
        if at != now:
            count, ages = 0, 0.0
        self._resumed = (now, count + 1, ages + now - went_at)

    def enter(self, now: float) -> None:
        """A run goes."""
        self._went.add(now)
        pace = self._pace
        if pace is None:
            return
        if now > pace.next_at + max(_NOBODY_WAITS, 2 / pace.rate_at(now)):
            self._pace = None
            return
        gap = self._draw(1 - _JITTER, 1 + _JITTER) / pace.rate_at(now)
        pace.next_at = max(pace.next_at, now - _CATCH_UP) + gap

    def refused(self, retry_after: float | None, went_at: float, known_rate: float | None, now: float) -> None:
        """The provider refused a run with 429, or asked with another status to come back later.

        ``retry_after``: in seconds, as the provider said; ``None``, 0 or less: it did not say. ``went_at``: when the
        run was granted. ``known_rate``: runs in a second that the limits allow, if there are any.
        """
        if retry_after is not None and retry_after > 0:
            wait = min(retry_after, MAX_BLOCK)
            until = now + wait * (1 + self._draw(0, _LATER))
        elif went_at < self._told_at or now < self._blocked_until:
            return  # the run went before the last refusal: it says nothing new
        else:
            until = now + self._draw(0, min(MAX_BACKOFF, _BACKOFF * 2.0 ** min(self._backoffs, 20)))
            self._backoffs += 1
        self._slow_down(went_at, known_rate, now)
        self._told_at = now
        self._blocked_until = max(self._blocked_until, until)
        self._release_from(self._blocked_until)

    def released(self, known_rate: float | None, now: float) -> None:
        """Runs were held back for another reason, which is gone: they are released as after a block."""
        self._slow_down(now, known_rate, now)
        self._release_from(now)

    def succeeded(self, went_at: float) -> None:
        """A run that was granted at ``went_at`` ended well."""
        if went_at > self._told_at:
            self._backoffs = 0

    def is_at_rest(self, now: float) -> bool:
        """Return whether nothing would be lost if this was made anew."""
        return now >= self._blocked_until and (self._pace is None or now > self._pace.next_at + MAX_BACKOFF)

    def state(self, now: float) -> BlockingState | None:
        """Return what a new broker must know; ``None`` for nothing."""
        if self._pace is None and now >= self._blocked_until and not self._backoffs:
            return None
        return BlockingState(self._blocked_until, self._backoffs, self._told_at, self._pace)

    def restore(self, state: BlockingState | None, now: float) -> None:
        """Take over the state of an earlier broker."""
        if state is None:
            return
        self._blocked_until = min(state.blocked_until, now + MAX_BLOCK * (1 + _LATER))
        self._backoffs = max(0, state.backoffs)
        self._told_at = min(state.told_at, now)
        if state.pace is not None and state.pace.rate > 0:
            latest = max(now, self._blocked_until) + 1 / MIN_RATE
            self._pace = Pace(max(state.pace.rate, MIN_RATE), state.pace.since, min(state.pace.next_at, latest))

    def _slow_down(self, went_at: float, known_rate: float | None, now: float) -> None:
        """Choose the rate of the next release: from what went before, or slower than the release that was refused."""
        pace = self._pace
        if pace is None:
            rate = max(known_rate or 0.0, self._went.at_most(now) / _BEFORE, self._resumed_rate(now), MIN_RATE)
            self._pace = Pace(rate, now, now)
        elif went_at >= pace.since and now >= self._blocked_until:
            pace.rate = max(known_rate or 0.0, _CUT * pace.rate_at(now), MIN_RATE)

    def _resumed_rate(self, now: float) -> float:
        """Return how many runs in a second have been going, by those that go on: their number, and twice their mean age.

        Ages of nearly nothing tell little, so the rate is at most that all of them go again within a second.
        """
        at, count, ages = self._resumed
        if at != now or not count:
            return 0.0
        return min(count / (2 * ages / count), count) if ages > 0.0 else float(count)

    def _release_from(self, begin: float) -> None:
        pace = self._pace
        if pace is not None:
            pace.since = begin
            pace.next_at = max(pace.next_at, begin)
