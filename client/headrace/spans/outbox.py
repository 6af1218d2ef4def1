"""The spans that a client or the broker sends to the collector: which are sent next, and which are unacknowledged.

Pure.

These spans live in memory only. A worker has more to lose: it keeps its spans on disk.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

from headrace.wire.messages import SpanBatch

MAX_BATCH_SPANS = 256
MAX_BATCH_BYTES = 1024 * 1024
FULL = "memory_full"
"""The reason for dropped spans."""


class SpanOutbox:
    """The encoded spans of one sender, the oldest first.

    At most ``max_spans`` spans with ``max_bytes`` bytes are kept.
    """

    def __init__(self, max_spans: int, max_bytes: int) -> None:
        self._max_spans = max_spans
        self._max_bytes = max_bytes
        self._unsent: deque[bytes] = deque()
        self._sent: deque[tuple[int, list[bytes]]] = deque()
        self._sequence = 0
        self._count = 0
        self._bytes = 0
        self._dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._count

    def add(self, span: bytes) -> None:
        """Add a span. If there is no room, drop the oldest spans."""
        self._unsent.append(span)
        self._count += 1
        self._bytes += len(span)
        while self._count > 1 and (self._count > self._max_spans or self._bytes > self._max_bytes):
            self._drop_oldest()

    def batches(self) -> Iterator[SpanBatch]:
        """Yield batches of the spans that were not sent over this connection."""
        while self._unsent:
            spans: list[bytes] = []
            size = 0
            while self._unsent and len(spans) < MAX_BATCH_SPANS:
                size += len(self._unsent[0])
                if spans and size > MAX_BATCH_BYTES:
                    break
                spans.append(self._unsent.popleft())
            self._sequence += 1
            self._sent.append((self._sequence, spans))
            yield SpanBatch(self._sequence, list(spans), dict(self._dropped))

    def acknowledged(self, sequence: int) -> None:
        """The collector has stored all batches up to ``sequence``."""
        while self._sent and self._sent[0][0] <= sequence:
            for span in self._sent.popleft()[1]:
                self._forget(span)

    def disconnected(self) -> None:
        """The connection is lost: send unacknowledged spans again, in their order."""
        for _, spans in reversed(self._sent):
            self._unsent.extendleft(reversed(spans))
        self._sent.clear()

    def _drop_oldest(self) -> None:
        if self._sent:
            spans = self._sent[0][1]
            oldest = spans.pop(0)
            if not spans:
                self._sent.popleft()
        else:
            oldest = self._unsent.popleft()
        self._forget(oldest)
        self._dropped[FULL] += 1

    def _forget(self, span: bytes) -> None:
        self._count -= 1
        self._bytes -= len(span)
