"""Sliding window: how much of a limit per minute was used in the last 60 seconds. Pure.

A request reaches the provider up to one second after its grant. So an amount counts for 61 seconds after its grant:
then no 60 seconds at the provider have more than the limit.
"""

from __future__ import annotations

WINDOW = 60.0
"""Seconds over which a provider counts."""
MARGIN = 1.0
"""Seconds at most between a grant and the arrival of its request at the provider."""
SLOTS_PER_SECOND = 4
_SLOTS = int((WINDOW + MARGIN) * SLOTS_PER_SECOND) + 1
"""Slots that count: the newest one is not full yet, so one more than the window has."""

MEAN_WINDOW = WINDOW + MARGIN + 0.5 / SLOTS_PER_SECOND
"""Seconds for which an amount counts on average."""


def slot_of(now: float) -> int:
    """Return the number of the slot at this time."""
    return int(now * SLOTS_PER_SECOND)


class SlidingWindow:
    """Amounts in slots of a quarter of a second. ``total``: the sum of what counts now, after :meth:`advance`."""

    __slots__ = ("amounts", "slot", "total")

    def __init__(self) -> None:
        self.amounts = [0] * _SLOTS
        self.slot = 0
        self.total = 0

    def advance(self, slot: int) -> None:
        """Forget the amounts that no longer count at this slot. Call it before anything else. An earlier slot changes nothing."""
        if slot <= self.slot:
            return
        if slot - self.slot >= _SLOTS or not self.total:
            self.amounts = [0] * _SLOTS
            self.total = 0
        else:
            amounts = self.amounts
            for number in range(self.slot + 1, slot + 1):
                index = number % _SLOTS
                if amounts[index]:
                    self.total -= amounts[index]
                    amounts[index] = 0
        self.slot = slot

    def add(self, amount: int) -> None:
        """Count an amount from now on."""
        self.amounts[self.slot % _SLOTS] += amount
        self.total += amount

    def change(self, slot: int, difference: int) -> bool:
        """Change the amount of an earlier slot. Return False if that slot no longer counts: nothing is changed then."""
        if not self.slot - _SLOTS < slot <= self.slot:
            return False
        index = slot % _SLOTS
        difference = max(difference, -self.amounts[index])
        self.amounts[index] += difference
        self.total += difference
        return True

    def freed_at(self, amount: int, other: SlidingWindow | None = None) -> float:
        """Return when at least this amount of what counts now will no longer count. ``amount``: at most the total.

        ``other``: a window whose amounts count too. It must be at the same time.
        """
        amounts = self.amounts
        others = amounts if other is None else other.amounts
        left = amount
        for number in range(self.slot - _SLOTS + 1, self.slot + 1):
            index = number % _SLOTS
            left -= amounts[index]
            if other is not None:
                left -= others[index]
            if left <= 0:
                return (number + _SLOTS) / SLOTS_PER_SECOND
        return (self.slot + _SLOTS) / SLOTS_PER_SECOND

    def remove_newest(self, amount: int) -> int:
        """Forget an amount, the newest first. Return how much there was of it."""
        removed = 0
        for slot, found in reversed(self.slots()) if self.total else ():
            if removed >= amount:
                break
            part = min(found, amount - removed)
            self.change(slot, -part)
            removed += part
        return removed

    def slots(self) -> list[tuple[int, int]]:
        """Return the slots that are not empty, oldest first: number of the slot, amount."""
        if not self.total:
            return []
        numbers = range(self.slot - _SLOTS + 1, self.slot + 1)
        return [(number, amount) for number in numbers if (amount := self.amounts[number % _SLOTS])]

    def restore(self, slots: list[tuple[int, int]]) -> None:
        """Take over what :meth:`slots` returned in an earlier process of the same boot. Slots in the future are left out."""
        for number, amount in slots:
            if amount > 0:
                self.change(number, amount)
