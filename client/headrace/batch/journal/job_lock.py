"""The lock of a batch job's directory: one process runs a job at a time, and others can ask which one it is."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from headrace.batch.journal.job_files import LOCK, JobFiles
from headrace.errors import JobLockedError
from headrace.files.file_locks import is_locked, take_lock
from headrace.files.private_files import open_private, open_to_read

LOCK_PATIENCE = 0.1
"""Seconds to try for a lock: a process that asks whether a file is locked locks it for an instant."""
_MOST = 1024
"""Bytes of the text in the lock file that are read."""


def lock_job(files: JobFiles) -> int:
    """Lock the job; return the descriptor that holds the lock until it is closed. Raises JobLockedError, OSError."""
    path = files.directory / LOCK
    descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        take_lock(descriptor, path, LOCK_PATIENCE)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on host {socket.gethostname()}\n".encode(), 0)
    except BlockingIOError:
        os.close(descriptor)
        raise JobLockedError(str(files.name), lock_holder(files.directory)) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock_holder(directory: Path) -> str:
    """Return which process has the job open, such as ``process 4711 on host a``; empty if none has, or it is not known."""
    path = directory / LOCK
    with contextlib.suppress(OSError):
        if is_locked(path):
            descriptor = open_to_read(path)
            try:
                return os.read(descriptor, _MOST).decode(errors="replace").strip()
            finally:
                os.close(descriptor)
    return ""


def is_job_locked(directory: Path) -> bool:
    """Return whether a process has the job open."""
    try:
        return is_locked(directory / LOCK)
    except OSError:
        return False
