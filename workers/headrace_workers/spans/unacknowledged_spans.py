"""The spans that the collector has not acknowledged: which are sent next, kept in memory, or dropped. Pure.

Each added span is acknowledged, waiting, or counted as dropped. Spans are sent in the order in which they were added,
and the oldest is dropped first. A span in the spool need not be in memory: it is read back when it is sent.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable

import msgspec

MAX_BATCH_SPANS = 256
MAX_BATCH_BYTES = 256 * 1024
"""Bytes of spans in one batch. Larger batches are no faster, and each would need new memory for its frame."""
WINDOW = 8
"""Batches that may be sent before the first of them is acknowledged."""
ENTRY_BYTES = 200
"""Bytes of memory that a span takes, beside its own bytes."""

MEMORY_FULL = "memory_full"
SPOOL_FULL = "spool_full"
SPOOL_ERROR = "spool_error"

_COMPACT_AT = 1000


class SpoolPlace(msgspec.Struct, frozen=True, gc=False):
    """The place of a span in the spool: the number of its file, its offset and length in bytes."""

    segment: int
    offset: int
    length: int


Read = Callable[[SpoolPlace], bytes | None]
"""Returns the span at a place, or None if it cannot be read."""


class OutgoingBatch(msgspec.Struct, frozen=True, gc=False):
    """One batch of spans to send."""

    sequence: int
    spans: list[bytes]


class _Entry(msgspec.Struct, gc=False, eq=False):
    """One unacknowledged span. ``data`` is None if the span is only in the spool. ``size``: its bytes. ``memory``: those in memory."""

    serial: int
    size: int
    memory: int
    data: bytes | None
    place: SpoolPlace | None
    is_in_flight: bool = False
    is_gone: bool = False

    def forget(self) -> None:
        """Remove the span from memory. It stays in the spool."""
        self.data = None
        self.memory = ENTRY_BYTES


class _SentBatch(msgspec.Struct, frozen=True):
    sequence: int
    entries: list[_Entry]


class UnacknowledgedSpans:
    """The unacknowledged spans of one worker.

    ``dropped``: reason → spans. ``untraced``: runs that asked for no span.
    """

    def __init__(self, memory_bytes: int) -> None:
        self.dropped: Counter[str] = Counter()
        self.untraced = 0
        self.added = 0
        self.acknowledged = 0
        self.memory = 0
        self._memory_bytes = memory_bytes
        self._sequence = 0
        self._waiting: deque[_Entry] = deque()
        self._gone_waiting = 0
        # Spans in memory, the oldest first: the first ones are removed when memory is full.
        self._residents: deque[_Entry] = deque()
        self._in_flight: deque[_SentBatch] = deque()
        # The number of batches in flight that were sent over the current connection.
        self._sent = 0
        self._in_segment: Counter[int] = Counter()

    @property
    def waiting(self) -> int:
        """The number of spans that have not been sent."""
        return len(self._waiting) - self._gone_waiting

    @property
    def in_flight(self) -> int:
        """The number of spans that were sent and not acknowledged."""
        return sum(not entry.is_gone for batch in self._in_flight for entry in batch.entries)

    @property
    def is_empty(self) -> bool:
        """Whether every span was acknowledged or dropped."""
        return not self._in_flight and not self.waiting

    @property
    def sequence(self) -> int:
        """The number of the last batch."""
        return self._sequence

    def add(self, data: bytes, place: SpoolPlace | None) -> None:
        """Add the span of an ended run. ``place`` is its place in the spool, or None if it could not be written."""
        self.added += 1
        size = len(data)
        entry = _Entry(self.added, size, ENTRY_BYTES + size, data, place)
        if self.memory + entry.memory > self._memory_bytes:
            if place is not None:
                entry.forget()
            if self.memory + entry.memory > self._memory_bytes and not self._make_room(entry.memory):
                self.dropped[MEMORY_FULL] += 1
                return
        self.memory += entry.memory
        self._waiting.append(entry)
        if entry.data is not None:
            self._residents.append(entry)
        if place is not None:
            self._in_segment[place.segment] += 1

    def take(self, read: Read) -> OutgoingBatch | None:
        """Return the batch to send next, or None if the window is full or no span waits."""
        if self._sent < len(self._in_flight):
            batch = self._in_flight[self._sent]
        elif len(self._in_flight) >= WINDOW or not self.waiting:
            return None
        else:
            self._sequence += 1
            batch = _SentBatch(self._sequence, self._next_entries())
            self._in_flight.append(batch)
        self._sent += 1
        return OutgoingBatch(batch.sequence, self._read(batch.entries, read))

    def empty_batch(self) -> OutgoingBatch | None:
        """Return a batch without spans, which carries only the counts. None if another batch will carry them soon."""
        if self.is_empty:
            self._sequence += 1
            self._in_flight.append(_SentBatch(self._sequence, []))
            self._sent += 1
            return OutgoingBatch(self._sequence, [])
        # The window is full because the collector cannot store spans. Send the number of its last batch again, without
        # spans.
        is_stuck = self._sent == len(self._in_flight) and (self._sent >= WINDOW or not self.waiting)
        return OutgoingBatch(self._in_flight[-1].sequence, []) if is_stuck else None

    def committed(self, sequence: int) -> None:
        """The collector has stored the batches up to ``sequence``. Batches that it was not sent do not count."""
        while self._sent and self._in_flight[0].sequence <= sequence:
            self._sent -= 1
            for entry in self._in_flight.popleft().entries:
                if not entry.is_gone:
                    self.acknowledged += 1
                    self._release(entry)
        while self._residents and self._residents[0].is_gone:
            self._residents.popleft()

    def reconnected(self) -> None:
        """The collector may be a new one: send the unacknowledged batches again."""
        self._sent = 0

    def segment_dropped(self, segment: int) -> None:
        """A file of the spool is removed. Drop its waiting spans. Spans in flight may still be acknowledged."""
        for batch in self._in_flight:
            for entry in batch.entries:
                if not entry.is_gone and entry.place is not None and entry.place.segment == segment:
                    entry.place = None
        for entry in self._waiting:
            if not entry.is_gone and entry.place is not None and entry.place.segment == segment:
                self._drop(entry, SPOOL_FULL)
        del self._in_segment[segment]
        self._compact()

    def unacknowledged(self, segment: int) -> int:
        """Return the number of unacknowledged spans in a file of the spool."""
        return self._in_segment[segment]

    def has_sent_up_to(self, serial: int) -> bool:
        """Return whether the first ``serial`` spans that were added have all been sent or dropped."""
        self._skip_gone()
        all_sent = self._sent == len(self._in_flight)
        return all_sent and (not self._waiting or self._waiting[0].serial > serial)

    def _next_entries(self) -> list[_Entry]:
        entries: list[_Entry] = []
        size = 0
        while self._waiting and len(entries) < MAX_BATCH_SPANS:
            entry = self._waiting[0]
            if entry.is_gone:
                self._gone_waiting -= 1
            elif entries and size + entry.size > MAX_BATCH_BYTES:
                break
            else:
                entry.is_in_flight = True
                entries.append(entry)
                size += entry.size
            self._waiting.popleft()
        return entries

    def _read(self, entries: Iterable[_Entry], read: Read) -> list[bytes]:
        spans: list[bytes] = []
        for entry in entries:
            if entry.is_gone:
                continue
            data = entry.data
            if data is None and entry.place is not None:
                data = read(entry.place)
            if data is not None:
                spans.append(data)
            else:
                self._drop(entry, SPOOL_FULL if entry.place is None else SPOOL_ERROR)
        return spans

    def _make_room(self, needed: int) -> bool:
        """Remove spans from memory that are also in the spool, then drop the oldest.

        Return whether there is room now.
        """
        if needed > self._memory_bytes:
            return False
        while self.memory + needed > self._memory_bytes and self._residents:
            entry = self._residents.popleft()
            if entry.is_gone:
                continue
            if entry.place is not None:
                entry.forget()
                self.memory -= entry.size
            elif not entry.is_in_flight:  # a span in flight may be acknowledged at any moment
                self._drop(entry, MEMORY_FULL)
        while self.memory + needed > self._memory_bytes and self.waiting:
            self._skip_gone()
            self._drop(self._waiting[0], MEMORY_FULL)
        self._compact()
        return self.memory + needed <= self._memory_bytes

    def _drop(self, entry: _Entry, reason: str) -> None:
        self.dropped[reason] += 1
        if not entry.is_in_flight:
            self._gone_waiting += 1
        self._release(entry)

    def _release(self, entry: _Entry) -> None:
        self.memory -= entry.memory
        if entry.place is not None:
            self._in_segment[entry.place.segment] -= 1
        entry.is_gone = True
        entry.data = None

    def _skip_gone(self) -> None:
        while self._waiting and self._waiting[0].is_gone:
            self._waiting.popleft()
            self._gone_waiting -= 1

    def _compact(self) -> None:
        """Remove the entries of dropped spans from the queues if they are many."""
        self._skip_gone()
        if self._gone_waiting > max(_COMPACT_AT, len(self._waiting) // 2):
            self._waiting = deque(entry for entry in self._waiting if not entry.is_gone)
            self._gone_waiting = 0
        if len(self._residents) > max(_COMPACT_AT, 2 * (self.waiting + MAX_BATCH_SPANS * WINDOW)):
            self._residents = deque(entry for entry in self._residents if not entry.is_gone and entry.data is not None)
