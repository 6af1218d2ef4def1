"""Connects to a Unix socket, and asks the kernel whose process listens there (SO_PEERCRED). Nothing is sent."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from headrace.files.engine_directory import CLOSED
from headrace.files.trusted_directory import directory_refusal
from headrace.transport.peer_identity import TELLS_PROCESSES, credentials, refusal_of_peer

OTHER_PROCESS = "an unexpected process listens at this socket"
"""Why nothing is sent to a process of this user that is not the expected one."""


class CheckedConnection(NamedTuple):
    """The result of :func:`connect`. ``connected`` is None if no process listens, or it may not be used."""

    connected: socket.socket | None
    pid: int = 0
    """The process that listens. 0 while it is unknown, or if it has no pid here because it runs in another container."""
    refusal: str | None = None
    """Why the process that listens may not be used. None if none listens."""


def connect(endpoint: str, expects: Callable[[int], bool] | None) -> CheckedConnection:
    """Connect to a process of this user. ``expects`` says whether the process with a pid is the right one.

    It is not asked if the kernel does not tell the pids of peers. Raises OSError if there is no descriptor or the path is too long for a
    socket, FileNotFoundError if there is no socket at ``endpoint``, and UntrustedDirectoryError if its directory is not to be trusted.
    """
    path = Path(endpoint.removeprefix("ipc://"))
    path.lstat()  # raises if there is no socket: the rest would cost a hundred times as much
    if (refusal := directory_refusal(path.parent)) is not None:
        raise refusal
    connected = _connected(path)
    if connected is None:
        return CheckedConnection(None)
    with contextlib.ExitStack() as stack:
        stack.callback(connected.close)
        checked = _check(connected, path, expects if TELLS_PROCESSES else None)
        if checked.connected is not None:
            stack.pop_all()
    return checked


def _check(connected: socket.socket, path: Path, expects: Callable[[int], bool] | None) -> CheckedConnection:
    """Find out who the peer is, and whether it is the right process of this user."""
    pid, uid = credentials(connected)
    if (refusal := refusal_of_peer(uid)) is not None:
        return CheckedConnection(None, refusal=refusal)
    owner = _owner_of_place(path)
    if owner is None:
        return CheckedConnection(None)  # the process that listens has gone, or will go soon
    if owner != os.geteuid():
        refusal = f"user {owner} has made the socket {path}, not user {os.geteuid()}; nothing was sent to it"
        return CheckedConnection(None, refusal=refusal)
    if expects is not None and not expects(pid or 0):
        return CheckedConnection(None, refusal=OTHER_PROCESS)
    return CheckedConnection(connected, pid or 0)


def _connected(path: Path) -> socket.socket | None:
    """Return a connected socket. None if no process listens, or too many wait to be accepted. Raises OSError without a descriptor."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.connect(os.fspath(path))
    except OSError as error:
        made.close()
        if error.errno is None:  # Python's own check
            raise OSError(errno.ENAMETOOLONG, f"the path of the socket is too long: {path}") from None
        return None
    return made


def _owner_of_place(path: Path) -> int | None:
    """Return the user who has made the socket's file, also while it has the name of a socket that takes no connections.

    None if there is no file. The kernel tells only which process called ``listen``. That process may have got the socket from another
    user, who can still read what is sent there.
    """
    for place in (path, path.with_name(path.name + CLOSED)):
        with contextlib.suppress(FileNotFoundError):
            return place.stat().st_uid
    return None
