"""Counts what a run's reader has taken, and says when its worker gets further credit. Pure.

Credit is given as totals since the start of the run: how many events, and how many characters, the worker may send in
all (``wire/flow.py``). At most one window waits for the reader.

The reader's thread counts what it takes; the I/O thread gives the credit. The I/O thread looks whenever events arrive,
and gives credit once half a window was taken. A reader that has taken three quarters of a window since the last credit
asks the I/O thread to look. So a worker may always
send a quarter of a window at least, once its reader has taken everything.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.types import RunEvent
from headrace.wire.flow import characters
from headrace.wire.messages import WINDOW_CHARACTERS, WINDOW_EVENTS

_GIVE_EVENTS = WINDOW_EVENTS // 2
_GIVE_CHARACTERS = WINDOW_CHARACTERS // 2
_ASK_EVENTS = WINDOW_EVENTS * 3 // 4
_ASK_CHARACTERS = WINDOW_CHARACTERS * 3 // 4


class ReaderCredit:
    """The account of one run: what was taken, and what the worker may send."""

    __slots__ = (
        "_arrived",
        "_arrived_characters",
        "_ask_at",
        "_ask_at_characters",
        "_give_at",
        "_give_at_characters",
        "character_limit",
        "reads_all",
        "sequence_limit",
        "taken",
        "taken_characters",
    )

    def __init__(self, *, reads_all: bool = False) -> None:
        self.reads_all = reads_all
        """Whether events count as taken when they arrive: somebody asked for the result, which will hold them."""
        self.sequence_limit = WINDOW_EVENTS
        """How many events the worker may send in all."""
        self.character_limit = WINDOW_CHARACTERS
        """How many characters the worker may send in all."""
        self.taken = 0
        """How many events the reader has taken."""
        self.taken_characters = 0
        self._arrived = 0
        self._arrived_characters = 0
        # How much is taken when credit is due, and when the reader asks for it.
        self._give_at = _GIVE_EVENTS
        self._give_at_characters = _GIVE_CHARACTERS
        self._ask_at = _ASK_EVENTS
        self._ask_at_characters = _ASK_CHARACTERS

    def take(self, batch: Sequence[RunEvent]) -> bool:
        """The reader has taken ``batch``, which is not empty. Returns whether it must ask the I/O thread for credit."""
        count, first = len(batch), batch[0]
        self.taken = taken = self.taken + count
        # One piece of text is the common case, and costs no further call.
        length = len(first) if count == 1 and type(first) is str else characters(batch)
        self.taken_characters = length = self.taken_characters + length
        if taken < self._ask_at and length < self._ask_at_characters:
            return False
        self._settle()
        return True

    def is_due(self, events: Sequence[RunEvent]) -> bool:
        """Return whether half a window was taken since the last credit. ``events`` are all that have arrived."""
        if self.reads_all:
            self._arrived_characters += characters(events[self._arrived :])
            self._arrived = len(events)
            return self._arrived >= self._give_at or self._arrived_characters >= self._give_at_characters
        return self.taken >= self._give_at or self.taken_characters >= self._give_at_characters

    def give(self) -> None:
        """Raise both limits: a whole window, counted from what was taken."""
        if self.reads_all:
            self._give(self._arrived, self._arrived_characters)
        else:
            self._give(self.taken, self.taken_characters)
        self._settle()

    def restart(self) -> None:
        """The run begins again on another worker. Nothing of it has arrived, so nothing was taken."""
        self._give(0, 0)

    def _give(self, taken: int, taken_characters: int) -> None:
        self.sequence_limit = taken + WINDOW_EVENTS
        self.character_limit = taken_characters + WINDOW_CHARACTERS
        self._give_at = taken + _GIVE_EVENTS
        self._give_at_characters = taken_characters + _GIVE_CHARACTERS

    def _settle(self) -> None:
        self._ask_at = self.taken + _ASK_EVENTS
        self._ask_at_characters = self.taken_characters + _ASK_CHARACTERS
