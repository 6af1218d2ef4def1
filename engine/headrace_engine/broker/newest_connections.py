"""Keeps the newest connection of each process, and tells which older one it replaces. Pure.

A process whose connection broke may be back before the broker hears of the end of the older connection. What the older
connection held is then free. Otherwise the process would be refused its own leases, and would lose them when the end is
heard.
"""

from __future__ import annotations

from typing import NamedTuple


class ProcessKey(NamedTuple):
    """Tells one process from all others: its role and epoch, as it says, and its pid, as the kernel says."""

    role: str
    epoch: int
    pid: int


class NewestConnections:
    """The processes that are connected, each with its newest connection."""

    def __init__(self) -> None:
        self._peers: dict[ProcessKey, bytes] = {}
        self._processes: dict[bytes, ProcessKey] = {}

    def joined(self, peer: bytes, process: ProcessKey) -> bytes | None:
        """A process said hello on a connection.

        Return its older connection, which must be forgotten, if there is one.
        """
        older = self._peers.get(process)
        if older is not None:
            self.left(older)
        self._peers[process] = peer
        self._processes[peer] = process
        return older

    def left(self, peer: bytes) -> None:
        """A connection has ended. An unknown one does no harm."""
        process = self._processes.pop(peer, None)
        if process is not None:
            del self._peers[process]
