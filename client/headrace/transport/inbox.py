"""The messages that have been read and not handled yet. Processes and their peers take turns, so that no flood delays the others. Pure.

A process with too many waiting bytes is busy. Read nothing more from a busy process until some of its messages are handled.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from headrace.transport.fair_turns import FairTurns

M = TypeVar("M")

SLICE = 32
"""Messages of one peer that are handled before the messages of the next peer."""
MAX_BYTES = 1024 * 1024
"""Encoded bytes of one process's messages that may wait. Above it the process is busy."""


class _PeerQueue(Generic[M]):
    def __init__(self, peer: bytes, process: int) -> None:
        self.peer = peer
        self.process = process
        self.messages: deque[tuple[int, M, int]] = deque()
        self.size = 0


class Inbox(Generic[M]):
    """The waiting messages of each peer, in order. ``weigh`` says as how many messages one message counts."""

    def __init__(self, weigh: Callable[[M], int] = lambda _: 1) -> None:
        self._weigh = weigh
        self._peers: dict[bytes, _PeerQueue[M]] = {}
        self._turns: FairTurns[_PeerQueue[M]] = FairTurns()
        self._sizes: Counter[Hashable] = Counter()
        self.busy: set[int] = set()
        """Processes from which nothing more is to be read for now."""

    def __bool__(self) -> bool:
        return bool(self._peers)

    def put(self, peer: bytes, epoch: int, messages: list[M], process: int = 0, size: int = 0) -> None:
        """Add the messages of a frame of ``size`` bytes."""
        if not messages:
            return
        queue = self._peers.get(peer)
        if queue is None:
            queue = self._peers[peer] = _PeerQueue(peer, process)
            self._turns.put(process, queue)
        share = size // len(messages) + 1
        queue.messages.extend([(epoch, message, share) for message in messages])
        self._add(queue, share * len(messages))

    def take(self, limit: int) -> Iterator[tuple[bytes, int, M, int]]:
        """Yield about ``limit`` messages, each as (peer, epoch, message, its approximate bytes). A peer may be dropped meanwhile."""
        while limit > 0 and (queue := self._turns.take()) is not None:
            peer = queue.peer
            if self._peers.get(peer) is not queue:
                continue  # the peer was dropped
            self._turns.put(queue.process, queue)
            left = SLICE
            while left > 0 and queue.messages:
                epoch, message, share = queue.messages.popleft()
                weight = self._weigh(message)
                left -= weight
                limit -= weight
                self._add(queue, -share)
                yield peer, epoch, message, share
                if self._peers.get(peer) is not queue:
                    break
            else:
                if not queue.messages:
                    self.drop(peer)

    def drop(self, peer: bytes) -> None:
        """Forget the waiting messages of a peer. An unknown peer is ignored."""
        queue = self._peers.pop(peer, None)
        if queue is not None:
            self._add(queue, -queue.size)
            queue.messages.clear()

    def _add(self, queue: _PeerQueue[M], size: int) -> None:
        queue.size += size
        process = queue.process
        total = self._sizes[process] + size
        if total:
            self._sizes[process] = total
        else:
            del self._sizes[process]
        if total > MAX_BYTES:
            self.busy.add(process)
        elif self.busy:
            self.busy.discard(process)
