"""One limit per minute of one pool: what the settings and the headers allow, what is used, and how fast it may go. Pure."""

from __future__ import annotations

import math

import msgspec

from headrace.wire.messages import LimitKind, SaidLimit
from headrace_engine.limits.pacing import Pacing
from headrace_engine.limits.said_limits import Mark, SaidLevel, SaidState
from headrace_engine.limits.sliding_window import MEAN_WINDOW, SLOTS_PER_SECOND, SlidingWindow, slot_of

_KEPT_PART = 100
"""Batch runs leave one of so many parts of the limit to interactive runs, and at least one run's place."""
_LEAST_SHARED = 20
"""A smaller limit has no place to keep: batch runs may use all of it."""
_MEAN_WEIGHT = 0.05
"""Weight of a new run in the mean amount of a run."""


def _kept_for_interactive(limit: int) -> int:
    return max(limit // _KEPT_PART, 1) if limit >= _LEAST_SHARED else 0


_ROOM_PART = 4
"""A limit of which more than this part is left, a quarter, had room for a run that was refused."""


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
        "_before",
        "_others",
        "_pacing",
        "_window",
        "configured",
        "granted",
        "kind",
        "limit",
        "mean",
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
        self._before = 0
        self._window = SlidingWindow()
        self._others = SlidingWindow()
        self._advance(now)
        self._pacing = Pacing(limit, now)

    def update(self, now: float) -> bool:
        """Choose the limit that counts now. Return False if there is none any more."""
        said = self.said
        if said is not None and said.has_expired(now):
            self.said = said = None
        limits = [limit for limit in (self.configured, said.limit if said is not None else None) if limit is not None]
        if not limits:
            return False
        if min(limits) != self.limit:
            self.limit = min(limits)
            self._pacing.configure(self.limit, now)
        return True

    @property
    def source(self) -> str:
        """Where the limit comes from: ``settings``, ``headers`` or ``both``."""
        if self.said is None:
            return "settings"
        return "headers" if self.configured is None else "both"

    def wait(self, amount: int, now: float, *, is_batch: bool) -> float:
        """Return the seconds until this amount may go; 0.0 if it may now.

        An amount that is larger than the limit goes alone.
        """
        wait = self._room_wait(amount, now, is_batch=is_batch)
        pacing = self._pacing
        if wait > 0.0 and not is_batch:
            pacing.hold(amount, now + wait, now)
        return max(wait, pacing.wait(amount, now, is_batch=is_batch))

    def _room_wait(self, amount: int, now: float, *, is_batch: bool) -> float:
        """Return the seconds until there is room for this amount, however fast it may go."""
        own = self._window
        if own.slot != int(now * SLOTS_PER_SECOND):
            self._advance(now)
        wait = 0.0
        most = self.configured
        if most is not None:
            if is_batch:
                most -= _kept_for_interactive(most)
            missing = own.total + min(amount, most) - most
            if missing > 0:
                wait = own.freed_at(missing) - now
        if self.said is not None:
            wait = max(wait, self._wait_for_said(self.said, amount, now, is_batch=is_batch))
        return wait

    def _wait_for_said(self, said: SaidLevel, amount: int, now: float, *, is_batch: bool) -> float:
        most = said.limit
        if is_batch:
            most -= _kept_for_interactive(most)
        need = min(amount, most)
        wait = said.wait(need, self.granted, now) if said.is_shared else 0.0
        missing = self._window.total + self._others.total + need - most
        return max(wait, self._window.freed_at(missing, self._others) - now) if missing > 0 else wait

    def _advance(self, now: float) -> None:
        slot = slot_of(now)
        self._window.advance(slot)
        self._others.advance(slot)

    def take(self, amount: int, now: float) -> int:
        """An amount goes now. Return what is counted: no more than the limit, so that no run holds up others for longer than that."""
        amount = min(amount, self.limit)
        window = self._window
        if window.slot != int(now * SLOTS_PER_SECOND):
            self._advance(now)
        window.add(amount)
        self.granted += amount
        self.mean += (amount - self.mean) * (_MEAN_WEIGHT if self.mean else 1.0)
        self._pacing.take(amount, now)
        if self.said is not None:
            self.said.went(now)
        return amount

    @property
    def used(self) -> int:
        """All that was counted until the last grant, as a response to its run must know it."""
        return self._window.total + self._others.total - self._adjusted

    def change(self, slot: int, difference: int, now: float) -> None:
        """A run took more or less than it reserved in this slot. If the slot is gone, what was not reserved counts from now."""
        self._advance(now)
        if not self._window.change(slot, difference) and difference > 0:
            self._window.add(difference)
        self._pacing.take(difference, now)

    def hear(self, said: SaidLimit, mark: Mark | None, now: float, *, is_refused: bool) -> None:
        """A response's headers say this. ``mark``: that of its run; None if this limit was not known at its grant.

        ``is_refused``: the provider took no request, because a limit was reached.
        """
        is_earlier = mark is None and self.configured is None
        mark = mark or Mark(0, now, self._before, 0)
        if self.said is None and said.limit is not None:
            self.said = SaidLevel(said.limit)
        level = self.said
        used = None if level is None else level.hear(said, mark, now)
        if level is None or used is None:
            return
        self._advance(now)
        self._adjust(used - mark.used - self._adjusted, is_earlier=is_earlier)
        level.share(self._others.total, self.mean, now, is_refused=is_refused)

    def refused(self, now: float) -> None:
        """The provider refused a run. If this limit had room by all that is known, the provider counts shorter times."""
        if self.left(now) > self.limit // _ROOM_PART:
            self._pacing.refused(now)

    def _adjust(self, unknown: int, *, is_earlier: bool) -> None:
        """So much more is used than was counted: by others, or by runs before the limit was known. Negative: less.

        What was counted last is taken back first: responses come in another order than their runs went, and what is
        given and taken all the time would else make old amounts new. ``is_earlier``: told by a run from before the limit
        was known. What it finds is taken for this engine's own, so that a first burst does not look like others.
        """
        if unknown > 0:
            (self._window if is_earlier else self._others).add(unknown)
            self._adjusted += unknown
        elif unknown < 0:
            self._adjusted -= self._others.remove_newest(-unknown)

    def left(self, now: float) -> int:
        """Return how much of the limit is left now, pacing aside."""
        self._advance(now)
        used = self._window.total
        left = math.inf if self.configured is None else float(self.configured - used)
        said = self.said
        if said is not None:
            left = min(left, said.limit - used - self._others.total)
            if said.is_shared:
                left = min(left, said.left(self.granted, now))
        return max(math.floor(min(left, self.limit)), 0)

    def expected_wait(self, amount: int, now: float) -> float:
        """Return the seconds until an amount has gone, perhaps in several runs."""
        free = min(self.left(now), max(self._pacing.level(now), 0.0))
        if amount <= free:
            return 0.0
        amount_that_fits = min(amount, self.limit)
        return max(
            (amount - free) * MEAN_WINDOW / self.limit,
            self._room_wait(amount_that_fits, now, is_batch=False),
            self._pacing.wait(amount_that_fits, now, is_batch=False),
        )

    def to_state(self, now: float) -> MinuteState:
        """Return what the next broker needs."""
        self._advance(now)
        return MinuteState(
            self.kind,
            self.limit,
            self.configured,
            self._window.slots(),
            self._others.slots(),
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
        one._window.restore(state.used)
        one._others.restore(state.others)
        one._before = one.used
        if math.isfinite(state.level):
            one._pacing.take(round(one._pacing.burst - min(state.level, one._pacing.burst)), now)
        one.said = None if state.said is None else SaidLevel.from_state(state.said, now)
        return one
