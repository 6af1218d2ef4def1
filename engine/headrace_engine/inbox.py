"""Messages that have been read and not yet handled: peers take turns, so that a flood of one holds nobody else up. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

M = TypeVar("M")

SLICE = 32
"""Messages of one peer that are handled before another's."""


class Inbox(Generic[M]):
    """The messages of each peer, in order."""

    def __init__(self) -> None:
        # In the order of their turns.
        self._peers: dict[bytes, deque[tuple[int, M]]] = {}

    def __bool__(self) -> bool:
        return bool(self._peers)

    def count(self, peer: bytes) -> int:
        """Return how many messages of a peer wait."""
        return len(self._peers.get(peer, ()))

    def put(self, peer: bytes, epoch: int, messages: list[M]) -> None:
        """Add the messages of a frame."""
        if messages:
            self._peers.setdefault(peer, deque()).extend([(epoch, message) for message in messages])

    def take(self, limit: int) -> Iterator[tuple[bytes, int, M]]:
        """Yield about ``limit`` messages. A peer may be dropped meanwhile."""
        while self._peers and limit > 0:
            peer = next(iter(self._peers))
            waiting = self._peers.pop(peer)
            self._peers[peer] = waiting  # to the end
            for _ in range(min(SLICE, len(waiting))):
                limit -= 1
                yield (peer, *waiting.popleft())
                if self._peers.get(peer) is not waiting:
                    break
            else:
                if not waiting:
                    del self._peers[peer]

    def drop(self, peer: bytes) -> None:
        """Forget what a peer said; unknown ones are fine."""
        self._peers.pop(peer, None)
