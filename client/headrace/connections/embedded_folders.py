"""Makes the folder of an embedded engine, for sockets. Removes the folders that ended engines have left.

Every process of an engine keeps the log open and locked. If the log of a folder is not locked, its engine has ended. The
log is kept in the data directory (``kept_logs.py``), and the folder has a link to it. Where that directory cannot be
used the log is in the folder, and goes with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from headrace.arguments.plain_values import is_utf8
from headrace.connections.kept_logs import new_log, open_locked
from headrace.errors import EngineUnavailableError
from headrace.files.engine_directory import LOCK_FILE, LOG_FILE, LOG_LINK, foreign_entries, remove_folder
from headrace.files.file_locks import is_locked
from headrace.files.private_files import make_directories
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


def open_log(folder: Path, directory: Path | None) -> tuple[int, Path]:
    """Make the log of a new engine in ``directory``, else in the engine's folder. Return its descriptor and its path.

    The lock lasts while any process has the descriptor.
    """
    if directory is not None:
        with contextlib.suppress(OSError):
            return _open_kept(folder, new_log(directory, time.time()))
    return open_locked(folder / LOG_FILE), folder / LOG_FILE


def log_of(folder: Path) -> Path | None:
    """Return the log of the embedded engine in a folder. None if there is none."""
    try:
        return Path(os.readlink(folder / LOG_LINK))
    except OSError:
        return folder / LOG_FILE if os.path.lexists(folder / LOG_FILE) else None


def _open_kept(folder: Path, path: Path) -> tuple[int, Path]:
    (folder / LOG_LINK).symlink_to(path)
    try:
        return open_locked(path), path
    except OSError:
        (folder / LOG_LINK).unlink()
        raise


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
    log = log_of(folder)
    if log is None:
        return age > _EMPTY_SECONDS and not any(folder.iterdir())
    return age > _KEPT_SECONDS and not _is_used(log) and not _is_used(folder / LOCK_FILE)


def _is_used(path: Path) -> bool:
    try:
        return is_locked(path, counts_shared=True)
    except FileNotFoundError:
        return False
