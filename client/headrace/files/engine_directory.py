"""Names, checks and removes the files of an engine in its directory. Other files are never touched.

An engine's files are its sockets (``broker``, ``collector``, ``wN-EPOCH``, each also with ``.full``), the lock, the log, the state of
the limits, and links ``path-N`` and ``engine-log``. A file counts as an engine's only if its name, its kind and its owner are right. Files are removed through the directory's
descriptor, so that nobody can put another directory in its place meanwhile.
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
LIMITS_FILE = "limits.state"
NEW_LIMITS_FILE = "limits.state.new"
"""The state of the limits while it is being written."""
LOG_LINK = "engine-log"
"""In an embedded engine's folder: a link to its log, if the log is kept elsewhere."""
BROKER_SOCKET = "broker"
COLLECTOR_SOCKET = "collector"
CLOSED = ".full"
"""The end of a socket's name while it takes no more connections."""

_FILES = (LOCK_FILE, LOG_FILE, LIMITS_FILE, NEW_LIMITS_FILE)
_REMOVALS = 3
"""How often the removal of a folder is tried: a process that ends just now may write a file between two steps of it."""
_SOCKETS = re.compile(r"(broker|collector|w[1-9][0-9]*-[0-9a-f]+)(\.full)?")
_LINKS = re.compile(rf"path-[0-9]+|{LOG_LINK}")
"""Links in an embedded engine's folder: to directories of packages with a colon in their paths, and to its log."""
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
    """Return the endpoint of the broker in an engine's directory."""
    return f"ipc://{directory / BROKER_SOCKET}"


def collector_endpoint(directory: Path) -> str:
    """Return the endpoint of the collector in an engine's directory."""
    return f"ipc://{directory / COLLECTOR_SOCKET}"


def worker_endpoint(directory: Path, name: str, epoch: int) -> str:
    """Return the endpoint of a worker in an engine's directory. Each worker process has its own."""
    return f"ipc://{directory / worker_socket(name, epoch)}"


def is_workers_endpoint(endpoint: str, directory: Path) -> bool:
    """Return whether an endpoint belongs to a worker of the engine in ``directory``: it is in this directory, and has a worker's name."""
    path, name = os.path.split(endpoint.removeprefix("ipc://"))
    if not endpoint.startswith("ipc:///") or _WORKER_SOCKET.fullmatch(name) is None:
        return False
    # The engine may know the directory by another path.
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
    """Open a directory and return its descriptor. Raises OSError, also if it is a symbolic link."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def foreign_entries(path: Path) -> str | None:
    """Return a text that names the first entries of a directory that are not an engine's; None if there are none, or no directory.

    Raises OSError if the directory cannot be read.
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
    return f"{path} has entries that are no engine's: {', '.join([*named, *more])}"


def remove_sockets(directory: int, names: Iterable[str]) -> None:
    """Remove the sockets with these names, also with :data:`CLOSED` at the end, from an open directory. Other entries stay."""
    for name in names:
        for actual in (name, name + CLOSED):
            if _SOCKETS.fullmatch(actual) and _is_ours(directory, actual):
                _unlink(directory, actual)


def remove_left_sockets(path: Path, directory: int) -> list[str]:
    """Remove the sockets that a killed engine left in an open directory. Return the names of sockets at which a process still listens.

    Only the process that holds the directory's lock may call this.
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
    """Remove an engine's files from its folder, and the folder if it is empty then. Does nothing if there is no folder."""
    with contextlib.suppress(OSError):
        parent = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for _ in range(_REMOVALS):
                _empty(parent, path.name)
                with contextlib.suppress(OSError):
                    os.rmdir(path.name, dir_fd=parent)
                    return
        finally:
            os.close(parent)


def is_listened_at(path: Path) -> bool:
    """Return whether a process listens at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as attempt:
        return attempt.connect_ex(os.fspath(path)) not in (errno.ECONNREFUSED, errno.ENOENT)


def is_own_socket(path: Path) -> bool:
    """Return whether a path is a socket of this user."""
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
    """Return what an entry is if it is not an engine's, such as ``a directory``; else an empty string."""
    try:
        status = os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return ""  # it was removed meanwhile
    kind = stat.S_IFMT(status.st_mode)
    what = _KINDS.get(kind, "a device")
    if kind != _kind_of(name):
        return what
    return "" if status.st_uid == os.geteuid() else f"{what} of user {status.st_uid}"


def _kind_of(name: str) -> int | None:
    """Return the kind (``S_IF…``) that an engine's entry with this name has; None if an engine has no such entry."""
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
