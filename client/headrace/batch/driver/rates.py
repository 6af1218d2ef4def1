"""Rates: what a batch job did in the last seconds, a second. Pure."""

from __future__ import annotations

from collections import deque

SPAN = 10.0
"""Seconds that count, unless it is said otherwise."""
_STEP = 0.5
"""Seconds between two notes."""


class Rates:
    """Sums of several figures over time, noted now and then. ``sums``: those at the beginning. ``span``: the seconds that count."""

    def __init__(self, now: float, sums: tuple[float, ...], span: float = SPAN) -> None:
        self._span = span
        self._notes: deque[tuple[float, tuple[float, ...]]] = deque([(now, sums)])

    def note(self, now: float, sums: tuple[float, ...]) -> None:
        """Note the sums since the beginning. Does nothing if the last note is younger than half a second."""
        notes = self._notes
        if now - notes[-1][0] < _STEP:
            return
        notes.append((now, sums))
        while now - notes[1][0] >= self._span:
            notes.popleft()

    def seconds(self, now: float) -> float:
        """Return how many seconds :meth:`rates` counts."""
        return now - self._notes[0][0]

    def rates(self, now: float, sums: tuple[float, ...]) -> tuple[float, ...]:
        """Return how much each sum has grown a second. May be called from another thread than :meth:`note`."""
        before, old = self._notes[0]
        elapsed = max(now - before, 1e-9)
        return tuple((new - was) / elapsed for new, was in zip(sums, old, strict=True))
