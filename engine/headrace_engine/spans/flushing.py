"""Who has asked for a flush, and how far it is: workers send what they have, it is committed, the sinks take it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

Peer = TypeVar("Peer", bound=Hashable)

MAX_OPEN = 100
"""Questions of one client that are open at once; with one more the oldest is answered."""

_LONGEST = 3600.0


def bounded_timeout(asked: float) -> float:
    """Return the seconds after which a question is answered: what its client asked for, an hour at most."""
    # In this order: nan, which is neither more nor less than anything, becomes the hour.
    return max(0.0, min(_LONGEST, asked))


class OpenFlush(Generic[Peer]):
    """One question. ``marks`` are the files' last rows once all is committed: how far the sinks must be."""

    __slots__ = ("client", "commit_mark", "deadline", "marks", "token", "workers")

    def __init__(self, client: Peer, token: int, workers: set[Peer], deadline: float) -> None:
        self.client = client
        self.token = token
        self.workers = workers
        self.deadline = deadline
        self.commit_mark = 0
        self.marks: Mapping[Path, int] | None = None


class Flushes(Generic[Peer]):
    """The questions that are open. ``arrived`` and ``committed`` are totals of batches, as :mod:`batching` counts them."""

    def __init__(self) -> None:
        self._open: dict[int, OpenFlush[Peer]] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._open)

    def asked(self, client: Peer, token: int, workers: Collection[Peer], deadline: float, arrived: int) -> int:
        """A client asks; return the number under which the workers are asked in turn."""
        own = [flush for flush in self._open.values() if flush.client == client]
        if len(own) >= MAX_OPEN:
            own[0].deadline = 0.0  # it is answered now, as one that has waited long enough
        self._count += 1
        flush = self._open[self._count] = OpenFlush(client, token, set(workers), deadline)
        flush.commit_mark = arrived
        return self._count

    def flushed(self, worker: Peer, number: int, arrived: int) -> None:
        """A worker has sent all that it had; what has arrived by now must be committed."""
        flush = self._open.get(number)
        if flush is not None and worker in flush.workers:
            flush.workers.discard(worker)
            flush.commit_mark = max(flush.commit_mark, arrived)

    def left(self, peer: Peer) -> None:
        """A worker sends nothing more; or a client is not there to be told."""
        for number, flush in list(self._open.items()):
            flush.workers.discard(peer)
            if flush.client == peer:
                del self._open[number]

    def committed(self, committed: int) -> list[OpenFlush[Peer]]:
        """Return those of which all is committed: what is left is the sinks' part."""
        return [flush for flush in self._open.values() if not flush.workers and flush.commit_mark <= committed]

    def expired(self, now: float) -> list[OpenFlush[Peer]]:
        """Return those that have waited long enough."""
        return [flush for flush in self._open.values() if now >= flush.deadline]

    def answered(self, flush: OpenFlush[Peer]) -> None:
        """A question has its answer."""
        self._open = {number: known for number, known in self._open.items() if known is not flush}
