"""What a provider's response headers say about one limit: how much of it is left for this key. Pure.

Other programs may use the same key. Their share shows only in what the headers say is left. How a provider counts is
not known: in fixed minutes, in the last 60 seconds, or by a bucket that fills all the time. So the speed at which the
rest comes back is measured too.
"""

from __future__ import annotations

import math

import msgspec

from headrace.wire.messages import SaidLimit
from headrace_engine.limits.sliding_window import MARGIN, WINDOW

SAID_FOR = 600.0
"""Seconds after which headers no longer count, if none have come since."""
_MOST = 10**12
"""No provider has a larger limit: a header that says so is wrong."""
_LATEST_RESET = 40 * 86400.0
"""Seconds: no limit needs longer to be whole again."""
_MEASURED_OVER = 1.0
"""Seconds at least between two reports that the speed of regain is measured from."""
_WEIGHT = 0.25
"""Weight of a new measurement of the speed."""
_LEAST_REGAIN = 0.05
"""Part of the limit's own speed at which the rest is expected to come back at least: something must go to learn more."""
_SAME_RESET = 1.5
"""Seconds by which two reports may differ about the end of the same fixed minute."""
_FIXED_AFTER = 5.0
"""Seconds for which reports must agree about the end of a minute, before it counts as fixed."""


class Mark:
    """Where one limit stood at the grant of one run.

    ``number``: of the grant. ``at``: its time. ``used``: what was counted, the run with it. ``granted``: all that was
    granted until then.
    """

    __slots__ = ("at", "granted", "number", "used")

    def __init__(self, number: int, at: float, used: int, granted: int) -> None:
        self.number = number
        self.at = at
        self.used = used
        self.granted = granted


class SaidState(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a ``SaidLevel`` for the next broker. ``taken``: granted since the last response's grant."""

    limit: int
    seen_at: float
    at: float
    taken: int
    remaining: int | None
    regain: float
    reset_at: float | None
    is_fixed: bool


def is_lie(said: SaidLimit) -> bool:
    """Return whether a report cannot be true: no limit is zero or beyond all bounds, and none has more left than it is."""
    limit, remaining, reset = said.limit, said.remaining, said.reset
    if limit is not None and not 0 < limit <= _MOST:
        return True
    if remaining is not None and (remaining < 0 or remaining > (_MOST if limit is None else limit)):
        return True
    return reset is not None and not 0.0 <= reset <= _LATEST_RESET


class SaidLevel:
    """What is known of one limit from headers. ``limit``: None if nothing is known. ``seen_at``: the last report."""

    __slots__ = (
        "_agreed_since",
        "_at",
        "_granted",
        "_is_fixed",
        "_number",
        "_reference",
        "_regain",
        "_remaining",
        "_reset_at",
        "limit",
        "seen_at",
    )

    def __init__(self) -> None:
        self.limit: int | None = None
        self.seen_at = 0.0
        self._number = -1
        self._at = 0.0
        self._granted = 0
        self._remaining: int | None = None
        self._regain = 0.0
        self._reference: tuple[float, int, int] | None = None
        self._reset_at = -math.inf
        self._agreed_since = 0.0
        self._is_fixed = False

    def hear(self, said: SaidLimit, mark: Mark, now: float) -> int | None:
        """A response to the run with this mark says this. Return how much of the limit is used, in all; None if not said.

        A response to an earlier run than the last one says nothing new, and is left out.
        """
        limit = said.limit if said.limit is not None else self.limit
        remaining = said.remaining
        if limit is None or mark.number < self._number or (remaining is not None and remaining > limit):
            return None
        is_again = mark.number == self._number and limit == self.limit
        if is_again and remaining is not None and self._remaining is not None and remaining >= self._remaining:
            return None
        if limit != self.limit:
            self._regain = limit / WINDOW
            self._reference = None
        self.limit = limit
        self.seen_at = now
        self._number = mark.number
        if remaining is None:
            return None
        if said.reset is not None:
            self._hear_reset(mark.at + said.reset, mark.at)
        self._measure(remaining, mark, limit)
        self._at = mark.at
        self._granted = mark.granted
        self._remaining = remaining
        return limit - remaining

    def _hear_reset(self, reset_at: float, at: float) -> None:
        if at > self._reset_at + MARGIN:
            self._agreed_since = at
        elif abs(reset_at - self._reset_at) > _SAME_RESET:
            self._is_fixed = False
            self._agreed_since = at
        else:
            self._is_fixed = self._is_fixed or at - self._agreed_since >= _FIXED_AFTER
            return
        self._reset_at = reset_at

    def _measure(self, remaining: int, mark: Mark, limit: int) -> None:
        """Measure at which speed the rest comes back, beside what this pool takes."""
        speed = limit / WINDOW
        if self._reference is None:
            self._reference = (mark.at, remaining, mark.granted)
            return
        at, before, granted = self._reference
        if mark.at - at < _MEASURED_OVER:
            return
        measured = (remaining - before + mark.granted - granted) / (mark.at - at)
        if remaining >= limit - 1 and measured < speed:
            measured = speed  # a full limit regains nothing
        measured = min(max(measured, -speed), 2 * speed)
        self._regain += (measured - self._regain) * _WEIGHT
        self._regain = min(max(self._regain, speed * _LEAST_REGAIN), speed)
        self._reference = (mark.at, remaining, mark.granted)

    def left(self, granted: int, now: float) -> float:
        """Return how much is left by the headers alone. ``granted``: all that was granted until now."""
        if self._remaining is None or self.limit is None:
            return math.inf
        left = float(self._remaining - (granted - self._granted))
        if not self._is_fixed or now < self._at:
            return left + max(now - self._at, 0.0) * self._regain
        return left if now < self._reset_at + MARGIN / 2 else math.inf

    def wait(self, amount: int, granted: int, now: float) -> float:
        """Return the seconds until this amount is left; 0.0 if it is now."""
        missing = amount - self.left(granted, now)
        if missing <= 0:
            return 0.0
        if self._is_fixed:
            return self._reset_at + MARGIN / 2 - now
        return missing / self._regain + 1e-6

    def has_expired(self, now: float) -> bool:
        """Return whether the last headers are too old to count."""
        return self.limit is not None and now - self.seen_at > SAID_FOR

    def to_state(self, granted: int) -> SaidState | None:
        """Return what the next broker needs; None if nothing is known."""
        if self.limit is None:
            return None
        reset_at = self._reset_at if math.isfinite(self._reset_at) else None
        taken = granted - self._granted
        return SaidState(
            self.limit, self.seen_at, self._at, taken, self._remaining, self._regain, reset_at, self._is_fixed
        )

    @classmethod
    def from_state(cls, state: SaidState, now: float) -> SaidLevel:
        """Return the level as an earlier broker left it, for a limit of which nothing is granted yet."""
        level = cls()
        level.limit = max(state.limit, 1)
        level.seen_at = min(state.seen_at, now)
        level._at = min(state.at, now)
        level._granted = -state.taken
        level._remaining = state.remaining
        least = level.limit / WINDOW * _LEAST_REGAIN
        level._regain = min(max(state.regain, least), level.limit / WINDOW)
        level._is_fixed = state.is_fixed and state.reset_at is not None
        level._reset_at = -math.inf if state.reset_at is None else min(state.reset_at, now + _LATEST_RESET)
        level._agreed_since = now
        return level
