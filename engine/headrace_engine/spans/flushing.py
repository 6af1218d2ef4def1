"""Tracks open flushes: workers send their spans, the spans are committed, the sinks take them, the client gets an answer. Pure.

Flushes that are asked for in one turn of the loop go on together. The workers are asked once for all of them, so that many flushes are
no load for the workers.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

Peer = TypeVar("Peer", bound=Hashable)

MAX_OPEN = 256
"""Flushes of one process that may be open at once, on all its connections. With one more, the oldest is answered."""

_LONGEST = 3600.0


def bounded_timeout(asked: float) -> float:
    """Return the seconds after which a flush is answered in any case: as the client asked, at most an hour."""
    # The order of the arguments matters: it turns NaN into one hour.
    return max(0.0, min(_LONGEST, asked))


class OpenFlush(Generic[Peer]):
    """One flush. ``marks``: file → last row when all was committed. The sinks must come so far."""

    __slots__ = ("client", "commit_mark", "deadline", "marks", "number", "process", "token", "workers")

    def __init__(self, client: Peer, process: Hashable, token: int, deadline: float) -> None:
        self.client = client
        self.process = process
        self.token = token
        self.deadline = deadline
        self.number = 0
        """The number with which the workers were asked; 0 before they are asked."""
        self.workers: set[Peer] = set()
        self.commit_mark = 0
        self.marks: Mapping[Path, int] | None = None


class Flushes(Generic[Peer]):
    """The open flushes. ``arrived`` and ``committed`` are totals of batches: see ``storage/batching.py``."""

    def __init__(self) -> None:
        self._open: dict[OpenFlush[Peer], None] = {}
        self._by_process: dict[Hashable, dict[OpenFlush[Peer], None]] = {}
        self._too_many: list[OpenFlush[Peer]] = []
        self._is_one_new = False
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._open or self._too_many)

    @property
    def is_one_new(self) -> bool:
        """Whether there is a flush for which no worker was asked yet."""
        return self._is_one_new

    def asked(self, client: Peer, process: Hashable, token: int, deadline: float) -> None:
        """A client asks for a flush. ``client`` is one connection of ``process``."""
        own = self._by_process.setdefault(process, {})
        if len(own) >= MAX_OPEN:
            oldest = next(iter(own))
            self._forget(oldest)
            self._too_many.append(oldest)
        flush = OpenFlush(client, process, token, deadline)
        self._open[flush] = self._by_process.setdefault(process, own)[flush] = None
        self._is_one_new = True

    def begin(self, workers: Collection[Peer], arrived: int) -> int:
        """Begin the new flushes with these workers. Return the number with which to ask the workers."""
        self._is_one_new = False
        self._count += 1
        for flush in self._open:
            if not flush.number:
                flush.number, flush.workers, flush.commit_mark = self._count, set(workers), arrived
        return self._count

    def flushed(self, worker: Peer, number: int, arrived: int) -> None:
        """A worker has sent all spans that it had when it was asked. All batches that have arrived must now be committed."""
        for flush in self._open:
            if flush.number <= number and worker in flush.workers:
                flush.workers.discard(worker)
                flush.commit_mark = max(flush.commit_mark, arrived)

    def left(self, peer: Peer) -> None:
        """A peer has gone: a worker sends no more spans, or a client needs no answer."""
        self._too_many = [flush for flush in self._too_many if flush.client != peer]
        for flush in list(self._open):
            flush.workers.discard(peer)
            if flush.client == peer:
                self._forget(flush)

    def committed(self, committed: int) -> list[OpenFlush[Peer]]:
        """Return the flushes for which all spans are committed. They wait only for the sinks."""
        return [flush for flush in self._open if flush.number and not flush.workers and flush.commit_mark <= committed]

    def expired(self, now: float) -> list[OpenFlush[Peer]]:
        """Return the flushes to answer now: their time is over, or their process has too many newer flushes."""
        return [*self._too_many, *(flush for flush in self._open if now >= flush.deadline)]

    def answered(self, flushes: Collection[OpenFlush[Peer]]) -> None:
        """These flushes were answered."""
        done = set(flushes)
        self._too_many = [flush for flush in self._too_many if flush not in done]
        for flush in done:
            self._forget(flush)

    def _forget(self, flush: OpenFlush[Peer]) -> None:
        if flush in self._open:
            del self._open[flush]
            own = self._by_process[flush.process]
            del own[flush]
            if not own:
                del self._by_process[flush.process]
