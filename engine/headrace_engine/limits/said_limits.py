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
"""Seconds after which headers no longer count, if runs went and none have come since."""
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
_KEPT_STEP = 0.01
"""Part of the limit that is kept free in addition, each second in which nothing was left because of others."""
_REFUSED_STEP = 0.003
"""The same, if the provider refused a run but nothing else shows that others use the key."""
_OTHERS_PART = 0.02
"""Others use the key if they have used more than this part of the limit,"""
_OTHERS_RUNS = 5
"""and more than so many runs take. Less may be a mistake: requests do not arrive in the order of their grants."""
_EMPTY_PART = 0.01
"""A limit with less than this part left is used up."""
_SHARED_PART = 0.005
"""Others may use the key as long as more than this part of the limit is kept free because of them,"""
_SHARED_RUNS = 2
"""and more than so many runs take."""
_MOST_KEPT = 0.05
"""Part of the limit that is kept free at most."""
_KEPT_FOR = 120.0
"""Seconds until most of what was kept free is used again."""
_STEP_AFTER = 1.0
"""Seconds between two steps."""
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
    kept: float


def is_lie(said: SaidLimit) -> bool:
    """Return whether a report cannot be true: no limit is zero or beyond all bounds, and none has more left than it is."""
    limit, remaining, reset = said.limit, said.remaining, said.reset
    if limit is not None and not 0 < limit <= _MOST:
        return True
    if remaining is not None and (remaining < 0 or remaining > (_MOST if limit is None else limit)):
        return True
    return reset is not None and not 0.0 <= reset <= _LATEST_RESET


