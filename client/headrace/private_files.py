"""Opens files for writing without following links, without waiting for a pipe's reader, and with mode 0600 where they are new.

Another user who can write to a directory could else have us append to, or cut, a file of our user's: by a symbolic link or a hard link of
the name that we use, or by a file of his own that he reads.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_MOST_LINKS = 40
_MODE = 0o600
_NOBODY = (65534, 2**32 - 2)
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def open_private(path: str | Path, flags: int) -> int:
    """Open a file whose name Headrace has chosen; return the descriptor.

    Raises OSError for a link, for a file with a second name (hard link), for one of another user, and for what is no regular file.
    """
    try:
        descriptor = os.open(path, flags | _FLAGS | os.O_NOFOLLOW, _MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link, which is not followed", str(path)) from None
        raise
    return _checked(descriptor, path, is_strict=True)


def open_named(path: Path, flags: int) -> int:
    """Open, or make, a file whose name the user has chosen, who may mean a link, a pipe or a device: return the descriptor.

    Links are followed where they are the user's own or root's, such as ``/dev/stderr``. In a directory where others can make files the file
    must be the user's own. Raises OSError.
    """
    target, is_descriptor = _target(path)
    no_follow = 0 if is_descriptor else os.O_NOFOLLOW
    descriptor = os.open(target, flags | _FLAGS & ~os.O_NONBLOCK | no_follow, _MODE)
    return _checked(descriptor, target, is_strict=False)


def _target(path: Path) -> tuple[Path, bool]:
    """Return what a path leads to, and whether that is an open descriptor (in ``/proc``), whose link cannot be read."""
    for _ in range(_MOST_LINKS):
        path = Path(os.path.realpath(path.parent)) / path.name
        try:
            status = path.lstat()
        except FileNotFoundError:
            return path, False
        if not stat.S_ISLNK(status.st_mode):
            return path, False
        if status.st_uid not in (0, os.geteuid()):
            raise OSError(errno.ELOOP, "it is a link of another user's, which is not followed", str(path))
        if path.is_relative_to("/proc"):
            return path, True
        path = path.parent / os.readlink(path)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _checked(descriptor: int, path: str | Path, *, is_strict: bool) -> int:
    try:
        problem = _problem(os.fstat(descriptor), Path(path), is_strict=is_strict)
    except OSError:
        os.close(descriptor)
        raise
    if problem is not None:
        os.close(descriptor)
        raise OSError(errno.EPERM, problem, str(path))
    return descriptor


def _problem(status: os.stat_result, path: Path, *, is_strict: bool) -> str | None:
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file" if is_strict else None
    folder = path.parent.stat()
    is_shared = bool(folder.st_mode & 0o022) or folder.st_uid not in (0, os.geteuid())
    if not is_strict and not is_shared:
        return None
    if status.st_uid != os.geteuid() and not _is_of_squashed_root(status, folder):
        return "it is another user's"
    return "it has a second name (a hard link)" if status.st_nlink > 1 else None


def _is_of_squashed_root(status: os.stat_result, folder: os.stat_result) -> bool:
    """Return whether a file is root's own on a network file system, which shows what root makes as nobody's."""
    return os.geteuid() == 0 and status.st_uid == folder.st_uid and status.st_uid in _NOBODY
