"""The events of one run that wait to be sent: sequence numbers, credit, and when to stop reading. Pure.

Without credit, pending deltas are merged. When more than a window is pending, the run stops reading from its provider.

A stream *flows* while each text leaves in the turn in which it comes: there is credit, and no limit is near. Credit and limits are then
looked at once for each frame, in :meth:`OutgoingEvents.text_chunk`, and not for each text.
"""

from __future__ import annotations

from headrace.types import RunEvent
from headrace.wire.flow import character_counts, characters, event_characters
from headrace.wire.messages import WINDOW_CHARACTERS, WINDOW_EVENTS, Chunk
from headrace_workers.providers.shared.answer_limits import MAX_PIECES, MAX_WIDE_TEXT
from headrace_workers.runs.event_merging import merge_neighbours, pieces_of, split_within
from headrace_workers.runs.repeated_deltas import NO_DELTAS

_MAX_WAITING = 4 * WINDOW_EVENTS
"""Events that may be pending. Characters alone are no bound: some events have none, and cannot be merged."""
_MAX_FLOWING = MAX_PIECES // 2
"""Events after which a stream flows no more, so that all of them are counted. One turn reads far fewer than the rest."""
_MAX_READ = WINDOW_CHARACTERS
"""Bytes of the response that are read before events must leave.

After a stall, the kernel holds megabytes, and one turn of the loop could read them all.
"""


class OutgoingEvents:
    """The events of one run on their way to its client.

    ``sequence`` is the number of the next event to leave.
    ``read`` is how many bytes of the response were read since the first of the pending events came: its owner counts them.
    ``length`` counts characters of all kinds, without those of the pending events: those that have left take credit. If
    events are dropped, nothing follows that needs credit.
    ``deltas`` may add the texts of a read to ``pending`` as long as the stream flows. NO_DELTAS: each read is mapped.
    ``flows_until``: the sequence number at which the stream flows no more, if credit does not come before. Zero: it does not flow.
    ``copies``: a list that gets each text which leaves while the stream flows, or None.
    """

    __slots__ = (
        "_attempt",
        "_character_limit",
        "_flows_until_length",
        "_other_length",
        "_sequence_limit",
        "_span_id",
        "_unnumbered",
        "copies",
        "deltas",
        "flows_until",
        "length",
        "pending",
        "read",
        "sequence",
    )

    def __init__(
        self,
        sequence_limit: int,
        character_limit: int,
        span_id: str = "",
        attempt: int = 1,
        copies: list[RunEvent] | None = None,
    ) -> None:
        self._span_id = span_id
        self._attempt = attempt
        self.copies = copies
        self.deltas = NO_DELTAS
        self.flows_until = self._flows_until_length = 0
        self._unnumbered = 0  # events that came and get no number: merged into others, or dropped
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
        if self.flows_until:
            self.flow()

    def within_window(self, sequence_limit: int, character_limit: int) -> tuple[int, int]:
        """Return the limits, at most one window beyond what was sent. No honest client allows more."""
        return (
            min(sequence_limit, self.sequence + WINDOW_EVENTS),
            min(character_limit, self.length + WINDOW_CHARACTERS),
        )

    @property
    def is_flooded(self) -> bool:
        """Whether the run must send events before it reads more: it has read a whole window since the first pending event came."""
        return self.read >= _MAX_READ

    @property
    def came(self) -> int:
        """How many events have come. An event that was split counts as its parts."""
        return self.sequence + len(self.pending) + self._unnumbered

    @property
    def has_flowing_text(self) -> bool:
        """Whether the run has text that came in this turn of the loop. The worker sends it at the end of the turn."""
        return self.flows_until > 0 and bool(self.pending)

    def flow(self) -> None:
        """From now on the stream flows, if credit and limits allow it. It ends with :meth:`stop`, or when they do not."""
        self.flows_until = min(self._sequence_limit, _MAX_FLOWING)
        self._flows_until_length = min(self._character_limit, MAX_WIDE_TEXT)
        self._look_at_limits()

    def _look_at_limits(self) -> None:
        if self.sequence >= self.flows_until or self.length >= self._flows_until_length:
            self.stop()

    def stop(self) -> None:
        """The stream flows no more: each read is mapped and counted."""
        self.flows_until, self.deltas = 0, NO_DELTAS

    def drop(self) -> list[RunEvent]:
        """Return the pending events, and forget them: they are not sent."""
        dropped, self.pending = self.pending, []
        self._unnumbered += len(dropped)
        size = characters(dropped)
        self.length += size
        self._other_length += size
        return dropped

    def drop_all_but_last(self) -> None:
        """Forget the pending events but the newest."""
        self._unnumbered += len(self.pending) - 1
        del self.pending[:-1]

    def waiting_is_full(self) -> bool:
        """Return whether a whole window is pending and there is no credit.

        Merges the pending events, which bounds their size.
        """
        if self.has_credit:
            return False
        if len(self.pending) > 1:
            merged = merge_neighbours(self.pending)
            self._unnumbered += len(self.pending) - len(merged)
            self.pending = merged
        return len(self.pending) >= _MAX_WAITING or characters(self.pending) >= WINDOW_CHARACTERS

    def waiting_is_low(self) -> bool:
        """Return whether a paused run may read again: there is credit, and half a window at most is pending."""
        if not self.has_credit or len(self.pending) >= _MAX_WAITING // 2:
            return False
        return characters(self.pending) < WINDOW_CHARACTERS // 2

    def text_chunk(self) -> Chunk | None:
        """Return all pending events as one chunk if they are text, the stream flows, and credit is left after them. Else return None."""
        texts, first = self.pending, self.sequence
        sequence = first + len(texts)
        if sequence >= self.flows_until:
            return None
        try:
            length = self.length + len("".join(texts))  # type: ignore[arg-type]
        except TypeError:  # not all of them are text
            self.stop()
            return None
        if length >= self._flows_until_length or not texts:
            return None
        self.pending = []
        self.sequence = sequence
        self.length = length
        if self.copies is not None:
            self.copies += texts
        return Chunk(self._span_id, self._attempt, first, texts)

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
        if self.flows_until:
            self._look_at_limits()
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
