"""Peer credentials (SO_PEERCRED): which process and which user is at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket
import struct

_UCRED = struct.Struct("3i")
TELLS_PROCESSES = hasattr(socket, "SO_PEERCRED")
"""Whether this system's kernel tells which process is at the other end of a connection."""


def credentials(connection: socket.socket) -> tuple[int | None, int | None]:
    """Return the pid and the user id of the peer at the other end of a connection. None for what the kernel does not tell."""
    if not TELLS_PROCESSES or connection.family != socket.AF_UNIX:
        return None, None
    try:
        pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    except OSError:
        return None, None
    return pid, uid


def refusal_of_peer(uid: int | None) -> str | None:
    """Return why nothing may be sent to a peer of user ``uid`` (None: unknown). Return None for this process's user."""
    if uid is None:
        return "the kernel does not say whose process serves there; nothing was sent to it"
    if uid != os.geteuid():
        return f"a process of user {uid} serves there, not one of user {os.geteuid()}; nothing was sent to it"
    return None
