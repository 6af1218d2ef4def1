"""The spans of a worker that the collector has not acknowledged: what is sent when, what stays in memory, what is given up. Pure.

Each span that was added is acknowledged, waits, or is counted as dropped; they are sent in the order in which they were
added, and given up oldest first. What lies in the spool need not be in memory: it is read back when its turn comes.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable

import msgspec

MAX_BATCH_SPANS = 256
MAX_BATCH_BYTES = 256 * 1024
"""More would go faster in nothing: it costs a new frame's memory, each time."""
WINDOW = 8
"""Batches that may be unacknowledged."""
ENTRY_BYTES = 200
"""What a span takes of memory beside its own bytes."""

MEMORY_FULL = "memory_full"
SPOOL_FULL = "spool_full"
SPOOL_ERROR = "spool_error"

_COMPACT_AT = 1000


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a span lies in the spool."""

    segment: int
    offset: int
    length: int


Read = Callable[[Place], bytes | None]
"""Returns what lies at a place, or None when it cannot be read."""


class Batch(msgspec.Struct, frozen=True):
    """Spans to send."""

    sequence: int
    spans: list[bytes]


class _Entry:
    """A span on its way. ``data`` is None where it lies in the spool only."""

    __slots__ = ("data", "is_gone", "is_in_flight", "memory", "place", "serial", "size")

    def __init__(self, serial: int, data: bytes, place: Place | None) -> None:
        self.serial = serial
        self.size = len(data)
        self.memory = ENTRY_BYTES + self.size
        self.data: bytes | None = data
        self.place = place
        self.is_in_flight = False
        self.is_gone = False

    def forget(self) -> None:
        """What lies in the spool need not be in memory."""
        self.data = None
        self.memory = ENTRY_BYTES


class _Sent(msgspec.Struct, frozen=True):
    sequence: int
    entries: list[_Entry]


class SpanOutbox:
    """The spans of one worker. ``dropped`` counts by reason, ``untraced`` the runs that wanted no span."""

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
        # Those with data, the oldest first; where the memory is to come from when there is no more.
        self._residents: deque[_Entry] = deque()
        self._in_flight: deque[_Sent] = deque()
        # How many of the batches in flight this connection has been sent.
        self._sent = 0
        self._in_segment: Counter[int] = Counter()

    @property
    def waiting(self) -> int:
        """Spans that have not been sent."""
        return len(self._waiting) - self._gone_waiting

    @property
    def in_flight(self) -> int:
        """Spans that have been sent, and not acknowledged."""
        return sum(not entry.is_gone for batch in self._in_flight for entry in batch.entries)

    @property
    def is_empty(self) -> bool:
        """Whether everything has been acknowledged, or given up."""
        return not self._in_flight and not self.waiting

    @property
    def sequence(self) -> int:
        """The number of the last batch."""
        return self._sequence

    def add(self, data: bytes, place: Place | None) -> None:
        """A run has ended. ``place`` is where its span lies in the spool, if it does."""
        self.added += 1
        entry = _Entry(self.added, data, place)
        if place is not None and self.memory + entry.memory > self._memory_bytes:
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

    def take(self, read: Read) -> Batch | None:
        """Return the batch to send next; None while the window is full, and when there is nothing."""
        if self._sent < len(self._in_flight):
            batch = self._in_flight[self._sent]
        elif len(self._in_flight) >= WINDOW or not self.waiting:
            return None
        else:
            self._sequence += 1
            batch = _Sent(self._sequence, self._next_entries())
            self._in_flight.append(batch)
        self._sent += 1
        return Batch(batch.sequence, self._read(batch.entries, read))

    def empty_batch(self) -> Batch | None:
        """Return a batch that carries nothing but counts, None where another will carry them soon."""
        if self.is_empty:
            self._sequence += 1
            self._in_flight.append(_Sent(self._sequence, []))
            self._sent += 1
            return Batch(self._sequence, [])
        # To a collector that cannot commit nothing else may be sent: its last batch comes again, without the spans.
        is_stuck = self._sent == len(self._in_flight) and (self._sent >= WINDOW or not self.waiting)
        return Batch(self._in_flight[-1].sequence, []) if is_stuck else None

    def committed(self, sequence: int) -> None:
        """The collector has the batches up to ``sequence``. Of those that it was not sent it cannot say so."""
        while self._sent and self._in_flight[0].sequence <= sequence:
            self._sent -= 1
            for entry in self._in_flight.popleft().entries:
                if not entry.is_gone:
                    self.acknowledged += 1
                    self._let_go(entry)
        while self._residents and self._residents[0].is_gone:
            self._residents.popleft()

    def reconnected(self) -> None:
        """The collector is a new one: it is sent again what the one before did not acknowledge."""
        self._sent = 0

    def segment_dropped(self, segment: int) -> None:
        """A part of the spool is given up, and with it the spans that lie in it; what has been sent may still be acknowledged."""
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
        """Return how many spans in a part of the spool are still needed there."""
        return self._in_segment[segment]

    def has_sent_up_to(self, serial: int) -> bool:
        """Return whether the spans that were added first, ``serial`` of them, have all been sent or given up."""
        self._skip_gone()
        all_sent = self._sent == len(self._in_flight)
        return all_sent and (not self._waiting or self._waiting[0].serial > serial)

    # How it is done.

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
        """Forget what lies in the spool too, then give up the oldest; return whether there is room now."""
        if needed > self._memory_bytes:
            return False
        while self.memory + needed > self._memory_bytes and self._residents:
            entry = self._residents.popleft()
            if entry.is_gone:
                continue
            if entry.place is not None:
                entry.forget()
                self.memory -= entry.size
            elif not entry.is_in_flight:  # what is in flight may be acknowledged at any moment
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
        self._let_go(entry)

    def _let_go(self, entry: _Entry) -> None:
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
        """What was given up in the middle takes memory too."""
        self._skip_gone()
        if self._gone_waiting > max(_COMPACT_AT, len(self._waiting) // 2):
            self._waiting = deque(entry for entry in self._waiting if not entry.is_gone)
            self._gone_waiting = 0
        if len(self._residents) > max(_COMPACT_AT, 2 * (self.waiting + MAX_BATCH_SPANS * WINDOW)):
            self._residents = deque(entry for entry in self._residents if not entry.is_gone and entry.data is not None)
