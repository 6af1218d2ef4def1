"""Which connection each process has: the newest. Pure.

A process that was cut off may be back before the end of its earlier connection is heard of. What the earlier one held is then
nobody's: were it another's, the process would be refused what it holds itself, and lose it when the late word comes.
"""

from __future__ import annotations

from typing import NamedTuple


class Incarnation(NamedTuple):
    """What tells a process from all others: what it says of itself, and what the kernel says."""

    role: str
    epoch: int
    pid: int


class Incarnations:
    """The processes that are connected."""

    def __init__(self) -> None:
        self._peers: dict[Incarnation, bytes] = {}
        self._processes: dict[bytes, Incarnation] = {}

    def joined(self, peer: bytes, process: Incarnation) -> bytes | None:
        """A process said hello; return its earlier connection, which is to be forgotten."""
        earlier = self._peers.get(process)
        if earlier is not None:
            self.left(earlier)
        self._peers[process] = peer
        self._processes[peer] = process
        return earlier

    def left(self, peer: bytes) -> None:
        """A connection has ended; unknown ones are fine."""
        process = self._processes.pop(peer, None)
        if process is not None:
            del self._peers[process]
