"""Makes the folder of an embedded engine, for sockets and log. Removes the folders that ended engines have left.

Every process of an engine keeps the log open and locked. If the log of a folder is not locked, its engine has ended.
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
from headrace.files.file_locks import is_locked
from headrace.files.private_files import make_directories, open_private
from headrace.files.state_directory import sockets_place
from headrace.files.trusted_directory import check_place
from headrace.settings.settings import EMBEDDED, MAX_PATH

_PREFIX = "headrace-"
_SUFFIX = ".e"
"""Distinguishes the folder of an engine from a folder of the user, such as ``headrace-backup``."""
_NAME = re.compile(r"headrace-[a-z0-9_]{8}\.e")
"""The names that ``mkdtemp`` makes of the prefix and the suffix."""
_NAME_BYTES = 20
"""Bytes that a path needs beyond its parent: the folder's own name."""
_PROBE_BYTES = 4096
"""Bytes that must fit on the disk: a start that fails writes its reason to the log."""
_LOG_BYTES = 64 * 1024
"""Bytes that are read of the end of a log, for the error of a run that has no engine."""
_KEPT_SECONDS = 1.0
"""Seconds for which a folder is kept after its engine has ended: its program may be reading the log."""
_EMPTY_SECONDS = 60.0
"""Seconds after which an empty folder is removed: its program ended before it had made the log."""


def make_folder() -> Path:
    """Return a new private folder with a short path. Raises EngineUnavailableError where no folder can be made.

    A parent folder is not used where another user could replace the new folder.
    """
    reasons = []
    last_resort = os.fspath(sockets_place(os.environ) or "")
    for parent in dict.fromkeys([*_parents(), *filter(None, [last_resort])]):
        if not is_utf8(parent):
            reasons.append(f"{parent!a} (not UTF-8)")
            continue
        if len(parent.encode()) >= MAX_PATH - _NAME_BYTES:
            reasons.append(f"{parent} (longer than {MAX_PATH - _NAME_BYTES} bytes)")
            continue
        try:
            if parent == last_resort:
                make_directories(Path(parent))
            if (problem := check_place(Path(parent))) is not None:
                reasons.append(problem)
                continue
            _sweep(Path(parent))
            return _writable(Path(tempfile.mkdtemp(_SUFFIX, _PREFIX, parent)))
        except OSError as error:
            reasons.append(f"{parent} ({error.strerror})")
    tried = ", ".join(reasons)
    raise EngineUnavailableError(EMBEDDED, f"no folder for its sockets can be made in {tried}; set TMPDIR to another")


def open_log(folder: Path) -> int:
    """Return the descriptor of a new log. The lock lasts while any process has the descriptor."""
    descriptor = open_private(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def end_of_log(folder: Path) -> str:
    """Return the last lines of a log, 64 KiB at most. Returns an empty text where there is no regular file."""
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
        start = max(status.st_size - _LOG_BYTES, 0)
        end = os.pread(descriptor, _LOG_BYTES, start)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    whole_lines = end.partition(b"\n")[2] if start else end
    return whole_lines.decode(errors="replace")


def _writable(folder: Path) -> Path:
    """Return the folder if a file can be written in it.

    Else remove it and raise OSError: a full disk still takes folders.
    """
    probe = folder / LOG_FILE  # if this process is killed here, the next sweep knows this name
    try:
        probe.write_bytes(bytes(_PROBE_BYTES))
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
    """Remove the folders of ended engines. A program that is killed cannot remove its own."""
    for folder in parent.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            if _NAME.fullmatch(folder.name) and _is_abandoned(folder):
                remove_folder(folder)


def _is_abandoned(folder: Path) -> bool:
    """Return whether a folder has only the files of an engine, and no process of that engine runs."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        return False
    if foreign_entries(folder) is not None:
        return False
    age = time.time() - status.st_mtime
    log = folder / LOG_FILE
    if not log.exists():
        return age > _EMPTY_SECONDS and not any(folder.iterdir())
    return age > _KEPT_SECONDS and not _is_used(log) and not _is_used(folder / LOCK_FILE)


def _is_used(path: Path) -> bool:
    try:
        return is_locked(path, counts_shared=True)
    except FileNotFoundError:
        return False
