"""Opens files safely: no links of other users, no waiting for the other end of a pipe, mode 0600 for new files.

Another user may be able to make files in the directory. A symbolic link or a hard link with the name that we use could make us write to
another file of our user. A file of the other user with that name could make us write where that user can read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from headrace.files.path_walk import walk_path

_MOST_LINKS = 40
_MODE = 0o600
_NOBODY = (65534, 2**32 - 2)
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def make_directories(directory: Path) -> None:
    """Make a directory, and the missing directories above it, with mode 700. Raises OSError if one cannot be made."""
    for each in (*reversed(directory.parents), directory):
        each.mkdir(mode=0o700, exist_ok=True)


def open_private(path: str | Path, flags: int) -> int:
    """Open a file with a name that Headrace has chosen. Return the descriptor.

    Raises OSError if it is a link, has a second name (hard link), belongs to another user, or is not a regular file.
    """
    try:
        descriptor = os.open(path, flags | _FLAGS | os.O_NOFOLLOW, _MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link, which is not followed", str(path)) from None
        raise
    return _checked(descriptor, path, Path(path).parent.stat(), is_strict=True)


def open_named(path: Path, flags: int) -> int:
    """Open or make a file with a name that the user has chosen. It may be a link, a pipe or a device. Return the descriptor.

    Links of this user and of root are followed, such as ``/dev/stderr``. In a directory where others can make files, the file must belong
    to this user; a pipe or a device may also belong to root. Raises OSError.
    """
    for _ in range(_MOST_LINKS):
        folder, place = open_folder(path.parent)
        try:
            status = _status_in(folder, path.name)
            is_link = status is not None and stat.S_ISLNK(status.st_mode)
            if is_link and status is not None and status.st_uid not in (0, os.geteuid()):
                raise OSError(errno.ELOOP, "it is a link of another user, which is not followed", str(path))
            is_descriptor = is_link and place.is_relative_to("/proc")  # its link cannot be read
            if not is_link or is_descriptor:
                if status is not None and not is_link:  # check before opening: opening a pipe may wait for ever
                    _check(status, os.fstat(folder), path, is_strict=False)
                no_follow = 0 if is_descriptor else os.O_NOFOLLOW
                opened = os.open(path.name, flags | _FLAGS & ~os.O_NONBLOCK | no_follow, _MODE, dir_fd=folder)
                return opened if is_descriptor else _checked(opened, path, os.fstat(folder), is_strict=False)
            path = place / os.readlink(path.name, dir_fd=folder)
        finally:
            os.close(folder)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def open_folder(path: Path) -> tuple[int, Path]:
    """Open a directory that a user has named. Return its descriptor (for names in it), and its path without links.

    Below a directory where every user can make files, links of other users are not followed: OSError. Raises OSError too if the
    directory cannot be opened.
    """
    is_anybodys = False

    def check_link(link: str, status: os.stat_result) -> None:
        if is_anybodys and status.st_uid not in (0, os.geteuid()):
            raise OSError(errno.ELOOP, f"{link} is a link of another user, which is not followed", link)

    with contextlib.closing(walk_path(path, check_link)) as steps:
        for where, step, is_last in steps:
            if is_last:
                os.stat(".", dir_fd=step)  # raises if it is not a directory
                return os.dup(step), Path(where)
            is_anybodys = is_anybodys or bool(os.fstat(step).st_mode & stat.S_IWOTH)
    raise AssertionError("a path has a last step")


def open_to_read(path: str | Path, *, follows_links: bool = False) -> int:
    """Open a file for reading; return the descriptor. Never waits for the writer of a pipe. Raises OSError."""
    return os.open(path, os.O_RDONLY | _FLAGS | (0 if follows_links else os.O_NOFOLLOW))


def _status_in(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _checked(descriptor: int, path: str | Path, folder: os.stat_result, *, is_strict: bool) -> int:
    try:
        _check(os.fstat(descriptor), folder, path, is_strict=is_strict)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check(status: os.stat_result, folder: os.stat_result, path: str | Path, *, is_strict: bool) -> None:
    if (problem := _problem(status, folder, is_strict=is_strict)) is not None:
        raise OSError(errno.EPERM, problem, str(path))


def _problem(status: os.stat_result, folder: os.stat_result, *, is_strict: bool) -> str | None:
    is_file = stat.S_ISREG(status.st_mode)
    if is_strict and not is_file:
        return "it is not a regular file"
    is_shared = bool(folder.st_mode & 0o022) or folder.st_uid not in (0, os.geteuid())
    if not is_strict and not is_shared:
        return None
    # If a pipe belongs to another user, that user can read everything that is written to it.
    is_own = status.st_uid == os.geteuid() or (not is_file and status.st_uid == 0)
    if not is_own and not is_of_squashed_root(status, folder):
        return "it belongs to another user"
    return "it has a second name (a hard link)" if is_file and status.st_nlink > 1 else None


def is_of_squashed_root(status: os.stat_result, folder: os.stat_result) -> bool:
    """Return whether root made a file on a network file system that shows root's files as those of the user ``nobody``."""
    return os.geteuid() == 0 and status.st_uid == folder.st_uid and status.st_uid in _NOBODY
