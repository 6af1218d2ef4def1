"""Locks the directory of an engine, checks that nothing foreign is in it, and removes the engine's files at the end.

The lock file is empty. The process that holds the lock is the supervisor.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from headrace.files.engine_directory import (
    BROKER_SOCKET,
    COLLECTOR_SOCKET,
    LOCK_FILE,
    foreign_entries,
    open_directory,
    remove_folder,
    remove_left_sockets,
    remove_sockets,
)
from headrace.files.private_files import open_private
from headrace.files.trusted_directory import check_directory

_LOCK_TIMEOUT = 0.3
"""Seconds to try for the lock. A program that checks whether an engine runs holds it for an instant."""
_DEATH_TIMEOUT = 2.0
"""Seconds to wait for the processes of an engine whose supervisor was killed. The kernel is ending them."""
_MAX_PID_BYTES = 16


class EngineStartError(Exception):
    """The engine cannot start. The text says why, and what to do."""


class EngineDirectory:
    """A directory that this process has locked, until :meth:`close`."""

    def __init__(self, path: Path) -> None:
        """Lock the directory.

        Raises EngineStartError if it cannot be trusted, has foreign files or another engine in it; and OSError.
        """
        self._path = path
        self._descriptors: list[int] = []
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (problem := check_directory(path)) is not None:
            raise EngineStartError(f"{problem}; mend that, or choose another directory")
        if (problem := foreign_entries(path)) is not None:
            raise EngineStartError(f"{problem}; choose an empty directory, or move that elsewhere")
        try:
            self._directory = self._kept(open_directory(path))
            self._take()
        except BaseException:
            self.close()
            raise

    def remove_sockets(self, *names: str) -> None:
        """Remove sockets of this engine's processes. A file that is not a socket of this user stays."""
        remove_sockets(self._directory, names)

    def clean(self, workers: Iterable[str], *, is_embedded: bool) -> None:
        """Remove the files of this engine, with the sockets of its ``workers``; the whole folder of an embedded engine.

        Foreign files stay, and then the folder stays too.
        """
        if is_embedded:
            remove_folder(self._path)
        else:
            self.remove_sockets(BROKER_SOCKET, COLLECTOR_SOCKET, *workers)

    def close(self) -> None:
        """Let go of the lock. May be called twice."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _take(self) -> None:
        lock = self._kept(open_private(self._path / LOCK_FILE, os.O_RDWR | os.O_CREAT))
        if not _within(_LOCK_TIMEOUT, lambda: _has_locked(lock)):
            raise EngineStartError(f"an engine runs in {self._path} already; `headrace status` shows it")
        if os.pread(lock, _MAX_PID_BYTES, 0).strip().isdigit():
            os.ftruncate(lock, 0)  # an older version wrote a pid, and sends signals to it
        if not _within(_DEATH_TIMEOUT, lambda: not remove_left_sockets(self._path, self._directory)):
            reason = f"another program listens at a socket in {self._path}"
            raise EngineStartError(f"{reason}; end that program, or choose another directory")

    def _kept(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        return descriptor


def _has_locked(lock: int) -> bool:
    """Try to take the lock. Return whether this process has it now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _within(timeout: float, is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + timeout
    while not is_so():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True
