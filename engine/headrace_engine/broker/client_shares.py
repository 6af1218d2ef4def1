"""Limits how many places of a worker one client may have: nearly all, and few for a minute if it left many unused. Pure.

All connections of one process count as one client.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

from headrace_engine.broker.waiting_run import Owner

K = TypeVar("K")

_OTHERS_SHARE = 64
"""One client may not take all places of a worker: one of each 64 is kept for other clients."""
_IDLE_SHARE = 16
"""A client that took many leases and used none may have a 16th of its places."""
_IDLE_LEASES = 8
"""A client with this many unused leases gets few places. On a large worker the number is a 64th of its places, if that is more."""
_IDLE_FOR = 60.0
"""Seconds for which a client with unused leases has few places."""
_TOLD_FACTOR = 4
"""A client may report this many times its places of a worker as leases of an earlier broker.

After broken connections, the broker may have given a place to a new client while the earlier client still uses it.
"""
_MOST_TOLD = 100_000
"""Leases of an earlier broker that one client may report. One with a large question counts as several."""


class ClientShares:
    """The places that each client has on each worker, by the worker's epoch.

    ``max_runs`` is how many places a worker has.
    """

    def __init__(self) -> None:
        self._places: Counter[tuple[int, Owner]] = Counter()
        self._owned: Counter[Owner] = Counter()
        # Clients that took leases and did not use them, and until when they have few places.
        self._idle: dict[Owner, float] = {}

    def taken(self, epoch: int, owner: Owner, size: int = 1, count: int = 1) -> None:
        """A client has ``count`` places more. ``size``: how much its leases count among those of an earlier broker."""
        self._places[epoch, owner] += count
        self._owned[owner] += size

    def given_back(self, epoch: int, owner: Owner, size: int = 1, count: int = 1) -> None:
        """A client has ``count`` places less."""
        _count_down(self._places, (epoch, owner), count)
        _count_down(self._owned, owner, size)

    def has_room(self, epoch: int, owner: Owner, max_runs: int) -> bool:
        """Return whether a client may have one more place of a worker."""
        return self.room(epoch, owner, max_runs) > 0

    def room(self, epoch: int, owner: Owner, max_runs: int) -> int:
        """Return how many more places of a worker a client may have; 0 or less for none."""
        limit = max_runs - max_runs // _OTHERS_SHARE
        if owner in self._idle:
            limit = max(limit // _IDLE_SHARE, 1)
        return limit - self._places[epoch, owner]

    def may_tell(self, epoch: int, owner: Owner, max_runs: int, size: int = 1) -> bool:
        """Return whether a client may tell of one more lease of an earlier broker, which counts as ``size``.

        Its worker may not be connected yet.
        """
        limit = max_runs if owner in self._idle else _TOLD_FACTOR * max_runs
        return self.has_room(epoch, owner, limit) and self._owned[owner] + size <= _MOST_TOLD

    def unused(self, counts: Mapping[Owner, int], max_runs: int, now: float) -> None:
        """Clients did not use this many leases."""
        for owner, count in counts.items():
            if count >= max(_IDLE_LEASES, max_runs // _OTHERS_SHARE):
                self._idle[owner] = now + _IDLE_FOR

    def recovers_at(self, owner: Owner) -> float | None:
        """Return when a client that has few places may have its whole share again; ``None`` if it may now."""
        return self._idle.get(owner)

    def next_recovery(self) -> float | None:
        """Return when the first client may have its whole share again."""
        return min(self._idle.values()) if self._idle else None

    def recovered(self, now: float) -> bool:
        """Return whether a client may have its whole share again since the last call."""
        before = len(self._idle)
        self._idle = {owner: until for owner, until in self._idle.items() if until > now}
        return len(self._idle) < before


def _count_down(counter: Counter[K], key: K, by: int) -> None:
    counter[key] -= by
    if not counter[key]:
        del counter[key]
