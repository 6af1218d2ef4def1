"""Checks that no other user can replace a directory: its owner and mode, those of each directory above it, symbolic links on the way.

Looks only; makes and changes nothing. Whoever owns a directory, or may write in one that has no sticky bit, can rename what is in
it and put something else in its place.
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
    """Other users could have made a directory, or could replace it; ``strerror`` says why."""


class _LinkRefusedError(Exception):
    """A symbolic link on the way belongs to a user who is not trusted."""


def check_directory(directory: Path) -> str | None:
    """Return why a directory must not be trusted, or None. A directory that does not exist is not trusted.

    It must belong to this user and be closed to all others, and nobody but this user and root may be able to replace it.
    """
    refusal = directory_refusal(directory)
    return None if refusal is None else refusal.strerror


def directory_refusal(directory: Path) -> OSError | None:
    """Return what :func:`check_directory` finds: a FileNotFoundError where there is no directory, else UntrustedDirectoryError."""
    return _refusal(directory, is_private=True)


def check_place(directory: Path) -> str | None:
    """Return why other users could replace what this user makes in a directory, or None."""
    refusal = _refusal(directory, is_private=False)
    return None if refusal is None else refusal.strerror


def check_private(directory: Path) -> str | None:
    """Return why a directory is not this user's, or is open to others, or None, also where there is none.

    Says nothing of the directories above it.
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
        problem = _why_closed(directory, error)
    return None if problem is None else UntrustedDirectoryError(errno.EPERM, problem)


def _problem_of(directory: Path, *, is_private: bool) -> str | None:
    trusted = _trusted_users()

    def check_link(link: str, status: os.stat_result) -> None:
        if status.st_uid not in trusted:
            raise _LinkRefusedError(f"the symbolic link {link} belongs to user {status.st_uid}")

    try:
        # A name is looked at only after the directory that it is in: by then nobody else could have changed the name.
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
    """Return why other users could replace what is in a directory, or None."""
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
    """Return this user and root. Where root has no number in this user namespace, its files have the one of unknown users."""
    users = {os.geteuid(), _ROOT}
    with contextlib.suppress(OSError, ValueError):
        # The map of a namespace is written once. A process that goes to another namespace has another name of it.
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
"""What :func:`_unknown_root` has found, by namespace: it costs more than all the rest of a check."""


def _unknown_root() -> tuple[frozenset[int], bool]:
    """Return the number that root's files have where root has none, and whether that can change no more. Raises OSError, ValueError."""
    lines = [[int(figure) for figure in line.split()] for line in _UID_MAP.read_text().splitlines()]
    if all(any(first <= _ROOT < first + count for first, count in side) for side in _sides(lines)):
        return frozenset(), True
    return frozenset({int(_OVERFLOW_UID.read_text())}), bool(lines)


def _sides(lines: list[list[int]]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the ranges of users in this namespace, and those in the one around it."""
    return [(inside, count) for inside, _, count in lines], [(outside, count) for _, outside, count in lines]


def _is_own_group(path: str, group: int) -> bool:
    """Return whether a group is this user's own. Root has none: in containers other users are in its group."""
    user = os.geteuid()
    return user != _ROOT and is_private_group(path, group, {user})


def is_private_group(path: str, group: int, users: Collection[int]) -> bool:
    """Return whether the group of what is at ``path`` is one user's own: of the same name, with no other member.

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
    """Return whether further users may have been let in: the mode shows them as its group."""
    try:
        return bool(os.getxattr(path, _ACL))
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.ENOTSUP)


def _why_closed(directory: Path, error: OSError) -> str:
    """Return whose the directory is that keeps this user out of a directory below it."""
    if isinstance(error, PermissionError):
        for path in directory.parents:
            with contextlib.suppress(OSError):
                owner = path.stat().st_uid
                if owner != os.geteuid():
                    return f"{directory} cannot be entered: {path} belongs to user {owner}, not to {os.geteuid()}"
                break
    return f"{directory} cannot be entered: {error.strerror}"
