"""Messages that have been read and not yet handled: processes and their peers take turns, so that no flood holds others up. Pure.

A process of which too much waits is busy: nothing more of it is to be read until some of that has been handled.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from headrace.transport.fair_turns import Turns

M = TypeVar("M")

SLICE = 32
"""Messages of one peer that are handled before another's."""
MAX_BYTES = 1024 * 1024
"""Bytes, as they came, of one process's messages that may wait before it is busy."""


class _Waiting(Generic[M]):
    def __init__(self, peer: bytes, process: int) -> None:
        self.peer = peer
        self.process = process
        self.messages: deque[tuple[int, M, int]] = deque()
        self.size = 0


class Inbox(Generic[M]):
    """The messages of each peer, in order."""

    def __init__(self) -> None:
        self._peers: dict[bytes, _Waiting[M]] = {}
        self._turns: Turns[_Waiting[M]] = Turns()
        self._sizes: Counter[Hashable] = Counter()
        self.busy: set[int] = set()
        """Processes of which nothing more is to be read."""

    def __bool__(self) -> bool:
        return bool(self._peers)

    def count(self, peer: bytes) -> int:
        """Return how many messages of a peer wait."""
        waiting = self._peers.get(peer)
        return len(waiting.messages) if waiting is not None else 0

    def put(self, peer: bytes, epoch: int, messages: list[M], process: int = 0, size: int = 0) -> None:
        """Add the messages of a frame of ``size`` bytes."""
        if not messages:
            return
        waiting = self._peers.get(peer)
        if waiting is None:
            waiting = self._peers[peer] = _Waiting(peer, process)
            self._turns.put(process, waiting)
        share = size // len(messages) + 1
        waiting.messages.extend([(epoch, message, share) for message in messages])
        self._add(waiting, share * len(messages))

    def take(self, limit: int) -> Iterator[tuple[bytes, int, M, int]]:
        """Yield about ``limit`` messages: who says it, its epoch, what it says, in about how many bytes. A peer may be dropped meanwhile."""
        while limit > 0 and (waiting := self._turns.take()) is not None:
            peer = waiting.peer
            if self._peers.get(peer) is not waiting:
                continue  # it was dropped
            self._turns.put(waiting.process, waiting)
            for _ in range(min(SLICE, len(waiting.messages))):
                limit -= 1
                epoch, message, share = waiting.messages.popleft()
                self._add(waiting, -share)
                yield peer, epoch, message, share
                if self._peers.get(peer) is not waiting:
                    break
            else:
                if not waiting.messages:
                    self.drop(peer)

    def drop(self, peer: bytes) -> None:
        """Forget what a peer said; unknown ones are fine."""
        waiting = self._peers.pop(peer, None)
        if waiting is not None:
            self._add(waiting, -waiting.size)
            waiting.messages.clear()

    def _add(self, waiting: _Waiting[M], size: int) -> None:
        waiting.size += size
        process = waiting.process
        total = self._sizes[process] + size
        if total:
            self._sizes[process] = total
        else:
            del self._sizes[process]
        if total > MAX_BYTES:
            self.busy.add(process)
        elif self.busy:
            self.busy.discard(process)
