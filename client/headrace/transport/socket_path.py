"""Binds a listening socket to a path: replaces no file of others, and renames or removes its file only while it is still its own."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from pathlib import Path

from headrace.files.engine_directory import is_listened_at, is_own_socket

logger = logging.getLogger(__name__)


class ListeningSocket:
    """``listener`` is the socket, bound to a path."""

    def __init__(self, path: Path, backlog: int) -> None:
        """Bind and listen. The socket file of a process that has ended is replaced. Raises OSError if another file is at the path."""
        self._path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._bind()
            self._identity = _identity(path)
            self.listener.listen(backlog)
        except BaseException:
            self.listener.close()
            raise

    def rename(self, target: Path) -> None:
        """Give the socket's file the path ``target``, if the file is still this socket's and there is none at ``target``."""
        if os.path.lexists(target) or _identity(self._path) != self._identity:
            logger.warning(
                "socket cannot be renamed",
                extra={"socket": str(self._path), "target": str(target), "reason": "another file is in its place"},
            )
            return
        with contextlib.suppress(OSError):
            self._path.rename(target)
            self._path = target

    def close(self) -> None:
        """Close the socket, and remove its file if it is still this socket's; may be called twice."""
        if self._identity is not None and _identity(self._path) == self._identity:
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._identity = None
        self.listener.close()

    def _bind(self) -> None:
        try:
            self.listener.bind(os.fspath(self._path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _make_room(self._path)
            self.listener.bind(os.fspath(self._path))


def _make_room(path: Path) -> None:
    if not is_own_socket(path) or is_listened_at(path):
        reason = f"{os.strerror(errno.EADDRINUSE)}: there is a file that is not the socket of an ended process; use another directory"
        raise OSError(errno.EADDRINUSE, reason, os.fspath(path))
    path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
