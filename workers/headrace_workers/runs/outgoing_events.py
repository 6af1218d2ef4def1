"""The events of one run that wait to be sent: sequence numbers, credit, and when to stop reading. Pure.

Without credit, pending deltas are merged. When more than a window is pending, the run stops reading from its provider.
"""

from __future__ import annotations

from headrace.types import RunEvent
from headrace.wire.flow import character_counts, characters, event_characters
from headrace.wire.messages import WINDOW_CHARACTERS, WINDOW_EVENTS
from headrace_workers.runs.event_merging import merge_neighbours, pieces_of, split_within

_MAX_WAITING = 4 * WINDOW_EVENTS
"""Events that may be pending. Characters alone are no bound: some events have none, and cannot be merged."""
MAX_READ = WINDOW_CHARACTERS
"""Bytes of the response that are read before events must leave.

After a stall, the kernel holds megabytes, and one turn of the loop could read them all.
"""


class OutgoingEvents:
    """The events of one run on their way to its client.

    ``sequence`` is the number of the next event to leave.
    ``read`` is how many bytes of the response were read since events left last: its owner counts them.
    ``length`` counts characters of all kinds, without those of the pending events: those that have left take credit. If
    events are dropped, nothing follows that needs credit.
    """

    __slots__ = (
        "_character_limit",
        "_other_length",
        "_sequence_limit",
        "length",
        "pending",
        "read",
        "sequence",
    )

    def __init__(self, sequence_limit: int, character_limit: int) -> None:
        self._sequence_limit = sequence_limit
        self._character_limit = character_limit
        self.read = 0
        self.length = 0
        self.pending: list[RunEvent] = []
        self.sequence = 0
        self._other_length = 0

    @property
    def has_credit(self) -> bool:
        """Whether the client has given credit for at least one more event."""
        return self.sequence < self._sequence_limit and self.length < self._character_limit

    @property
    def text_length(self) -> int:
        """The characters of text that have left."""
        return self.length - self._other_length

    def allow_more(self, sequence_limit: int, character_limit: int) -> None:
        """Raise the limits. They never shrink: an old credit that arrives late changes nothing."""
        self._sequence_limit = max(self._sequence_limit, sequence_limit)
        self._character_limit = max(self._character_limit, character_limit)

    def within_window(self, sequence_limit: int, character_limit: int) -> tuple[int, int]:
        """Return the limits, at most one window beyond what was sent. No honest client allows more."""
        return (
            min(sequence_limit, self.sequence + WINDOW_EVENTS),
            min(character_limit, self.length + WINDOW_CHARACTERS),
        )

    @property
    def is_flooded(self) -> bool:
        """Whether a window of the response was read since events left last. Then they must leave before more is read."""
        return self.read >= MAX_READ

    def drop(self) -> list[RunEvent]:
        """Return the pending events, and forget them: they are not sent."""
        dropped, self.pending = self.pending, []
        size = characters(dropped)
        self.length += size
        self._other_length += size
        return dropped

    def waiting_is_full(self) -> bool:
        """Return whether a whole window is pending and there is no credit.

        Merges the pending events, which bounds their size.
        """
        if self.has_credit:
            return False
        if len(self.pending) > 1:
            self.pending = merge_neighbours(self.pending)
        return len(self.pending) >= _MAX_WAITING or characters(self.pending) >= WINDOW_CHARACTERS

    def waiting_is_low(self) -> bool:
        """Return whether a paused run may read again: there is credit, and half a window at most is pending."""
        if not self.has_credit or len(self.pending) >= _MAX_WAITING // 2:
            return False
        return characters(self.pending) < WINDOW_CHARACTERS // 2

    def take_text(self) -> list[RunEvent] | None:
        """Return all pending events if they are text, and if the credit is enough for them. Else return None."""
        pending = self.pending
        try:
            size = sum(map(len, pending))  # type: ignore[arg-type]
        except TypeError:  # no other event has a length
            return None
        sequence, length = self.sequence + len(pending), self.length + size
        if not pending or sequence > self._sequence_limit or length > self._character_limit:
            return None
        self.pending = []
        self.read = 0
        self.sequence = sequence
        self.length = length
        return pending

    def take(self) -> tuple[int, list[RunEvent]]:
        """Return the sequence number of the first event that may leave, and all events that may leave."""
        first, pending = self.sequence, self.pending
        self.read = 0
        size, text = character_counts(pending)
        if len(pending) <= self._sequence_limit - first and size <= self._character_limit - self.length:
            taken, self.pending = pending, []
        else:
            taken = self._take_some()
            size, text = character_counts(taken)
        self.sequence += len(taken)
        self.length += size
        self._other_length += size - text
        return first, taken

    def _take_some(self) -> list[RunEvent]:
        """Return the events that the credit is enough for. The last may be the first part of a longer event."""
        count = max(self._sequence_limit - self.sequence, 0)
        room = self._character_limit - self.length
        taken = self.pending[:count]
        if 0 < characters(taken) <= room:  # only the number of events is limited, as for short tokens
            del self.pending[:count]
            return taken
        taken = []
        while self.pending and len(taken) < count and room > 0:
            event = self.pending[0]
            size = event_characters(event)
            if size > room:
                if size > 2 * WINDOW_CHARACTERS:
                    # Split it into all its pieces now. To cut one piece off each time would copy the rest each time.
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
