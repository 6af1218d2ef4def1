"""Accepts the connections of a Router, limits how many one process may have, and accepts no more when there is no room.

Without room the socket's file has another name, so that a peer which wants to connect finds none and tries again.
"""

from __future__ import annotations

import logging
import select
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from headrace.files.engine_directory import CLOSED
from headrace.process.clock import monotonic
from headrace.transport.peer_identity import credentials
from headrace.transport.socket_path import ListeningSocket

logger = logging.getLogger(__name__)

_REOPENS_AT = 0.9
"""New connections are accepted again below this share of the limit."""
_OF_ONE_PROCESS = 2000
"""Connections that one process may have, and no more than half of all. An ordinary process has a few."""
_ACCEPTS = 16
"""Connections that are accepted in one turn of the loop."""
_BACKLOG = 1024
"""Connections that may wait until they are accepted. The kernel's own limit may be lower."""
_WARN_EVERY = 10.0
"""Seconds between two warnings about processes with too many connections."""

Credentials = tuple[int | None, int | None]
"""The pid and the user id of a peer. None if the kernel does not tell them."""


class ConnectionListener:
    """Accepts connections while there are fewer than ``max_peers``. ``epoll`` reports the listening socket."""

    def __init__(self, path: Path, max_peers: int, epoll: select.epoll) -> None:
        self._path = path
        self._max_peers = max_peers
        self._max_of_one = min(_OF_ONE_PROCESS, max(max_peers // 2, 1))
        self._epoll = epoll
        self._of_process: Counter[int] = Counter()
        self._count = 0
        self._is_accepting = False
        self._turned_away = 0
        self._warned_at = float("-inf")
        self.is_full = False
        self._socket = ListeningSocket(path, _BACKLOG)
        self._listener = self._socket.listener
        self.fd = self._listener.fileno()
        """The descriptor of the listening socket."""
        self.accept_again()

    def accept(self) -> Iterator[tuple[socket.socket, Credentials]]:
        """Yield waiting connections, a few at once. Each is counted until :meth:`connection_ended`."""
        for _ in range(_ACCEPTS):
            if self.is_full:
                return
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                self._stop_accepting()  # no descriptor or no memory: there may be one later
                return
            who = credentials(connection)
            process = who[0] or 0
            if process and self._of_process[process] >= self._max_of_one:
                self._turn_away(connection, process)
                continue
            self._of_process[process] += 1
            self._count += 1
            self._check_room()
            yield connection, who

    def _turn_away(self, connection: socket.socket, process: int) -> None:
        connection.close()
        self._turned_away += 1
        now = monotonic()
        if now >= self._warned_at + _WARN_EVERY:  # such a process tries often
            self._warned_at = now
            logger.warning("process has too many connections", extra={"pid": process, "refused": self._turned_away})

    def connection_ended(self, pid: int | None) -> bool:
        """Count a connection of process ``pid`` as ended. Return whether it was the last connection of its process."""
        process = pid or 0
        self._count -= 1
        self._of_process[process] -= 1
        is_last = not self._of_process[process]
        if is_last:
            del self._of_process[process]
        self._check_room()
        self.accept_again()
        return is_last

    def _check_room(self) -> None:
        if not self.is_full and self._count >= self._max_peers:
            self.is_full = True
            logger.warning("no room for connections", extra={"connections": self._count, "socket": str(self._path)})
            self._stop_accepting()
            self._socket.rename(self._path.with_name(self._path.name + CLOSED))
        elif self.is_full and self._count < self._max_peers * _REOPENS_AT:
            self.is_full = False
            self._socket.rename(self._path)

    def accept_again(self) -> None:
        """Accept connections again, if there is room. A descriptor may be free by now."""
        if not self._is_accepting and not self.is_full:
            self._is_accepting = True
            self._epoll.register(self.fd, select.EPOLLIN)

    @property
    def is_out_of_descriptors(self) -> bool:
        """Whether connections wait although there is room, because the process has no descriptor. See :meth:`accept_again`."""
        return not self._is_accepting and not self.is_full

    def _stop_accepting(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            self._epoll.unregister(self.fd)

    def close(self) -> None:
        """Close, and remove the socket's file if it is still this socket's."""
        self._socket.close()
