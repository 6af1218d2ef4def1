"""What senders say they have dropped, or were told to leave out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from headrace.span_outbox import FULL

_KEPT = 10_000
"""Senders whose counts are known apart; those of the ones before are kept as a sum."""
_MOST = 2**53

Incarnation = tuple[str, int, int]
"""A sender's role, process id and epoch: its counts are totals since its start, however often it connects."""


class Totals:
    """The counts of all senders since the collector's start, those included that are gone, and its own."""

    def __init__(self) -> None:
        self._own: Counter[str] = Counter()
        self._dropped: dict[Incarnation, Mapping[str, int]] = {}
        self._untraced: dict[Incarnation, int] = {}
        self._untraced_before = 0

    @property
    def untraced(self) -> int:
        """Runs that wanted no span."""
        return self._untraced_before + sum(self._untraced.values())

    def dropped(self) -> dict[str, int]:
        """Return the spans that are lost, by reason."""
        total = Counter(self._own)
        for counts in self._dropped.values():
            total.update(counts)
        return {reason: count for reason, count in sorted(total.items()) if count}

    def said(self, sender: Incarnation, dropped: Mapping[str, int], untraced: int) -> None:
        """A sender told its counts. A client has one reason to drop any; what else it says is not believed."""
        role, _, _ = sender
        if role == "client":
            dropped, untraced = {FULL: dropped[FULL]} if FULL in dropped else {}, 0
        dropped = {reason: min(max(count, 0), _MOST) for reason, count in dropped.items()}
        if not dropped and not untraced and sender not in self._dropped:
            return
        self._dropped[sender] = dropped
        self._untraced[sender] = untraced
        if len(self._dropped) > _KEPT:
            first = next(iter(self._dropped))
            self._own.update(self._dropped.pop(first))
            self._untraced_before += self._untraced.pop(first)

    def lost(self, reason: str, count: int) -> None:
        """The collector itself could not keep spans."""
        self._own[reason] += count
