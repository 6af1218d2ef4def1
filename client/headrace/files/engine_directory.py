"""The files of an engine in its directory: which names are an engine's, and their removal, which touches nothing else.

Sockets (``broker``, ``collector``, ``wN-EPOCH``, each also with ``.full``), the lock, the log, and links ``path-N``. A file is an engine's when its
name, its kind and its owner are. The directory is reached by a descriptor, so that nobody can put another in its place meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Iterable
from pathlib import Path

from headrace.files.file_locks import is_locked

LOCK_FILE = "lock"
LOG_FILE = "engine.log"
BROKER_SOCKET = "broker"
COLLECTOR_SOCKET = "collector"
CLOSED = ".full"
"""What is added to the name of a socket that takes no further connections."""

_FILES = (LOCK_FILE, LOG_FILE)
_SOCKETS = re.compile(r"(broker|collector|w[1-9][0-9]*-[0-9a-f]+)(\.full)?")
_LINKS = re.compile(r"path-[0-9]+")
"""In an embedded engine's folder: to the places of packages whose paths have a colon."""
_WORKER_SOCKET = re.compile(r"[\w.-]+-[0-9a-f]+", re.ASCII)
_SHOWN = 3
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def worker_socket(name: str, epoch: int) -> str:
    """Return the name of the socket of a worker."""
    return f"{name}-{epoch:x}"


def broker_endpoint(directory: Path) -> str:
    """Return the broker's ZeroMQ endpoint in an engine's directory."""
    return f"ipc://{directory / BROKER_SOCKET}"


def collector_endpoint(directory: Path) -> str:
    """Return the collector's ZeroMQ endpoint in an engine's directory."""
    return f"ipc://{directory / COLLECTOR_SOCKET}"


def worker_endpoint(directory: Path, name: str, epoch: int) -> str:
    """Return a worker's ZeroMQ endpoint in an engine's directory: each process has one of its own."""
    return f"ipc://{directory / worker_socket(name, epoch)}"


def is_workers_endpoint(endpoint: str, directory: Path) -> bool:
    """Return whether an endpoint is a worker's of the engine in ``directory``: directly in it, and named as a worker's is."""
    path, name = os.path.split(endpoint.removeprefix("ipc://"))
    if not endpoint.startswith("ipc:///") or _WORKER_SOCKET.fullmatch(name) is None:
        return False
    # The engine may have been given another of the directory's names.
    return path == str(directory) or (".." not in Path(path).parts and _is_same(path, directory))


def _is_same(path: str, directory: Path) -> bool:
    try:
        return Path(path).samefile(directory)
    except (OSError, ValueError):
        return False


def is_engine_running(directory: Path) -> bool:
    """Return whether a live supervisor holds the directory's lock."""
    try:
        return is_locked(directory / LOCK_FILE)
    except OSError:
        return False


def open_directory(path: Path) -> int:
    """Return the descriptor of a directory; raises OSError, also where a link is in its place."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def foreign_entries(path: Path) -> str | None:
    """Return that a directory has entries that are no engine's, with the first of them; None where it has none, or is not there.

    Raises OSError where it cannot be read.
    """
    try:
        directory = open_directory(path)
    except FileNotFoundError:
        return None
    try:
        found = [(name, what) for name in sorted(os.listdir(directory)) if (what := _strangeness(directory, name))]
    finally:
        os.close(directory)
    if not found:
        return None
    named = [f"{name!a} ({what})" if what != "a file" else f"{name!a}" for name, what in found[:_SHOWN]]
    more = [f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return f"{path} has what is no engine's: {', '.join([*named, *more])}"


def remove_sockets(directory: int, names: Iterable[str]) -> None:
    """Remove the sockets with these names, and with :data:`CLOSED` behind them, from an open directory; what is none of ours stays."""
    for name in names:
        for actual in (name, name + CLOSED):
            if _SOCKETS.fullmatch(actual) and _is_ours(directory, actual):
                _unlink(directory, actual)


def remove_left_sockets(path: Path, directory: int) -> list[str]:
    """Remove the sockets that a killed engine left in an open directory; return the names of those that a process listens at.

    To be called by who holds the directory's lock.
    """
    alive = []
    for name in sorted(os.listdir(directory)):
        if _SOCKETS.fullmatch(name) and _is_ours(directory, name):
            if is_listened_at(path / name):
                alive.append(name)
            else:
                _unlink(directory, name)
    return alive


def remove_folder(path: Path) -> None:
    """Remove what an engine has made in its folder, and the folder if nothing else is in it; what is gone already is fine."""
    with contextlib.suppress(OSError):
        parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _empty(parent, path.name)
            os.rmdir(path.name, dir_fd=parent)
        finally:
            os.close(parent)


def is_listened_at(path: Path) -> bool:
    """Return whether a process listens at a socket's path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as attempt:
        return attempt.connect_ex(os.fspath(path)) not in (errno.ECONNREFUSED, errno.ENOENT)


def is_own_socket(path: Path) -> bool:
    """Return whether this user's socket, and nothing else, is at a path."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid()


def _empty(parent: int, name: str) -> None:
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if os.fstat(directory).st_uid != os.geteuid():
            return
        for entry in os.listdir(directory):
            if _is_ours(directory, entry):
                _unlink(directory, entry)
    finally:
        os.close(directory)


def _strangeness(directory: int, name: str) -> str:
    """Return why an entry is no engine's, or nothing."""
    try:
        status = os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return ""  # it has gone meanwhile
    kind = stat.S_IFMT(status.st_mode)
    what = _KINDS.get(kind, "a device")
    if kind != _kind_of(name):
        return what
    return "" if status.st_uid == os.geteuid() else f"{what} of user {status.st_uid}"


def _kind_of(name: str) -> int | None:
    """Return of what kind an engine's entry of that name is; None where it has none."""
    if name in _FILES:
        return stat.S_IFREG
    if _SOCKETS.fullmatch(name):
        return stat.S_IFSOCK
    return stat.S_IFLNK if _LINKS.fullmatch(name) else None


def _is_ours(directory: int, name: str) -> bool:
    try:
        return not _strangeness(directory, name)
    except OSError:
        return False


def _unlink(directory: int, name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=directory)
