"""The clocks of a run: connect, first chunk, idle, total, its reader's, and that of an answer whose end does not come. Pure.

The idle clock starts with the provider's answer. While the run waits for its own reader the provider's clocks stand still and the
reader's runs: until the reader takes something, or the reader is taken to be gone for good.
"""

from __future__ import annotations

import math

import msgspec

FINISH_GRACE = 2.0
"""Seconds that a response may take to end after it has said why it ends: usage may still follow."""


class ClockLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What each clock allows, in seconds; infinity where it does not run."""

    connect: float
    first_chunk: float
    idle: float
    total: float
    reader: float = math.inf


class Expired(msgspec.Struct, frozen=True):
    """A clock ran out."""

    clock: str
    limit: float


class Clocks:
    """The clocks of one run."""

    __slots__ = (
        "_finished_at", "_has_ended", "_is_paused", "_last_life", "_limits", "_started_at", "_waits_since", "content_at",
        "is_connected", "is_finishing",
    )  # fmt: skip

    def __init__(self, limits: ClockLimits, now: float) -> None:
        self._limits = limits
        self._started_at = now
        self._last_life: float | None = None
        self._is_paused = False
        self._has_ended = False
        self._waits_since = now
        self.is_connected = False
        self.content_at: float | None = None
        self.is_finishing = False  # whether all of the answer is there, and only its end is missing
        self._finished_at: float | None = None

    def connected(self) -> None:
        """The request is on its way."""
        self.is_connected = True

    def alive(self, now: float) -> None:
        """Bytes came, whatever they say."""
        self._last_life = now

    def content(self) -> None:
        """The first content came, with the last bytes."""
        self.content_at = self._now

    def finishing(self) -> bool:
        """The last bytes said why the answer ends. Return whether the wait for its end begins with them."""
        if self._finished_at is not None:
            return False
        self.is_finishing = True
        self._finished_at = self._now
        return True

    def goes_on(self) -> None:
        """More of the answer came all the same, so that this provider's word for its end says nothing."""
        self.is_finishing = False

    def continued(self) -> None:
        """Another response follows this one."""
        self.is_finishing = False
        self._finished_at = None

    def paused(self) -> None:
        """The run reads nothing until its reader has caught up: it has all of the window before it, as of the last bytes."""
        self._is_paused = True
        self._wait()

    def taken(self, now: float) -> None:
        """The reader took something."""
        self._waits_since = now

    def resumed(self, now: float) -> None:
        """The run reads again."""
        self._is_paused = False
        self._last_life = now
        if self.is_finishing:
            self._finished_at = now

    def ended(self) -> None:
        """Nothing more is wanted of the provider; what has come of it may still wait for the reader."""
        self._has_ended = True
        if not self._is_paused:
            self._wait()

    def next_deadline(self) -> float:
        """Return when the next clock runs out, if nothing happens until then; may be infinite."""
        return min(self._deadlines())[0]

    def expired(self, now: float) -> Expired | None:
        """Return the clock that has run out, if one has."""
        when, clock, limit = min(self._deadlines(), key=lambda deadline: deadline[0])
        return Expired(clock, limit) if now >= when else None

    def _deadlines(self) -> list[tuple[float, str, float]]:
        """Return when each clock that runs will run out, its name, and what it allows."""
        limits = self._limits
        reader = (self._waits_since + limits.reader, "reader", limits.reader)
        if self._has_ended:
            return [reader]
        deadlines = [(self._started_at + limits.total, "total", limits.total)]
        if self._is_paused:
            return [*deadlines, reader]
        if not self.is_connected:
            deadlines.append((self._started_at + limits.connect, "connect", limits.connect))
        elif self._last_life is not None:
            deadlines.append((self._last_life + limits.idle, "idle", limits.idle))
        if self.is_finishing and self._finished_at is not None:
            deadlines.append((self._finished_at + FINISH_GRACE, "finish", FINISH_GRACE))
        if self.content_at is None and not math.isinf(limits.first_chunk):
            deadlines.append((self._started_at + limits.first_chunk, "first_chunk", limits.first_chunk))
        return deadlines

    def _wait(self) -> None:
        self._waits_since = self._now

    @property
    def _now(self) -> float:
        """When the last bytes came."""
        return self._started_at if self._last_life is None else self._last_life
