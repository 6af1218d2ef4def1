"""What of one run has left and what waits: sequence numbers and credit. Pure.

Out of credit, waiting deltas are merged; when more waits than a window, the run stops reading from its provider.
"""

from __future__ import annotations

from headrace.types import RunEvent
from headrace.wire.flow import characters, event_characters
from headrace.wire.messages import WINDOW_CHARACTERS, WINDOW_EVENTS
from headrace_workers.runs.event_merging import merge_neighbours, pieces_of, split_within

_MAX_WAITING = 4 * WINDOW_EVENTS
"""Events that may wait: some cannot be merged, and have no characters by which they would count."""
_MAX_READ = WINDOW_CHARACTERS
"""Bytes of the response that may come before anything of it leaves: one turn of the loop can read megabytes of what a
stall has left in the kernel."""


class OutgoingEvents:
    """The events of one run on their way to its client."""

    __slots__ = (
        "_character_limit",
        "_characters",
        "_read",
        "_sequence_limit",
        "length",
        "pending",
        "sequence",
        "text_length",
    )

    def __init__(self, sequence_limit: int, character_limit: int) -> None:
        self._sequence_limit = sequence_limit
        self._character_limit = character_limit
        self._characters = 0
        self._read = 0
        self.length = 0
        """Characters of all kinds that came, but for those that wait."""
        self.pending: list[RunEvent] = []
        self.sequence = 0
        self.text_length = 0

    @property
    def has_credit(self) -> bool:
        """Whether at least one event may leave."""
        return self.sequence < self._sequence_limit and self._characters < self._character_limit

    def allow_more(self, sequence_limit: int, character_limit: int) -> None:
        """The client allows more. Limits never shrink: a late credit changes nothing."""
        self._sequence_limit = max(self._sequence_limit, sequence_limit)
        self._character_limit = max(self._character_limit, character_limit)

    def within_window(self, sequence_limit: int, character_limit: int) -> tuple[int, int]:
        """Return limits as far as they can be meant: a client that has taken all that was sent allows a window more."""
        return (
            min(sequence_limit, self.sequence + WINDOW_EVENTS),
            min(character_limit, self._characters + WINDOW_CHARACTERS),
        )

    def has_read(self, size: int) -> None:
        """So many bytes came, of which events may be waiting."""
        self._read += size

    @property
    def is_flooded(self) -> bool:
        """Whether more was read than should be before the next :meth:`take`, credit or not."""
        return self._read >= _MAX_READ

    def drop(self) -> list[RunEvent]:
        """Return what waits, which is not to be sent."""
        dropped, self.pending = self.pending, []
        self.length += characters(dropped)
        return dropped

    def waiting_is_full(self) -> bool:
        """Whether a window's worth waits without credit. Merges what waits, which keeps its size bounded."""
        if self.has_credit:
            return False
        if len(self.pending) > 1:
            self.pending = merge_neighbours(self.pending)
        return len(self.pending) >= _MAX_WAITING or characters(self.pending) >= WINDOW_CHARACTERS

    def waiting_is_low(self) -> bool:
        """Whether reading may go on."""
        if not self.has_credit or len(self.pending) >= _MAX_WAITING // 2:
            return False
        return characters(self.pending) < WINDOW_CHARACTERS // 2

    def take(self) -> tuple[int, list[RunEvent]]:
        """Return the number of the first event that may leave, and the events."""
        first, pending = self.sequence, self.pending
        self._read = 0
        size = characters(pending)
        if len(pending) <= self._sequence_limit - first and size <= self._character_limit - self._characters:
            taken, self.pending = pending, []
        else:
            taken = self._take_some()
            size = characters(taken)
        self.sequence += len(taken)
        self._characters += size
        self.length += size
        self.text_length += sum([len(event) for event in taken if type(event) is str])
        return first, taken

    def _take_some(self) -> list[RunEvent]:
        """Return the events that the credit is enough for; the last may be a part of one."""
        count = max(self._sequence_limit - self.sequence, 0)
        room = self._character_limit - self._characters
        taken: list[RunEvent] = []
        while self.pending and len(taken) < count and room > 0:
            event = self.pending[0]
            size = event_characters(event)
            if size > room:
                if size > 2 * WINDOW_CHARACTERS:
                    # Once, and not a little of it each time, which would copy the rest as often.
                    self.pending[:1] = pieces_of(event, WINDOW_CHARACTERS)
                    event = self.pending[0]
                    if event_characters(event) <= room:
                        continue
                parts = split_within(event, room)
                if parts is not None:
                    event, self.pending[0] = parts
                    taken.append(event)
                break
            taken.append(event)
            room -= size
            del self.pending[0]
        return taken
