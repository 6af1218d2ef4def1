"""What senders say they have dropped, or were told to leave out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from headrace.spans.outbox import FULL

_KEPT = 10_000
"""Senders whose counts are known apart; those of the ones before are kept as a sum."""
_MOST = 2**53
"""Of one count, a sender's and all together: what is told of it must fit into a message."""

Incarnation = tuple[str, int, int]
"""A sender's role, process id and epoch: its counts are totals since its start, however often it connects."""


class DropCounts:
    """The counts of all senders since the collector's start, those included that are gone, and its own."""

    def __init__(self) -> None:
        self._total: Counter[str] = Counter()
        self._dropped: dict[Incarnation, Mapping[str, int]] = {}
        self._untraced: dict[Incarnation, int] = {}
        self._untraced_total = 0

    @property
    def untraced(self) -> int:
        """Runs that wanted no span."""
        return min(self._untraced_total, _MOST)

    def dropped(self) -> dict[str, int]:
        """Return the spans that are lost, by reason."""
        return {reason: min(count, _MOST) for reason, count in sorted(self._total.items()) if count}

    def said(self, sender: Incarnation, dropped: Mapping[str, int], untraced: int) -> None:
        """A sender told its counts. A client has one reason to drop any; what else it says is not believed."""
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
            # A worker, of which there are few, tells its counts again; they would be counted twice.
            first = next((each for each in self._dropped if each[0] == "client"), sender)
            del self._dropped[first], self._untraced[first]

    def lost(self, reason: str, count: int) -> None:
        """The collector itself could not keep spans."""
        self._total[reason] += count
