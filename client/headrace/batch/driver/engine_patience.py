"""EnginePatience: how long a batch job bears an engine that is not there. Pure.

An engine may be restarted in the middle of a job. Then all rows that it had come back with EngineUnavailableError. The
job tries one row now and then, and starts the others again after the first one that ends in another way.
"""

from __future__ import annotations

TRIES = 5
"""Rows that are tried, one after another, before the job ends."""
FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 5.0


class EnginePatience:
    """Knows whether the engine is there, as far as the last rows tell. ``first_pause``: seconds before the first try."""

    def __init__(self, first_pause: float = FIRST_PAUSE) -> None:
        self._first_pause = first_pause
        self._failed = 0
        self._next_try: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether only single rows may be tried, at :attr:`next_try`."""
        return self._next_try is not None

    @property
    def next_try(self) -> float:
        """When the next row may be tried. 0.0: at once."""
        return self._next_try or 0.0

    @property
    def is_over(self) -> bool:
        """Whether the job has waited for long enough."""
        return self._failed > TRIES

    def lost(self, now: float, *, was_alone: bool) -> None:
        """A row came back because there is no engine. ``was_alone``: no other row was under way."""
        if self._next_try is None or was_alone:
            self._failed += 1
            self._next_try = now + min(self._first_pause * (1 << self._failed - 1), _LONGEST_PAUSE)

    def found(self) -> None:
        """A row has ended in another way: the engine is there."""
        self._failed = 0
        self._next_try = None
