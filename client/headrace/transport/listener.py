"""The file and the listening socket of a Router: who is let in, how many of one process, and what happens without room.

While there is no room the file has another name, so that whoever connects finds no socket, and tries again.
"""

from __future__ import annotations

import logging
import selectors
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from headrace.files.engine_directory import CLOSED
from headrace.process.clock import monotonic
from headrace.transport.peer_identity import credentials
from headrace.transport.socket_path import ListeningPlace

logger = logging.getLogger(__name__)

_REOPENS_AT = 0.9
"""The share of the connections that there may be, below which further ones are let in again."""
_OF_ONE_PROCESS = 2000
"""Connections of one process at most, and no more than half of all. An honest one has a few."""
_ACCEPTS = 16
"""Connections that are accepted at once."""
_BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel's own bound may be lower."""
_WARN_EVERY = 10.0

Who = tuple[int | None, int | None]
"""A process and its user, as the kernel tells them."""


class Doorway:
    """Accepts connections as long as there is room for them. ``selector`` tells, with no data, when some wait."""

    def __init__(self, path: Path, max_peers: int, selector: selectors.BaseSelector) -> None:
        self._path = path
        self._max_peers = max_peers
        self._max_of_one = min(_OF_ONE_PROCESS, max(max_peers // 2, 1))
        self._selector = selector
        self._of_process: Counter[int] = Counter()
        self._count = 0
        self._is_accepting = False
        self._turned_away = 0
        self._warned_at = float("-inf")
        self.is_full = False
        self._place = ListeningPlace(path, _BACKLOG)
        self._listener = self._place.listener
        self.accept_again()

    def accept(self) -> Iterator[tuple[socket.socket, Who]]:
        """Yield connections that wait, a few at once; each counts until :meth:`left`."""
        for _ in range(_ACCEPTS):
            if self.is_full:
                return
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                self._accept_no_more()  # no descriptors, no memory: there may be some later
                return
            who = credentials(connection.fileno())
            process = who[0] or 0
            if process and self._of_process[process] >= self._max_of_one:
                self._turn_away(connection, process)
                continue
            self._of_process[process] += 1
            self._count += 1
            self._mind()
            yield connection, who

    def _turn_away(self, connection: socket.socket, process: int) -> None:
        connection.close()
        self._turned_away += 1
        now = monotonic()
        if now >= self._warned_at + _WARN_EVERY:  # whoever does this does it often
            self._warned_at = now
            logger.warning("process has too many connections", extra={"pid": process, "refused": self._turned_away})

    def left(self, pid: int | None) -> bool:
        """A connection has ended; return whether it was its process's last one."""
        process = pid or 0
        self._count -= 1
        self._of_process[process] -= 1
        is_last = not self._of_process[process]
        if is_last:
            del self._of_process[process]
        self._mind()
        self.accept_again()
        return is_last

    def _mind(self) -> None:
        if not self.is_full and self._count >= self._max_peers:
            self.is_full = True
            logger.warning("no room for connections", extra={"connections": self._count, "socket": str(self._path)})
            self._accept_no_more()
            self._place.rename(self._path.with_name(self._path.name + CLOSED))
        elif self.is_full and self._count < self._max_peers * _REOPENS_AT:
            self.is_full = False
            self._place.rename(self._path)

    def accept_again(self) -> None:
        """Look for connections again, if there is room: a descriptor may be free by now."""
        if not self._is_accepting and not self.is_full:
            self._is_accepting = True
            self._selector.register(self._listener, selectors.EVENT_READ, None)

    @property
    def is_out_of_descriptors(self) -> bool:
        """Whether connections wait though there is room: the process has no descriptor for them. See :meth:`accept_again`."""
        return not self._is_accepting and not self.is_full

    def _accept_no_more(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            self._selector.unregister(self._listener)

    def close(self) -> None:
        """Close, and remove the file, unless it is another's by now."""
        self._place.close()
