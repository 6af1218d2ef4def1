"""What senders say they have dropped, or were told to leave out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

Incarnation = tuple[str, int, int]
"""A sender's role, process id and epoch: its counts are totals since its start, however often it connects."""


class Totals:
    """The counts of all senders since the collector's start, those included that are gone, and its own."""

    def __init__(self) -> None:
        self._own: Counter[str] = Counter()
        self._dropped: dict[Incarnation, Mapping[str, int]] = {}
        self._untraced: dict[Incarnation, int] = {}

    @property
    def untraced(self) -> int:
        """Runs that wanted no span."""
        return sum(self._untraced.values())

    def dropped(self) -> dict[str, int]:
        """Return the spans that are lost, by reason."""
        total = Counter(self._own)
        for counts in self._dropped.values():
            total.update(counts)
        return {reason: count for reason, count in sorted(total.items()) if count}

    def said(self, sender: Incarnation, dropped: Mapping[str, int], untraced: int) -> None:
        """A sender told its counts."""
        self._dropped[sender] = dropped
        self._untraced[sender] = untraced

    def lost(self, reason: str, count: int) -> None:
        """The collector itself could not keep spans."""
        self._own[reason] += count
