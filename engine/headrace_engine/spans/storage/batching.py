"""Collects arrived batches of spans until they are committed together, and says which batches to acknowledge. Pure.

Batches are committed in the order in which they arrived: when there are enough spans, or when the first one has waited long enough. A
commit that fails is tried again, with growing pauses. A batch is acknowledged only after its commit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

import msgspec

MAX_SPANS = 512
"""Spans of one commit, unless a single batch has more. The ids of a commit share few pages of the indexes: larger commits cost less."""
MAX_BYTES = 512 * 1024
"""Bytes that are committed without waiting for more. A worker sends only a few batches ahead: large spans would wait for the timer."""
MAX_COMMIT_BYTES = 2 * 1024 * 1024
"""Bytes of one commit, unless a single batch has more. Decoded spans may take many times their bytes."""
MAX_DELAY = 0.1
"""Seconds that a span waits for other spans."""
FULL_BYTES = 32 * 1024 * 1024
"""Bytes that may wait. Beyond it the collector stops reading."""
FIRST_PAUSE = 0.1
MAX_PAUSE = 5.0

Sender = TypeVar("Sender", bound=Hashable)


class ArrivedBatch(msgspec.Struct, Generic[Sender], frozen=True, gc=False):
    """Encoded spans of one sender. ``since``: when they arrived. ``size``: their bytes."""

    sender: Sender
    sequence: int
    spans: Sequence[bytes]
    since: float
    size: int


class Batching(Generic[Sender]):
    """The batches that wait. ``now`` is monotonic."""

    def __init__(self) -> None:
        self.arrived_total = 0
        """How many batches have arrived."""
        self.committed_total = 0
        """How many batches are committed. They are committed in the order of their arrival."""
        self.span_count = 0
        """How many spans wait."""
        self._waiting: deque[ArrivedBatch[Sender]] = deque()
        self._taken: list[ArrivedBatch[Sender]] = []
        self._bytes = 0
        self._failures = 0
        self._not_before = 0.0
        self._hurry_until = 0

    @property
    def is_full(self) -> bool:
        """Whether the collector must stop reading."""
        return self._bytes >= FULL_BYTES

    @property
    def next_at(self) -> float | None:
        """When :meth:`take` will return batches; None if nothing waits."""
        if not self._waiting:
            return None
        first = self._waiting[0]
        is_enough = self.span_count >= MAX_SPANS or self._bytes >= MAX_BYTES
        is_due = is_enough or self.committed_total < self._hurry_until
        return max(self._not_before, first.since if is_due else first.since + MAX_DELAY)

    def arrived(self, sender: Sender, sequence: int, spans: Sequence[bytes], now: float) -> None:
        """A batch arrived."""
        batch = ArrivedBatch(sender, sequence, spans, now, sum(map(len, spans)))
        self._waiting.append(batch)
        self.arrived_total += 1
        self.span_count += len(spans)
        self._bytes += batch.size

    def hurry(self) -> None:
        """Commit all waiting batches as soon as possible."""
        self._hurry_until = self.arrived_total

    def take(self, now: float) -> list[ArrivedBatch[Sender]]:
        """Return the batches to commit now. If there are any, call :meth:`committed` or :meth:`failed` afterwards."""
        when = self.next_at
        if when is None or when > now:
            return []
        count = size = 0
        while self._waiting:
            batch = self._waiting[0]
            count, size = count + len(batch.spans), size + batch.size
            if self._taken and (count > MAX_SPANS or size > MAX_COMMIT_BYTES):
                break
            self._taken.append(self._waiting.popleft())
        return list(self._taken)

    def committed(self) -> dict[Sender, int]:
        """The taken batches are committed. Return sender → the sequence to acknowledge."""
        acknowledged = {batch.sender: batch.sequence for batch in self._taken}
        self.committed_total += len(self._taken)
        self.span_count -= sum(len(batch.spans) for batch in self._taken)
        self._bytes -= sum(batch.size for batch in self._taken)
        self._taken.clear()
        self._failures = 0
        self._not_before = 0.0
        return acknowledged

    def failed(self, now: float) -> float:
        """The taken batches could not be committed: they wait again, in the same order. Return the pause in seconds."""
        self._waiting.extendleft(reversed(self._taken))
        self._taken.clear()
        pause: float = min(FIRST_PAUSE * 2 ** min(self._failures, 10), MAX_PAUSE)
        self._failures += 1
        self._not_before = now + pause
        return pause
