"""A path at which this process listens: bound without replacing what is there, renamed and removed only while it is still ours."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from pathlib import Path

from headrace.files.engine_directory import is_listened_at, is_own_socket

logger = logging.getLogger(__name__)


class ListeningPlace:
    """The path, and ``listener``, the socket that is bound there."""

    def __init__(self, path: Path, backlog: int) -> None:
        """Raises OSError where something else is there; what an ended process of this user listened at is replaced."""
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
        """Give the socket another path, if it is still at this one and nothing is at the other."""
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
        """Close the socket, and remove its file if it is still there; may be called twice."""
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
        reason = f"{os.strerror(errno.EADDRINUSE)}, by what is no socket that an ended process has left"
        raise OSError(errno.EADDRINUSE, reason, os.fspath(path))
    path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
