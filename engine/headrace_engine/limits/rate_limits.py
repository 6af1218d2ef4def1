"""The rate limits of one pool: requests and tokens per minute, from the settings and from response headers. Pure.

A run goes only if all limits have room for it; then it takes its share of all of them at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import msgspec

from headrace.settings.limit_settings import LimitConfig
from headrace.wire.engine_status import LevelStatus
from headrace.wire.messages import LimitKind, SaidLimit
from headrace_engine.limits.budget import ASK_INTERVAL, SharedLimit
from headrace_engine.limits.gate import Priority
from headrace_engine.limits.minute_limit import MinuteLimit, MinuteState
from headrace_engine.limits.said_limits import Mark, is_lie
from headrace_engine.limits.sliding_window import slot_of
from headrace_engine.limits.token_estimates import Cost, cost_of

LIMIT_KINDS: tuple[LimitKind, ...] = get_args(LimitKind)
"""All kinds of limits, in the order of the fields of ``Cost``."""


class Reservation:
    """What one run took from the limits of one pool, from its grant to its end. Made by :meth:`RateLimits.take`.

    ``cost``: of the run. ``taken``: what each kind of limit counts of it. ``number``: of the grant in its pool.
    ``used`` and ``granted``: where each kind of limit stood after it.
    """

    __slots__ = ("at", "cost", "granted", "number", "taken", "used")

    def __init__(self, cost: Cost, number: int, at: float) -> None:
        self.cost = cost
        self.taken = list(cost)
        self.number = number
        self.at = at
        self.used = [0] * len(LIMIT_KINDS)
        self.granted = [0] * len(LIMIT_KINDS)

    def mark(self, index: int, since: int) -> Mark | None:
        """Return where a limit stood at the grant; None if it was not known then. ``since``: the last grant before it was."""
        if self.number <= since:
            return None
        return Mark(self.number, self.at, self.used[index], self.granted[index])


def _left(said: SaidLimit) -> float:
    return math.inf if said.remaining is None else said.remaining


class RateLimits:
    """The limits of one pool. All times are on the broker's monotonic clock. With no limit known, everything may go at once.

    ``lies``: how many headers could not be true, and were ignored.
    """

    __slots__ = ("_active", "_configured", "_limits", "_number", "_share", "_shared", "lies")

    def __init__(self, configured: LimitConfig | None = None, now: float = 0.0, *, share: float = 1.0) -> None:
        self._limits: list[MinuteLimit | None] = [None] * len(LIMIT_KINDS)
        self._active: tuple[tuple[int, MinuteLimit], ...] = ()
        self._number = 0
        self.lies = 0
        self._shared: SharedLimit | None = None
        self.configure(configured, now, share=share)

    @property
    def is_known(self) -> bool:
        """Whether there is any limit, of the settings or of headers."""
        return bool(self._active)

    def configure(self, configured: LimitConfig | None, now: float, *, share: float = 1.0) -> None:
        """The settings' limits are these from now on. What was used stays counted.

        ``share``: the part of each limit that this engine may use, where several engines share them and cannot ask each
        other. Limits that headers said are not divided.
        """
        self._configured, self._share = configured, share
        for index, kind in enumerate(LIMIT_KINDS):
            figure = None if configured is None else getattr(configured, f"{kind}_per_minute")
            limit = None if figure is None else max(int(figure * share), 1)
            known = self._limits[index]
            if known is None:
                if limit is None:
                    continue
                known = self._limits[index] = MinuteLimit(kind, limit, self._number, now)
            known.configured = limit
        self._refresh(now)

    def share_with(self, shared: SharedLimit | None, now: float) -> None:
        """Several engines use these limits. ``shared``: this engine's part of them; None: they are its own."""
        self._shared = shared
        self.configure(self._configured, now, share=1.0 if shared is None else shared.share)

    def wait(self, cost: Cost, priority: Priority, now: float) -> float | None:
        """Return when a run of this cost may go, if nothing else happens; None: now."""
        wait = 0.0
        if (shared := self._shared) is not None:
            if shared.share != self._share:
                self.configure(self._configured, now, share=shared.share)
            if not shared.has_room(dict(zip(LIMIT_KINDS, cost, strict=True))):
                wait = ASK_INTERVAL
        is_batch = priority == "batch"
        for index, limit in self._active:
            one = limit.wait(cost[index], now, is_batch=is_batch)
            if one > wait:  # noqa: PLR1730 - half the time of max()
                wait = one
        return now + wait if wait > 0.0 else None

    def take(self, cost: Cost, now: float) -> Reservation:
        """A run is granted: it takes its share of all limits, whether they have room or not."""
        self._number += 1
        reservation = Reservation(cost, self._number, now)
        taken, used, granted = reservation.taken, reservation.used, reservation.granted
        for index, limit in self._active:
            taken[index] = limit.take(cost[index], now)
            used[index] = limit.used
            granted[index] = limit.granted
        if self._shared is not None:
            self._shared.take(dict(zip(LIMIT_KINDS, cost, strict=True)), now)
        return reservation

    def settle(self, reservation: Reservation, input_tokens: int, output_tokens: int, now: float) -> None:
        """The run took this many tokens, as far as is known now. May be called again with better figures."""
        cost = cost_of(input_tokens, output_tokens)
        for index, limit in self._active:
            if reservation.number > limit.since:
                counted = min(cost[index], limit.limit)
                if difference := counted - reservation.taken[index]:
                    limit.change(slot_of(reservation.at), difference, now)
                    reservation.taken[index] = counted
        if self._shared is not None:
            differences = (new - old for new, old in zip(cost, reservation.cost, strict=True))
            self._shared.settle(dict(zip(LIMIT_KINDS, differences, strict=True)))
        reservation.cost = cost

    def refund_tokens(self, reservation: Reservation, now: float) -> None:
        """The provider refused the run: its tokens are given back. Its request stays counted."""
        self.settle(reservation, 0, 0, now)

    def said(
        self, limits: Sequence[SaidLimit], reservation: Reservation | None, now: float, *, is_refused: bool = False
    ) -> None:
        """The headers of a response say this. ``reservation``: that of its run; None if it was granted before the pool was known.

        ``is_refused``: the provider answered that a limit is reached. A lower limit counts at once. Of two limits of the
        same kind, the one with less left counts. What cannot be true is ignored, and counted in ``lies``.
        """
        scarcest: dict[str, SaidLimit] = {}
        for said in limits:
            if said.kind not in LIMIT_KINDS or is_lie(said):
                self.lies += 1
            elif (other := scarcest.get(said.kind)) is None or _left(said) < _left(other):
                scarcest[said.kind] = said
        for said in scarcest.values():
            index = LIMIT_KINDS.index(said.kind)
            limit = self._limits[index]
            if limit is None:
                if said.limit is None:
                    continue
                limit = self._limits[index] = MinuteLimit(said.kind, said.limit, self._number, now)
            mark = None if reservation is None else reservation.mark(index, limit.since)
            limit.hear(said, mark, now, is_refused=is_refused)
        self._refresh(now)

    def refused(self, now: float) -> None:
        """The provider refused a run with 429. Where limits had room, bursts are smaller from now on."""
        for _, limit in self._active:
            limit.refused(now)

    def forget_old(self, now: float) -> None:
        """Forget what headers said, if runs went and none have come for ten minutes. Call it now and then, for example each minute."""
        self._refresh(now)

    def _refresh(self, now: float) -> None:
        for index, limit in enumerate(self._limits):
            if limit is not None and not limit.update(now):
                self._limits[index] = None
        self._active = tuple((index, limit) for index, limit in enumerate(self._limits) if limit is not None)

    def expected_wait(self, ahead: int, cost: Cost, now: float) -> float:
        """Return the seconds that a run will wait behind so many others, as far as is known. 0.0 if no limit is known.

        The others are taken to be as large as the runs that went lately; if none went, as the run itself.
        """
        wait = 0.0
        for index, limit in self._active:
            own = min(cost[index], limit.limit)
            wait = max(wait, limit.expected_wait(own + round(ahead * (limit.mean or own)), now))
        return wait

    def rate_per_second(self) -> float | None:
        """Return how many runs per second the limits allow in the long run, at the mean cost of a run; None if unknown."""
        rates = [limit.limit / 60 / max(limit.mean, 1.0) for _, limit in self._active]
        return min(rates, default=None)

    def share_left(self, now: float) -> float:
        """Return which part of its limit the scarcest limit has left: 0.0 to 1.0. 1.0 if no limit is known."""
        return min((min(limit.left(now) / limit.limit, 1.0) for _, limit in self._active), default=1.0)

    def levels(self, now: float) -> list[LevelStatus]:
        """Return each limit, and what is left of it."""
        return [LevelStatus(limit.kind, limit.limit, limit.left(now), limit.source) for _, limit in self._active]

    def to_state(self, now: float) -> list[object]:
        """Return what the next broker of the same boot needs, as plain objects."""
        states: list[object] = msgspec.to_builtins([limit.to_state(now) for _, limit in self._active])
        return states

    @classmethod
    def from_state(cls, state: object, configured: LimitConfig | None, now: float, *, share: float = 1.0) -> RateLimits:
        """Return the limits as an earlier broker left them, with the settings of this one.

        Raises ``msgspec.ValidationError`` if the state is not what :meth:`to_state` returns.
        """
        states = msgspec.convert(state, list[MinuteState])
        limits = cls(None, now)
        for one in states:
            limits._limits[LIMIT_KINDS.index(one.kind)] = MinuteLimit.from_state(one, now)
        limits.configure(configured, now, share=share)
        return limits
