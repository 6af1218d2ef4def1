"""RecordFile: a file to which the records of a batch job are appended, durably. It knows its length without a torn end."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from headrace.batch.journal.job_lock import LOCK_PATIENCE
from headrace.files.file_locks import take_lock
from headrace.files.private_files import open_named

_PIECE = 1 << 20
"""Bytes that are written or read at once."""


class RecordFile:
    """A regular file of lines, locked. Methods raise OSError.

    ``length``: where the next record begins. The file may be longer for a moment, or after a kill. ``is_changed``: bytes
    were written since the last :meth:`sync`.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file, and lock it. Raises BlockingIOError if another process has locked it."""
        self.path = path
        is_new = not path.exists()
        self._descriptor = open_named(path, os.O_RDWR | os.O_CREAT)
        try:
            _check_regular(self._descriptor, path)
            take_lock(self._descriptor, path, LOCK_PATIENCE)
            _check_named(self._descriptor, path)
            if is_new:
                sync_directory(path.parent)
        except BaseException:
            os.close(self._descriptor)
            raise
        self.length = self.size
        self.is_changed = False

    @property
    def size(self) -> int:
        """How many bytes the file has now, with a torn end."""
        return os.fstat(self._descriptor).st_size

    def append(self, pieces: Iterable[bytes]) -> None:
        """Write at the end, and move ``length``. After an error call :meth:`cut`."""
        self.is_changed = True
        with _naming(self.path):
            for piece in joined(pieces):
                write_all(self._descriptor, piece, self.length)
                self.length += len(piece)

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        if self.is_changed:
            with _naming(self.path):
                os.fdatasync(self._descriptor)
            self.is_changed = False

    def cut(self, length: int) -> None:
        """Remove everything behind ``length``."""
        self.length = length
        if self.size > length:
            os.ftruncate(self._descriptor, length)
            self.is_changed = True

    def read(self, offset: int, count: int) -> bytes:
        """Return so many bytes from ``offset``, or fewer at the end of the file."""
        found = os.pread(self._descriptor, count, offset)
        while 0 < len(found) < count:
            more = os.pread(self._descriptor, count - len(found), offset + len(found))
            if not more:
                break
            found += more
        return found

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """Iterate the bytes from ``start`` to ``end`` in pieces of bounded size. Raises OSError if the file is shorter."""
        while start < end:
            piece = self.read(start, min(_PIECE, end - start))
            if not piece:
                raise OSError(f"{self.path} has become shorter")
            yield piece
            start += len(piece)

    def lines(self, start: int) -> Iterator[bytes]:
        """Iterate the lines from ``start`` to the end of the file. The last one may lack its newline."""
        with open(os.dup(self._descriptor), "rb") as file:
            file.seek(start)
            yield from file

    def remove_if_empty(self) -> None:
        """Remove the file if it has no bytes, and its name still leads to it."""
        if not self.size and os.path.samestat(os.stat(self.path), os.fstat(self._descriptor)):
            os.unlink(self.path)

    def close(self) -> None:
        """Close the file, which unlocks it. May be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def mode(self) -> int:
        """The permissions of the file."""
        return stat.S_IMODE(os.fstat(self._descriptor).st_mode)


class NewFile:
    """A file that takes the place of another one as a whole. Until then it has the end ``.new`` and a dot before its name."""

    def __init__(self, target: Path, mode: int = 0o600) -> None:
        self.target = target
        self.path = new_path(target)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        os.fchmod(self.descriptor, mode)

    def write(self, data: bytes, offset: int) -> None:
        """Write all bytes at ``offset``."""
        with _naming(self.path):
            write_all(self.descriptor, data, offset)

    def sync(self) -> None:
        """Wait until the content is on the disk, and close the file."""
        try:
            with _naming(self.path):
                os.fsync(self.descriptor)
        finally:
            self.close()

    def take_place(self) -> None:
        """Rename the file to its target, durably."""
        take_place(self.target)

    def discard(self) -> None:
        """Close and remove the file."""
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def close(self) -> None:
        """Close the file. May be called twice."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of a descriptor name its file."""
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)
        raise


def _check_regular(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(f"{path} is not a regular file")


def _check_named(descriptor: int, path: Path) -> None:
    """Raise BlockingIOError if another process removed or replaced the file before it was locked here."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.stat(path), os.fstat(descriptor)):
            return
    raise BlockingIOError(errno.EWOULDBLOCK, "another process has just replaced it", os.fspath(path))


def new_path(target: Path) -> Path:
    """Return the name of the file that is to take the place of another one."""
    return target.with_name(f".{target.name}.new")


def take_place(target: Path) -> None:
    """Rename the new file of ``target`` to its name, durably. Raises OSError, FileNotFoundError if there is none."""
    os.rename(new_path(target), target)
    sync_directory(target.parent)


def sync_directory(directory: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write all bytes at ``offset``."""
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)


def joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join short pieces, so that a write has about 1 MiB."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    if size:
        yield b"".join(waiting)
