"""Who is at the other end of a descriptor that ZeroMQ owns. Looks at it, shuts it down, and never closes it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

_UCRED = struct.Struct("3i")
TELLS_PROCESSES = hasattr(socket, "SO_PEERCRED")
"""Whether the kernel tells which process is at the other end of a connection."""


class Peer:
    """Who is at the other end of a connection, as the kernel tells it; ``None`` where it cannot (tcp, not Linux)."""

    __slots__ = ("fd", "inode", "pid", "uid")

    def __init__(self, fd: int, inode: int | None, pid: int | None, uid: int | None) -> None:
        self.fd = fd
        self.inode = inode
        self.pid = pid
        self.uid = uid


def shut(fd: int, number: int | None) -> None:
    """Shut the connection down that has this descriptor and this inode; one that is gone is fine, another's is let be."""
    if inode(fd) != number:
        return
    with contextlib.suppress(OSError), _borrowed(fd) as connection:
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """Look at ZeroMQ's own descriptor. A copy would need another one, of which there may be none left."""
    connection = socket.socket(fileno=fd)
    try:
        yield connection
    finally:
        connection.detach()


def inode(fd: int) -> int | None:
    """Return what tells a connection from all others that have had its descriptor."""
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return None


def is_connected(peer: Peer) -> bool:
    """Return whether a peer's connection still has its descriptor, and the other end is there."""
    if inode(peer.fd) != peer.inode:
        return False
    try:
        with _borrowed(peer.fd) as connection:
            return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


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
