"""Locks files between processes (``flock``), and says whether another process has locked a file."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from time import monotonic

from headrace.files.private_files import open_to_read

_LOOK_EVERY = 0.01
"""Seconds between two attempts to lock a file that another process has locked."""


def take_lock(descriptor: int, path: str | Path, timeout: float) -> None:
    """Lock an open file or directory for this process alone. Wait at most ``timeout`` seconds for the lock.

    Raises BlockingIOError if another process still has it then: every user who may read a file can lock it, and keep it locked.
    """
    deadline = monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= deadline:
                raise BlockingIOError(
                    errno.EWOULDBLOCK, "another program keeps it locked (`lslocks` shows which)", str(path)
                ) from None
            time.sleep(_LOOK_EVERY)
        else:
            return


def is_locked(path: str | Path, *, counts_shared: bool = False) -> bool:
    """Return whether another process has locked a file. A shared lock counts only with ``counts_shared``.

    Links are not followed. Raises OSError if the file cannot be opened, FileNotFoundError if there is no file.
    """
    descriptor = open_to_read(path)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if counts_shared else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
