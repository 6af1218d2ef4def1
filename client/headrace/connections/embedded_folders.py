"""Makes the folder that an embedded engine has for its sockets and its log, and removes those that ended engines have left.

The log stays open, and locked, in every process of an engine: a folder with a log that can be locked is nobody's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from headrace.arguments.plain_values import is_utf8
from headrace.errors import EngineUnavailableError
from headrace.files.engine_directory import LOCK_FILE, LOG_FILE, foreign_entries, remove_folder
from headrace.files.private_files import make_directories, open_private
from headrace.files.state_directory import sockets_place
from headrace.files.trusted_directory import check_place
from headrace.settings.settings import EMBEDDED, MAX_PATH

_PREFIX = "headrace-"
_SUFFIX = ".e"
"""Tells an engine's folder from one that a user has named ``headrace-backup``."""
_NAME = re.compile(r"headrace-[a-z0-9_]{8}\.e")
"""What ``mkdtemp`` makes of both."""
_ROOM = 20
"""Bytes of a folder's own name."""
_LEAST_ROOM = 4096
"""Bytes that the log of a failed start takes, to say why."""
_MOST_OF_LOG = 64 * 1024
"""Bytes of its end that are read: runs that are refused look at it."""
_SETTLED = 1.0
"""Seconds for which a folder is left alone after its engine has ended: its program may be reading the log."""
_BEGUN = 60.0
"""Seconds after which a folder without a log is nobody's: its program ended before it had made one."""


def make_folder() -> Path:
    """Return a new folder of this user's own, with a short path; raises EngineUnavailableError where none can be made.

    A place where another user could exchange the folder for one of theirs is passed over.
    """
    reasons = []
    last_resort = os.fspath(sockets_place(os.environ) or "")
    for parent in dict.fromkeys([*_parents(), *filter(None, [last_resort])]):
        if not is_utf8(parent):
            reasons.append(f"{parent!a} (not UTF-8)")
            continue
        if len(parent.encode()) >= MAX_PATH - _ROOM:
            reasons.append(f"{parent} (longer than {MAX_PATH - _ROOM} bytes)")
            continue
        try:
            if parent == last_resort:
                make_directories(Path(parent))
            if (problem := check_place(Path(parent))) is not None:
                reasons.append(problem)
                continue
            _sweep(Path(parent))
            return _with_room(Path(tempfile.mkdtemp(_SUFFIX, _PREFIX, parent)))
        except OSError as error:
            reasons.append(f"{parent} ({error.strerror})")
    tried = ", ".join(reasons)
    raise EngineUnavailableError(EMBEDDED, f"no folder for its sockets can be made in {tried}; set TMPDIR to another")


def open_log(folder: Path) -> int:
    """Return the descriptor of a new log, locked for as long as any process has it."""
    descriptor = open_private(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def end_of_log(folder: Path) -> str:
    """Return the last lines of a log, 64 KiB at most; nothing where there is none, or something else in its place."""
    try:
        descriptor = os.open(
            folder / LOG_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        )
    except OSError:
        return ""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return ""
        start = max(status.st_size - _MOST_OF_LOG, 0)
        said = os.pread(descriptor, _MOST_OF_LOG, start)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    whole = said.partition(b"\n")[2] if start else said  # the first of them is not whole
    return whole.decode(errors="replace")


def _with_room(folder: Path) -> Path:
    """Return the folder where a file can be written in it; else remove it and raise OSError: a full disk takes folders still."""
    probe = folder / LOG_FILE  # whose name is known to be an engine's, should this process be killed here
    try:
        probe.write_bytes(bytes(_LEAST_ROOM))
        probe.unlink()
    except OSError:
        remove_folder(folder)
        raise
    return folder


def _parents() -> Iterator[str]:
    for candidate in (os.environ.get("XDG_RUNTIME_DIR", ""), os.environ.get("TMPDIR", "")):
        if candidate.startswith("/"):
            yield candidate
    with contextlib.suppress(OSError):
        yield tempfile.gettempdir()
    yield from ("/tmp", "/dev/shm")  # noqa: S108 - mkdtemp makes a private directory in it


def _sweep(parent: Path) -> None:
    """Remove the folders of engines whose processes have all ended, and whose programs were killed before they could."""
    for folder in parent.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            if _NAME.fullmatch(folder.name) and _is_left(folder):
                remove_folder(folder)


def _is_left(folder: Path) -> bool:
    """Return whether a folder is one that this module made, with nothing foreign in it, and no process of an engine has it."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        return False
    if foreign_entries(folder) is not None:
        return False
    age = time.time() - status.st_mtime
    log = folder / LOG_FILE
    if not log.exists():
        return age > _BEGUN and not any(folder.iterdir())
    return age > _SETTLED and not _is_locked(log) and not _is_locked(folder / LOCK_FILE)


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
