"""Peer credentials (SO_PEERCRED): which process and which user is at the other end of a Unix socket. Never closes the descriptor."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

_UCRED = struct.Struct("3i")
TELLS_PROCESSES = hasattr(socket, "SO_PEERCRED")
"""Whether the kernel tells which process is at the other end of a connection."""


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """Look at a descriptor that is ZeroMQ's, or another's. A copy would need one more, of which there may be none left."""
    connection = socket.socket(fileno=fd)
    try:
        yield connection
    finally:
        connection.detach()


def credentials(fd: int) -> tuple[int | None, int | None]:
    """Return the process and the user at the other end, where the kernel tells."""
    if not TELLS_PROCESSES:
        return None, None
    try:
        with _borrowed(fd) as connection:
            if connection.family != socket.AF_UNIX:
                return None, None
            pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    except OSError:
        return None, None
    return pid, uid


def refusal_of_peer(uid: int | None) -> str | None:
    """Return why a peer that runs as user ``uid`` must be told nothing, or None for this user; ``None``: it is unknown."""
    if uid is None:
        return "the kernel does not say whose process serves there; nothing was sent to it"
    if uid != os.geteuid():
        return f"a process of user {uid} serves there, not one of user {os.geteuid()}; nothing was sent to it"
    return None
