"""The clocks of a run: connect, first_chunk, idle, total, reader, finish. Says when the next one runs out. Pure.

The idle clock starts with the provider's response. The reader clock measures how long the client takes no events. While
the run waits for its client, the reader clock runs, and the provider's clocks stand still, except total. The finish
clock bounds the wait for the end of a response whose answer is complete.
"""

from __future__ import annotations

import math

import msgspec

FINISH_GRACE = 2.0
"""Seconds that a response may take to end after its finish reason. Usage may come in that time."""


class ClockLimits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The limit of each clock, in seconds. Infinity: the clock does not run.

    ``spent``: seconds of ``total`` that earlier attempts of the run have taken.
    """

    connect: float
    first_chunk: float
    idle: float
    total: float
    reader: float = math.inf
    spent: float = 0.0


class Expired(msgspec.Struct, frozen=True):
    """A clock has run out: its name, and its limit in seconds."""

    clock: str
    limit: float


class Clocks:
    """The clocks of one run. Times are monotonic seconds.

    ``last_life`` is when the last bytes came: set it. ``content_at`` is when the first content came. ``is_finishing``: the answer is complete, and only its end is
    missing.
    """

    __slots__ = (
        "_ends_at", "_finished_at", "_has_ended", "_is_paused", "_limits", "_waits_since", "content_at", "is_connected",
        "is_finishing", "last_life", "started_at",
    )  # fmt: skip

    def __init__(self, limits: ClockLimits, now: float) -> None:
        self._limits = limits
        self.started_at = now
        self._ends_at = now + limits.total - limits.spent
        self.last_life: float | None = None
        self._is_paused = False
        self._has_ended = False
        self._waits_since = now
        self.is_connected = False
        self.content_at: float | None = None
        self.is_finishing = False
        self._finished_at: float | None = None

    def connected(self) -> None:
        """The connection to the provider is open."""
        self.is_connected = True

    def content(self) -> None:
        """The last bytes had the first content of the answer."""
        self.content_at = self._now

    def finishing(self) -> bool:
        """The answer is complete. Return whether this is new, so that the finish clock starts now."""
        if self._finished_at is not None:
            return False
        self.is_finishing = True
        self._finished_at = self._now
        return True

    def goes_on(self) -> None:
        """More content came after the finish reason: this provider's finish reason does not mean the end."""
        self.is_finishing = False

    def continued(self) -> None:
        """The response goes on, or another response continues it: stop the finish clock."""
        self.is_finishing = False
        self._finished_at = None

    def paused(self) -> None:
        """The run stops reading until its client has caught up. The reader clock starts at the last bytes."""
        self._is_paused = True
        self._wait()

    def taken(self, now: float) -> None:
        """The client took events: the reader clock starts anew."""
        self._waits_since = now

    def resumed(self, now: float) -> None:
        """The run reads again: the provider's clocks start anew."""
        self._is_paused = False
        self.last_life = now
        if self.is_finishing:
            self._finished_at = now

    def ended(self) -> None:
        """The run needs nothing more from the provider. Events may still wait for the client."""
        self._has_ended = True
        if not self._is_paused:
            self._wait()

    def next_deadline(self) -> float:
        """Return when the next clock runs out if nothing happens before. May be infinity."""
        return self._next()[0]

    def expired(self, now: float) -> Expired | None:
        """Return the clock that has run out first, or None."""
        when, clock, limit = self._next()
        return Expired(clock, limit) if now >= when else None

    def _next(self) -> tuple[float, str, float]:
        """Return of the running clock that runs out first: when it does, its name, its limit."""
        limits = self._limits
        if self._has_ended:
            return self._waits_since + limits.reader, "reader", limits.reader
        when, clock, limit = self._ends_at, "total", limits.total
        if self._is_paused:
            if (at := self._waits_since + limits.reader) < when:
                return at, "reader", limits.reader
            return when, clock, limit
        if not self.is_connected:
            if (at := self.started_at + limits.connect) < when:
                when, clock, limit = at, "connect", limits.connect
        elif self.last_life is not None and (at := self.last_life + limits.idle) < when:
            when, clock, limit = at, "idle", limits.idle
        if self.is_finishing and self._finished_at is not None and (at := self._finished_at + FINISH_GRACE) < when:
            when, clock, limit = at, "finish", FINISH_GRACE
        if self.content_at is None and (at := self.started_at + limits.first_chunk) < when:
            when, clock, limit = at, "first_chunk", limits.first_chunk
        return when, clock, limit

    def _wait(self) -> None:
        self._waits_since = self._now

    @property
    def _now(self) -> float:
        """When the last bytes came, or when the run started."""
        return self.started_at if self.last_life is None else self.last_life
