"""One limit per minute of one pool: what the settings and the headers allow, what is used, and how fast it may go. Pure."""

from __future__ import annotations

import math

import msgspec

from headrace.wire.messages import LimitKind, SaidLimit
from headrace_engine.limits.pacing import Pacing
from headrace_engine.limits.said_limits import Mark, SaidLevel, SaidState
from headrace_engine.limits.sliding_window import MEAN_WINDOW, SlidingWindow

_KEPT_FOR_INTERACTIVE = 100
"""Batch runs leave one of so many parts of the limit to interactive runs."""
_MEAN_WEIGHT = 0.05
"""Weight of a new run in the mean amount of a run."""


class MinuteState(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a ``MinuteLimit`` for the next broker. ``used`` and ``others``: slot of the window, amount."""

    kind: LimitKind
    limit: int
    configured: int | None
    used: list[tuple[int, int]]
    others: list[tuple[int, int]]
    level: float
    mean: float
    said: SaidState | None


class MinuteLimit:
    """One kind of limit. ``limit``: the lower one of the settings' and the headers'. ``since``: grants up to this number are not counted here."""

    __slots__ = (
        "_adjusted",
        "_pacing",
        "_window",
        "configured",
        "granted",
        "kind",
        "limit",
        "mean",
        "others",
        "said",
        "since",
    )

    def __init__(self, kind: LimitKind, limit: int, since: int, now: float) -> None:
        self.kind = kind
        self.limit = limit
        self.since = since
        self.configured: int | None = None
        self.said: SaidLevel | None = None
        self.granted = 0
        self.mean = 0.0
        self._adjusted = 0
        self._window = SlidingWindow()
        self._window.advance(now)
        self.others: SlidingWindow | None = None
        self._pacing = Pacing(limit, now)

    def update(self, now: float) -> bool:
        """Choose the limit that counts now. Return False if there is none any more."""
        said = self.said
        if said is not None and said.has_expired(now):
            self.said = said = None
        limits = [limit for limit in (self.configured, said.limit if said else None) if limit is not None]
        if not limits:
            return False
        if min(limits) != self.limit:
            self.limit = min(limits)
            self._pacing.configure(self.limit, now)
        return True

    @property
    def source(self) -> str:
        """Where the limit comes from: ``settings``, ``headers`` or ``both``."""
        if self.said is None or self.said.limit is None:
            return "settings"
        return "headers" if self.configured is None else "both"

    def wait(self, amount: int, now: float, *, is_batch: bool) -> float:
        """Return the seconds until this amount may go; 0.0 if it may now.

        An amount that is larger than the limit goes alone.
        """
        window = self._window
        window.advance(now)
        most = self.limit
        if is_batch:
            most -= most // _KEPT_FOR_INTERACTIVE
        need = min(amount, most)
        wait = self._pacing.wait(amount, now, is_batch=is_batch)
        missing = window.total + need - most
        if missing > 0:
            wait = max(wait, window.freed_at(missing) - now)
        if self.said is not None:
            wait = max(wait, self.said.wait(need, self.granted, now))
        return wait

    def take(self, amount: int, now: float) -> None:
        """An amount goes now."""
        self._window.advance(now)
        self._window.add(amount)
        self.granted += amount
        self.mean += (amount - self.mean) * (_MEAN_WEIGHT if self.mean else 1.0)
        self._pacing.take(amount, now)

    def mark(self, number: int, now: float) -> Mark:
        """Return where the limit stands after a grant."""
        return Mark(number, now, self._window.total - self._adjusted, self.granted)

    def change(self, slot: int, difference: int, now: float) -> None:
        """A run took more or less than it reserved in this slot. What was never reserved counts from now if the slot is gone."""
        self._window.advance(now)
        if not self._window.change(slot, difference) and difference > 0:
            self._window.add(difference)
        self._pacing.take(difference, now)

    def hear(self, said: SaidLimit, mark: Mark | None, now: float) -> None:
        """A response's headers say this. ``mark``: that of its run; None if this limit was not known at its grant."""
        if self.said is None:
            self.said = SaidLevel()
        used = self.said.hear(said, mark or Mark(0, now, 0, 0), now)
        self.update(now)
        if used is None:
            return
        self._window.advance(now)
        self._adjust(used - (mark.used if mark else 0) - self._adjusted, now)

    def _adjust(self, unknown: int, now: float) -> None:
        """So much more is used than was counted: by others, or by runs before the limit was known. Negative: less."""
        if self.others is None:
            self.others = SlidingWindow()
        self.others.advance(now)
        if unknown > 0:
            self.others.add(unknown)
            self._window.add(unknown)
            self._adjusted += unknown
            return
        for slot, amount in self.others.slots():
            if unknown >= 0:
                break
            part = min(amount, -unknown)
            self.others.change(slot, -part)
            self._window.change(slot, -part)
            self._adjusted -= part
            unknown += part

    def left(self, now: float) -> int:
        """Return how much of the limit is left now, pacing aside."""
        self._window.advance(now)
        left: float = self.limit - self._window.total
        if self.said is not None:
            left = min(left, self.said.left(self.granted, now))
        return max(math.floor(left), 0)

    def expected_wait(self, amount: int, now: float) -> float:
        """Return the seconds until an amount has gone, perhaps in several runs."""
        self._window.advance(now)
        free = min(self.left(now), max(self._pacing.level(now), 0.0))
        if amount <= free:
            return 0.0
        return max((amount - free) * MEAN_WINDOW / self.limit, self.wait(min(amount, self.limit), now, is_batch=False))

    def to_state(self, now: float) -> MinuteState:
        """Return what the next broker needs."""
        self._window.advance(now)
        others = self.others
        if others is not None:
            others.advance(now)
        return MinuteState(
            self.kind,
            self.limit,
            self.configured,
            self._window.slots(),
            [] if others is None else others.slots(),
            self._pacing.level(now),
            self.mean,
            None if self.said is None else self.said.to_state(self.granted),
        )

    @classmethod
    def from_state(cls, state: MinuteState, now: float) -> MinuteLimit:
        """Return the limit as an earlier broker of the same boot left it."""
        one = cls(state.kind, max(state.limit, 1), 0, now)
        one.configured = state.configured
        one.mean = max(state.mean, 0.0)
        one._window.restore(state.used, now)
        if state.others:
            one.others = SlidingWindow()
            one.others.restore(state.others, now)
        one._pacing.take(round(one._pacing.burst - min(state.level, one._pacing.burst)), now)
        one.said = None if state.said is None else SaidLevel.from_state(state.said, now)
        return one
