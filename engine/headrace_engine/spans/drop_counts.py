"""Counts the spans that senders have dropped, and the runs that wanted no span. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from headrace.spans.outbox import FULL

_KEPT = 10_000
"""Senders whose counts are kept one by one. Of earlier senders only the sum is kept."""
_MOST = 2**53
"""Largest value of a count: it must fit into a message."""

Incarnation = tuple[str, int, int]
"""A sender's role, process id and epoch. Its counts are totals since its start, however often it connects."""


class DropCounts:
    """The counts of all senders since the collector's start, and the collector's own. Senders that have gone are included."""

    def __init__(self) -> None:
        self._total: Counter[str] = Counter()
        self._dropped: dict[Incarnation, Mapping[str, int]] = {}
        self._untraced: dict[Incarnation, int] = {}
        self._untraced_total = 0

    @property
    def untraced(self) -> int:
        """How many runs wanted no span."""
        return min(self._untraced_total, _MOST)

    def dropped(self) -> dict[str, int]:
        """Return reason → number of lost spans."""
        return {reason: min(count, _MOST) for reason, count in sorted(self._total.items()) if count}

    def said(self, sender: Incarnation, dropped: Mapping[str, int], untraced: int) -> None:
        """A sender reported its counts. A client can drop spans for one reason only (a full outbox): its other counts are ignored."""
        role, _, _ = sender
        if role == "client":
            dropped, untraced = {FULL: dropped[FULL]} if FULL in dropped else {}, 0
        dropped = {reason: min(max(count, 0), _MOST) for reason, count in dropped.items()}
        if not dropped and not untraced and sender not in self._dropped:
            return
        before = self._dropped.get(sender, {})
        for reason in {*before, *dropped}:
            self._total[reason] += dropped.get(reason, 0) - before.get(reason, 0)
        self._untraced_total += untraced - self._untraced.get(sender, 0)
        self._dropped[sender] = dropped
        self._untraced[sender] = untraced
        if len(self._dropped) > _KEPT:
            # Forget a client, not a worker: a worker reports its totals again, and they would count twice.
            first = next((each for each in self._dropped if each[0] == "client"), sender)
            del self._dropped[first], self._untraced[first]

    def lost(self, reason: str, count: int) -> None:
        """The collector itself lost ``count`` spans."""
        self._total[reason] += count
