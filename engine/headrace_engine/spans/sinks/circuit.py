"""Decides when a sink tries again, and how many spans it sends at once. Pure: the time and a random number are arguments."""

from __future__ import annotations

from typing import Literal

BASE_DELAY = 0.5
MAX_DELAY = 30.0
OPEN_AFTER = 5
"""Failures in a row after which the circuit is open. Then one span is sent as a probe, once in a period."""
MAX_PERIOD = 60.0
HELD_DELAY = 30.0
"""Seconds of the first period if an operator must mend the cause."""
MAX_HELD_PERIOD = 300.0

State = Literal["ok", "retrying", "open"]


class Circuit:
    """The failures in a row, and the time of the next try. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._failures = 0
        self._is_held = False
        self.due = 0.0
        """The earliest time of the next try."""

    @property
    def state(self) -> State:
        """``retrying`` after a failure; ``open`` after several failures in a row, or after one that only an operator can mend."""
        if self._is_held or self._failures >= OPEN_AFTER:
            return "open"
        return "retrying" if self._failures else "ok"

    def answered(self) -> None:
        """The server works: forget the failures."""
        self._failures = 0
        self._is_held = False

    def failed(self, after: float | None, now: float, random: float) -> None:
        """A try failed. ``after``: the shortest wait that the server asked for. The wait is random, so that many clients spread out."""
        self._failures += 1
        self._is_held = False
        if self.state == "open":
            delay = _half_jitter(_grown(BASE_DELAY, self._failures, MAX_PERIOD), random)
        else:
            delay = random * _grown(BASE_DELAY, self._failures, MAX_DELAY)
        self.due = now + max(delay, after or 0.0)

    def held(self, now: float, random: float) -> None:
        """The server refuses us. Try again seldom: a key or an address can be mended on the other side."""
        self._failures += 1
        self._is_held = True
        self.due = now + _half_jitter(_grown(HELD_DELAY, self._failures, MAX_HELD_PERIOD), random)


class BatchLimit:
    """How many spans are sent at once: half after a batch that was too large, slowly more after each batch that was taken."""

    def __init__(self, most: int) -> None:
        self._most = max(most, 1)
        self.limit = self._most

    def was_too_much(self, spans: int) -> None:
        """A batch of ``spans`` spans was too large."""
        self.limit = max(spans // 2, 1)

    def was_taken(self) -> None:
        """The last batch was not too large."""
        self.limit = min(self.limit + max(self._most // 16, 1), self._most)


def _grown(base: float, failures: int, most: float) -> float:
    return min(base * 2.0 ** min(failures - 1, 30), most)


def _half_jitter(period: float, random: float) -> float:
    """Return a random part of ``period``, at least half of it: a probe must not follow the last one at once."""
    return period * (0.5 + random / 2)
