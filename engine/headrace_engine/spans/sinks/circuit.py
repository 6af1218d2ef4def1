"""When a sink tries again, and how much it sends then. Pure: the time and a random number are arguments."""

from __future__ import annotations

from typing import Literal

BASE_DELAY = 0.5
MAX_DELAY = 30.0
OPEN_AFTER = 5
"""Failures in a row after which the circuit is open: one span is sent as a probe, once in a period."""
MAX_PERIOD = 60.0
HELD_DELAY = 30.0
"""First period for what an operator must mend."""
MAX_HELD_PERIOD = 300.0

State = Literal["ok", "retrying", "open"]


class Circuit:
    """Failures in a row, and until when to wait for them."""

    def __init__(self) -> None:
        self._failures = 0
        self._is_held = False
        self.due = 0.0
        """When the next try may be made."""

    @property
    def state(self) -> State:
        """``retrying`` after a failure, ``open`` after several in a row, or after one that only an operator can mend."""
        if self._is_held or self._failures >= OPEN_AFTER:
            return "open"
        return "retrying" if self._failures else "ok"

    def answered(self) -> None:
        """The other side works."""
        self._failures = 0
        self._is_held = False

    def failed(self, after: float | None, now: float, random: float) -> None:
        """It did not; ``after`` is the least wait that it asked for. Full jitter while closed: many clients spread out."""
        self._failures += 1
        self._is_held = False
        if self.state == "open":
            delay = _half_jitter(_grown(BASE_DELAY, self._failures, MAX_PERIOD), random)
        else:
            delay = random * _grown(BASE_DELAY, self._failures, MAX_DELAY)
        self.due = now + max(delay, after or 0.0)

    def held(self, now: float, random: float) -> None:
        """It refuses us: seldom asked again, but asked, since a key or an address can be mended on the other side."""
        self._failures += 1
        self._is_held = True
        self.due = now + _half_jitter(_grown(HELD_DELAY, self._failures, MAX_HELD_PERIOD), random)


class BatchLimit:
    """How many spans are sent at once: half after each that was too much, slowly more again after each that was taken."""

    def __init__(self, most: int) -> None:
        self._most = max(most, 1)
        self.limit = self._most

    def was_too_much(self, spans: int) -> None:
        """So many were too large together."""
        self.limit = max(spans // 2, 1)

    def was_taken(self) -> None:
        """The last batch was not too large."""
        self.limit = min(self.limit + max(self._most // 16, 1), self._most)


def _grown(base: float, failures: int, most: float) -> float:
    return min(base * 2.0 ** min(failures - 1, 30), most)


def _half_jitter(period: float, random: float) -> float:
    """A probe must not follow the last one at once, however the dice fall."""
    return period * (0.5 + random / 2)
