"""Keeps the logs of embedded engines in the data directory: makes a log, lists all logs, and removes old ones.

A log stays for a week after the end of its engine. Every process of an engine keeps the log open and locked: a log that
is not locked belongs to an engine that has ended. The supervisor bounds the size of its engine's log.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from headrace.errors import ConfigurationError
from headrace.files.file_locks import is_locked
from headrace.files.private_files import make_directories, open_private, open_to_read
from headrace.files.state_directory import sockets_place, state_directory
from headrace.files.trusted_directory import check_directory
from headrace.settings.settings import SpansConfig
from headrace.spans.data_directory import data_directory

KEPT_SECONDS = 7 * 24 * 3600.0
"""Seconds for which a log is kept after the end of its engine."""
MAX_LOGS = 1000
"""How many logs are kept. A program may start an engine each second."""
MAX_BYTES = 200 * 1024 * 1024
"""How many bytes all logs may have together."""

_DIRECTORY = "logs"
_TIME = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"engine-([0-9]{8}T[0-9]{6}Z)-([1-9][0-9]*)-[0-9a-f]{6}\.log")
_READ_BYTES = 64 * 1024
"""Bytes that are read of the end of a log, for the text of an error."""


class KeptLog(msgspec.Struct, frozen=True):
    """The log of one embedded engine."""

    path: Path
    started: str
    """When the engine was started: ``20261129T063012Z``, in UTC."""
    program: int
    """The process id of the program that started the engine."""
    size: int
    """Bytes."""
    touched_at: float
    """When the engine was last seen alive, in seconds since 1970. Correct to a minute."""

    @property
    def is_running(self) -> bool:
        """Whether a process of the engine lives."""
        try:
            return is_locked(self.path, counts_shared=True)
        except OSError:
            return False


def logs_directory(config: SpansConfig, environ: Mapping[str, str]) -> Path | None:
    """Return the directory for logs: ``logs`` in the data directory. Creates nothing.

    None if no directory can be named, as for a user without a home.
    """
    try:
        data = data_directory(config, environ)
    except ConfigurationError:
        return None
    if data == state_directory(environ) and sockets_place(environ) is None:
        return None  # the home directory does not exist, and is not to be made
    return data / _DIRECTORY


def new_log(directory: Path, now: float) -> Path:
    """Return the path for a log of an engine that this process starts. Makes the directory, not the file.

    Raises OSError if the directory cannot be made, or if other users could use it or replace it.
    """
    make_directories(directory)
    if (problem := check_directory(directory)) is not None:
        raise PermissionError(problem)
    started = time.strftime(_TIME, time.gmtime(now))
    return directory / f"engine-{started}-{os.getpid()}-{secrets.token_hex(3)}.log"


def open_locked(path: Path) -> int:
    """Open or make a log. Return its descriptor. The lock lasts while any process has the descriptor."""
    descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def kept_logs(directory: Path) -> list[KeptLog]:
    """Return the logs in a directory, the oldest first. Links, other names and files of other users are left out."""
    found: list[KeptLog] = []
    try:
        entries = sorted(entry for entry in directory.iterdir() if _NAME.fullmatch(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    for path in entries:
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                match = _NAME.fullmatch(path.name)
                assert match is not None  # noqa: S101 - the entries were chosen by this
                found.append(KeptLog(path, match[1], int(match[2]), status.st_size, status.st_mtime))
    return found


def remove_old_logs(directory: Path, now: float) -> None:
    """Remove the logs of engines that ended more than a week ago; and the oldest ones, where there are too many."""
    size = 0
    for number, log in enumerate(reversed(kept_logs(directory)), start=1):
        size += log.size
        is_old = log.touched_at < now - KEPT_SECONDS or number > MAX_LOGS or size > MAX_BYTES
        if is_old and not log.is_running:
            with contextlib.suppress(OSError):
                log.path.unlink()


def end_of_log(path: Path) -> str:
    """Return the last lines of a log, 64 KiB at most. Returns an empty text where there is no regular file."""
    try:
        descriptor = open_to_read(path)
    except OSError:
        return ""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return ""
        start = max(status.st_size - _READ_BYTES, 0)
        end = os.pread(descriptor, _READ_BYTES, start)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    whole_lines = end.partition(b"\n")[2] if start else end
    return whole_lines.decode(errors="replace")
