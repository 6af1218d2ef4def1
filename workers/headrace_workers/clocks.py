"""The four clocks of a run: connect, first chunk, idle, total. Pure.

The idle clock starts with the provider's answer. Time that the run spends waiting for its own reader is nobody's fault: the idle clock stands still meanwhile.
"""

from __future__ import annotations

import math

import msgspec


class ClockLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What each clock allows, in seconds; infinity where it does not run."""

    connect: float
    first_chunk: float
    idle: float
    total: float


class Expired(msgspec.Struct, frozen=True):
    """A clock ran out."""

    clock: str
    limit: float


class Clocks:
    """The clocks of one run."""

    __slots__ = ("_has_content", "_is_connected", "_is_paused", "_last_life", "_limits", "_started_at")

    def __init__(self, limits: ClockLimits, now: float) -> None:
        self._limits = limits
        self._started_at = now
        self._last_life: float | None = None
        self._is_connected = False
        self._has_content = False
        self._is_paused = False

    def connected(self) -> None:
        """The request is on its way."""
        self._is_connected = True

    def alive(self, now: float) -> None:
        """Bytes came, whatever they say."""
        self._last_life = now

    def content(self) -> None:
        """The first content came."""
        self._has_content = True

    def paused(self) -> None:
        """The run reads nothing until its reader has caught up."""
        self._is_paused = True

    def resumed(self, now: float) -> None:
        """The run reads again."""
        self._is_paused = False
        self._last_life = now

    def next_deadline(self) -> float:
        """Return when the next clock runs out, if nothing happens until then; may be infinite."""
        return min(when for when, _ in self._deadlines())

    def expired(self, now: float) -> Expired | None:
        """Return the clock that has run out, if one has."""
        when, expired = min(self._deadlines(), key=lambda deadline: deadline[0])
        return expired if now >= when else None

    def _deadlines(self) -> list[tuple[float, Expired]]:
        limits = self._limits
        deadlines = [(self._started_at + limits.total, Expired("total", limits.total))]
        if not self._is_connected:
            deadlines.append((self._started_at + limits.connect, Expired("connect", limits.connect)))
        elif self._last_life is not None and not self._is_paused:
            deadlines.append((self._last_life + limits.idle, Expired("idle", limits.idle)))
        if not self._has_content and not math.isinf(limits.first_chunk):
            deadlines.append((self._started_at + limits.first_chunk, Expired("first_chunk", limits.first_chunk)))
        return deadlines
