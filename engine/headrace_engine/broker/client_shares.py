"""How many of a worker's places one client may have: nearly all, and few for a while if it took many and used none. Pure.

All connections of one process are one client in this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

from headrace_engine.broker.lane import Owner

K = TypeVar("K")

_OTHERS_SHARE = 64
"""One of so many places on a worker is for others than the client that has all the rest."""
_IDLE_SHARE = 16
"""Of its places on a worker one of so many is left to a client that took many leases and used none of them."""
_IDLE_LEASES = 8
"""Leases at least that make a client such a one, where they are so many of a worker's places too as others have for themselves."""
_IDLE_FOR = 60.0
"""Seconds for which it is."""
_TOLD_FACTOR = 4
"""So many times its places of a worker a client may tell of: where links are cut, leases are given anew that others still use."""
_MOST_TOLD = 100_000
"""Leases of a broker before this one that one client may tell of."""


class Shares:
    """The places that clients have, by worker's epoch. ``max_runs`` are a worker's places."""

    def __init__(self) -> None:
        self._places: Counter[tuple[int, Owner]] = Counter()
        self._owned: Counter[Owner] = Counter()
        # Those who took leases and did not use them, and until when that is held against them.
        self._idle: dict[Owner, float] = {}

    def taken(self, epoch: int, owner: Owner) -> None:
        """A client has a place more."""
        self._places[epoch, owner] += 1
        self._owned[owner] += 1

    def given_back(self, epoch: int, owner: Owner) -> None:
        """A client has a place less."""
        _count_down(self._places, (epoch, owner))
        _count_down(self._owned, owner)

    def has_room(self, epoch: int, owner: Owner, max_runs: int) -> bool:
        """Return whether a client may have a place more."""
        limit = max_runs - max_runs // _OTHERS_SHARE
        if owner in self._idle:
            limit = max(limit // _IDLE_SHARE, 1)
        return self._places[epoch, owner] < limit

    def may_tell(self, epoch: int, owner: Owner, max_runs: int) -> bool:
        """Return whether a client can have had a place more from the broker before; the worker may not be known yet."""
        limit = max_runs if owner in self._idle else _TOLD_FACTOR * max_runs
        return self.has_room(epoch, owner, limit) and self._owned[owner] < _MOST_TOLD

    def unused(self, counts: Mapping[Owner, int], max_runs: int, now: float) -> None:
        """So many leases of each were not used."""
        for owner, count in counts.items():
            if count >= max(_IDLE_LEASES, max_runs // _OTHERS_SHARE):
                self._idle[owner] = now + _IDLE_FOR

    def passed(self, now: float) -> None:
        """Time has passed."""
        self._idle = {owner: until for owner, until in self._idle.items() if until > now}


def _count_down(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
