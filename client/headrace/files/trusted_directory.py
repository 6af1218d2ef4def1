"""Checks that no other user can replace a directory: owner and mode of it and of each directory above it, and symbolic links on the way.

It only looks, and changes nothing. The owner of a directory can rename the entries in it and put others in their place. So can every
user who may write in it, unless it has the sticky bit.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from collections.abc import Collection
from pathlib import Path

from headrace.files.path_walk import walk_path

_ROOT = 0
_ACL = "system.posix_acl_access"
_UID_MAP = Path("/proc/self/uid_map")
_OVERFLOW_UID = Path("/proc/sys/kernel/overflowuid")
_USER_NAMESPACE = "/proc/self/ns/user"


class UntrustedDirectoryError(OSError):
    """Other users could have made a directory, or could replace it. ``strerror`` says why."""


class _LinkRefusedError(Exception):
    """A symbolic link on the way belongs to a user who is not trusted."""


def check_directory(directory: Path) -> str | None:
    """Return why a directory must not be trusted, or None. A directory that does not exist is not trusted.

    A trusted directory belongs to this user and has mode 700, and only this user and root can replace it.
    """
    refusal = directory_refusal(directory)
    return None if refusal is None else refusal.strerror


def directory_refusal(directory: Path) -> OSError | None:
    """Return the result of :func:`check_directory` as an error: FileNotFoundError if there is no directory, else UntrustedDirectoryError.

    If there is no descriptor for the check, return the OSError that says so: nothing is known of the directory then.
    """
    return _refusal(directory, is_private=True)


def check_place(directory: Path) -> str | None:
    """Return why other users could replace entries that this user makes in a directory, or None."""
    refusal = _refusal(directory, is_private=False)
    return None if refusal is None else refusal.strerror


def check_private(directory: Path) -> str | None:
    """Return why a directory is not private: it belongs to another user, or is open to others. None if it is, or does not exist.

    The directories above it are not checked.
    """
    try:
        return _private_problem(directory, directory.lstat())
    except FileNotFoundError:
        return None
    except OSError as error:
        return _why_closed(directory, error)


def _refusal(directory: Path, *, is_private: bool) -> OSError | None:
    try:
        problem = _problem_of(directory, is_private=is_private)
    except FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, f"there is no directory {directory}")
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return OSError(error.errno, f"{directory} cannot be checked: {error.strerror}")
        problem = _why_closed(directory, error)
    return None if problem is None else UntrustedDirectoryError(errno.EPERM, problem)


def _problem_of(directory: Path, *, is_private: bool) -> str | None:
    trusted = _trusted_users()

    def check_link(link: str, status: os.stat_result) -> None:
        if status.st_uid not in trusted:
            raise _LinkRefusedError(f"the symbolic link {link} belongs to user {status.st_uid}")

    try:
        # Each directory is checked before the names in it are used: then nobody else can change these names.
        with contextlib.closing(walk_path(directory, check_link)) as steps:
            for path, step, is_last in steps:
                status = os.fstat(step)
                if is_last and is_private:
                    return _private_problem(directory, status)
                if (reason := _replaceable(path, status, trusted)) is not None:
                    place = "" if path == str(directory) else f"{directory} cannot be trusted: "
                    return f"{place}{path} {reason}"
    except _LinkRefusedError as problem:
        return f"{directory} cannot be trusted: {problem}"
    return None


def _private_problem(directory: Path, status: os.stat_result) -> str | None:
    if not stat.S_ISDIR(status.st_mode):
        return f"{directory} is not a directory"
    if status.st_uid != os.geteuid():
        return f"{directory} belongs to user {status.st_uid}, not to {os.geteuid()}"
    if stat.S_IMODE(status.st_mode) & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        return f"{directory} is open to other users (mode {mode:o}); it must be 700 (`chmod 700 {directory}`)"
    return None


def _replaceable(path: str, status: os.stat_result, trusted: set[int]) -> str | None:
    """Return why other users could replace the entries of a directory, or None."""
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode):
        return "is not a directory"
    if status.st_uid not in trusted:
        return f"belongs to user {status.st_uid}, who could replace what is in it"
    if mode & stat.S_ISVTX:
        return None
    if mode & stat.S_IWOTH:
        return f"may be written by all users (mode {mode:o}), who could replace what is in it"
    if mode & stat.S_IWGRP and not _is_own_group(path, status.st_gid):
        return f"may be written by group {status.st_gid} (mode {mode:o}), which could replace what is in it"
    return None


def _trusted_users() -> set[int]:
    """Return the numbers of this user and of root. If root has no number in this user namespace: also the number of unknown users."""
    users = {os.geteuid(), _ROOT}
    with contextlib.suppress(OSError, ValueError):
        # The map of a namespace is written once. In another namespace the process sees another name of the namespace.
        namespace = os.readlink(_USER_NAMESPACE)
        unknown = _unknown_roots.get(namespace)
        if unknown is None:
            unknown, is_settled = _unknown_root()
            if is_settled:
                _unknown_roots.clear()
                _unknown_roots[namespace] = unknown
        users |= unknown
    return users


_unknown_roots: dict[str, frozenset[int]] = {}
"""Namespace → the result of :func:`_unknown_root`. To find it takes longer than the rest of a check."""


def _unknown_root() -> tuple[frozenset[int], bool]:
    """Return the number that root's files have if root has none, and whether this result is final. Raises OSError, ValueError."""
    lines = [[int(figure) for figure in line.split()] for line in _UID_MAP.read_text().splitlines()]
    if all(any(first <= _ROOT < first + count for first, count in side) for side in _sides(lines)):
        return frozenset(), True
    return frozenset({int(_OVERFLOW_UID.read_text())}), bool(lines)


def _sides(lines: list[list[int]]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the ranges of user numbers in this namespace, and the ranges in the namespace around it."""
    return [(inside, count) for inside, _, count in lines], [(outside, count) for _, outside, count in lines]


def _is_own_group(path: str, group: int) -> bool:
    """Return whether a group has this user only. False for root: in containers other users are in root's group."""
    user = os.geteuid()
    return user != _ROOT and is_private_group(path, group, {user})


def is_private_group(path: str, group: int, users: Collection[int]) -> bool:
    """Return whether the group of a file has one of ``users`` only: it has the user's name, and no other member.

    Many systems make such a group for each user.
    """
    for user in users:
        try:
            account, entry = pwd.getpwuid(user), grp.getgrgid(group)
        except (KeyError, OSError):
            continue
        if account.pw_gid == group and entry.gr_name == account.pw_name and set(entry.gr_mem) <= {account.pw_name}:
            return not _has_acl(path)
    return False


def _has_acl(path: str) -> bool:
    """Return whether a file has an access control list. It may let in more users; the mode shows their rights as the group's."""
    try:
        return bool(os.getxattr(path, _ACL))
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.ENOTSUP)


def _why_closed(directory: Path, error: OSError) -> str:
    """Return why a directory cannot be entered, with the owner of the directory above it that forbids it."""
    if isinstance(error, PermissionError):
        for path in directory.parents:
            with contextlib.suppress(OSError):
                owner = path.stat().st_uid
                if owner != os.geteuid():
                    return f"{directory} cannot be entered: {path} belongs to user {owner}, not to {os.geteuid()}"
                break
    return f"{directory} cannot be entered: {error.strerror}"