class SaidLevel:
    """What is known of one limit from headers.

    ``limit``: the last one told. ``is_shared``: others use the same key, so what is left must be asked here. Else what
    this pool counts itself is exact, and newer than what responses tell.
    """

    __slots__ = (
        "_agreed_since",
        "_at",
        "_granted",
        "_is_fixed",
        "_kept",
        "_kept_at",
        "_number",
        "_reference",
        "_regain",
        "_remaining",
        "_reset_at",
        "_seen_at",
        "_speed",
        "_unheard_since",
        "is_shared",
        "limit",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.is_shared = False
        self._seen_at = 0.0
        # The first run that went since.
        self._unheard_since = math.inf
        self._number = -1
        self._at = 0.0
        self._granted = 0
        self._remaining: int | None = None
        self._speed = self._regain = limit / WINDOW
        self._reference: tuple[float, int, int] | None = None
        self._reset_at = -math.inf
        self._agreed_since = 0.0
        self._is_fixed = False
        self._kept = 0.0
        self._kept_at = 0.0

    def hear(self, said: SaidLimit, mark: Mark, now: float) -> int | None:
        """A response to the run with this mark says this. Return how much of the limit is used, in all; None if not said.

        A response to an earlier run than the last one says nothing new, and is left out.
        """
        limit = self.limit if said.limit is None else said.limit
        remaining = said.remaining
        if mark.number < self._number or (remaining is not None and remaining > limit):
            return None
        before = self._remaining
        is_again = mark.number == self._number and limit == self.limit
        if is_again and remaining is not None and before is not None and remaining >= before:
            return None
        self._seen_at = now
        self._unheard_since = math.inf
        self._number = mark.number
        if limit != self.limit:
            self.limit = limit
            self._speed = self._regain = limit / WINDOW
            self._reference = None
        if remaining is None:
            return None
        if said.reset is not None:
            self._hear_reset(mark.at + said.reset, mark.at)
            is_long = said.reset > 1.5 * WINDOW and remaining < limit
            self._speed = (limit - remaining) / said.reset if is_long else limit / WINDOW
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
        speed = self._speed
        if self._reference is None:
            self._reference = (mark.at, remaining, mark.granted)
            return
        at, before, granted = self._reference
        if mark.at - at < _MEASURED_OVER:
            return
        measured = (remaining - before + mark.granted - granted) / (mark.at - at)
        if remaining >= limit - 1:
            measured = max(measured, speed)  # a limit that is whole regains nothing
        measured = min(max(measured, -speed), 2 * speed)
        self._regain += (measured - self._regain) * _WEIGHT
        self._regain = min(max(self._regain, speed * _LEAST_REGAIN), speed)
        self._reference = (mark.at, remaining, mark.granted)

    def share(self, others: int, mean: float, now: float, *, is_refused: bool) -> None:
        """Others have used this much. ``mean``: amount of one run. ``is_refused``: the provider refused the run.

        If nothing was left, more is kept free from now on: others send between two reports. Else a little less.
        """
        has_others = others > max(self.limit * _OTHERS_PART, mean * _OTHERS_RUNS)
        is_used_up = self._remaining is not None and self._remaining <= max(self.limit * _EMPTY_PART, mean)
        passed = now - self._kept_at
        if passed >= _STEP_AFTER:
            self._kept_at = now
            self._kept *= max(1.0 - passed / _KEPT_FOR, 0.0)
            if is_used_up and (has_others or is_refused):
                step = _KEPT_STEP if has_others else _REFUSED_STEP
                self._kept = min(self._kept + step * self.limit, _MOST_KEPT * self.limit)
        self.is_shared = (
            has_others or self._is_fixed or self._kept > max(self.limit * _SHARED_PART, mean * _SHARED_RUNS)
        )

    def left(self, granted: int, now: float) -> float:
        """Return how much is left by the headers alone. ``granted``: all that was granted until now."""
        if self._remaining is None:
            return math.inf
        left = self._remaining - (granted - self._granted) - self._kept
        if self._is_fixed:
            return left if now < self._reset_at + MARGIN / 2 else math.inf
        left += max(now - self._at, 0.0) * self._regain
        old = now - self._old_at()
        return left if old <= 0.0 else left + old * self.limit / WINDOW

    def _old_at(self) -> float:
        """Return from when the last response is too old to tell how slowly the rest comes back."""
        return max(self._at + WINDOW, min(self._reset_at, self._seen_at + SAID_FOR))

    def wait(self, amount: int, granted: int, now: float) -> float:
        """Return the seconds until this amount is left; 0.0 if it is now."""
        missing = amount - self.left(granted, now)
        if missing <= 0:
            return 0.0
        if self._is_fixed:
            return self._reset_at + MARGIN / 2 - now
        until_old = max(self._old_at() - now, 0.0)
        wait = missing / self._regain
        if wait > until_old:
            wait = until_old + (missing - until_old * self._regain) / (self._regain + self.limit / WINDOW)
        return wait + 1e-6

    def went(self, now: float) -> None:
        """A run goes: its response will tell whether the limit still is what it was."""
        self._unheard_since = min(self._unheard_since, now)

    def has_expired(self, now: float) -> bool:
        """Return whether the provider tells the limit no more. What it said stays true while no run asks it."""
        return now - self._unheard_since > SAID_FOR

    def to_state(self, granted: int) -> SaidState:
        """Return what the next broker needs."""
        reset_at = self._reset_at if math.isfinite(self._reset_at) else None
        taken = granted - self._granted
        return SaidState(
            self.limit,
            self._seen_at,
            self._at,
            taken,
            self._remaining,
            self._regain,
            reset_at,
            self._is_fixed,
            self._kept,
        )

    @classmethod
    def from_state(cls, state: SaidState, now: float) -> SaidLevel:
        """Return the level as an earlier broker left it, for a limit of which nothing is granted yet."""
        level = cls(max(state.limit, 1))
        level._seen_at = level._kept_at = level._agreed_since = now
        level._at = min(state.at, now)
        level._granted = -max(state.taken, 0)
        level._remaining = state.remaining
        speed = level._speed
        level._regain = min(max(state.regain, speed * _LEAST_REGAIN), speed)
        if state.reset_at is not None:
            level._is_fixed = state.is_fixed
            level._reset_at = min(state.reset_at, now + SAID_FOR)
        level._kept = min(max(state.kept, 0.0), _MOST_KEPT * level.limit)
        level.is_shared = True
        return level
