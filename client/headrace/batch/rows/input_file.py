"""Opens input files, plain or compressed by gzip or zstd, and reads their lines with a bound on each line."""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, BinaryIO

from headrace.batch.rows.row_options import InputFormat
from headrace.errors import BatchInputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_LINE = 48 * 1024 * 1024
"""Bytes of one line at most."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PIECE = 1024 * 1024
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_PARQUET = b"PAR1"
_COMPRESSIONS = (".gz", ".gzip", ".zst", ".zstd")
_SUFFIXES: dict[str, InputFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "txt",
}
_FEW_COMPRESSED = 512
"""Compressed bytes that are decompressed at once: few, because a block of zstd may grow a thousandfold."""


def format_of(name: str) -> InputFormat | None:
    """Return the format that a file's name tells: its suffix, below that of a compression. None: it tells none."""
    path = PurePath(name.lower())
    if path.suffix in _COMPRESSIONS:
        path = path.with_suffix("")
    return _SUFFIXES.get(path.suffix)


class InputFile:
    """An input file that is open. Its owner closes it. ``name``: what errors call it.

    Raises OSError, and BatchInputError if it is not a regular file or if a library is missing.
    """

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        self.name = name
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe may wait for ever
            raise BatchInputError(name, "is not a regular file, and can be read only once: copy it to a file first")
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        try:
            self.identity = identity_of(os.fstat(self._file.fileno()))
            head = self._file.peek(len(_ZSTD))
            self.is_compressed = head.startswith((_GZIP, _ZSTD))
            self.is_parquet = head.startswith(_PARQUET)
            self.data: BinaryIO = self._opened(head)
            """The content, decompressed. Read it within :meth:`reading`."""
        except BaseException:
            self._file.close()
            raise

    def _opened(self, head: bytes) -> Any:
        if head.startswith(_GZIP):
            return io.BufferedReader(gzip.GzipFile(fileobj=self._file, mode="rb"))
        if head.startswith(_ZSTD):
            return io.BufferedReader(_ZstdFile(self._file, self.name), _PIECE)
        return self._file

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Make what decompression raises a BatchInputError."""
        try:
            yield
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            what = "ends in the middle" if isinstance(error, EOFError) else f"is damaged ({error})"
            raise BatchInputError(self.name, f"{what}: the gzip file is not whole, so write it again") from None

    def has_changed(self) -> bool:
        """Whether the file was written to since it was opened."""
        return identity_of(os.fstat(self._file.fileno())) != self.identity

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._file.close()


Identity = tuple[int, int, int]
"""The inode, the bytes, and the time of the last change of a file."""


def identity_of(status: os.stat_result) -> Identity:
    """Return what shows that a file has changed."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def lines_of(data: BinaryIO) -> Iterator[bytes | None]:
    """Yield the lines, with their ends. None: a line of more than MAX_LINE bytes, which was skipped."""
    read = data.readline
    while line := read(MAX_LINE + 1):
        if len(line) > MAX_LINE and not line.endswith(b"\n"):
            del line
            while (piece := read(_PIECE)) and not piece.endswith(b"\n"):
                pass
            yield None
        else:
            yield line


class _ZstdFile(io.RawIOBase):
    """Reads zstd frames. Unlike the library's own reader, it notices a file that was cut."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        try:
            import zstandard  # an extra, and most inputs do not need it
        except ImportError:
            advice = "is compressed by zstd, which needs zstandard: pip install 'headrace[batch]'"
            raise BatchInputError(name, advice) from None
        self._file = file
        self._name = name
        self._library: Any = zstandard
        self._frame: Any = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        while not self._ready and self._fill():
            pass
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _fill(self) -> bool:
        """Decompress a piece. Return False at the end of the file."""
        data = self._compressed or self._file.read(_FEW_COMPRESSED)
        if not data:
            if self._frame is not None:
                raise BatchInputError(self._name, "ends in the middle: the zstd file is not whole, so write it again")
            return False
        if self._frame is None:
            self._frame = self._library.ZstdDecompressor().decompressobj()
        try:
            self._ready = memoryview(self._frame.decompress(data))
        except self._library.ZstdError as error:
            raise BatchInputError(self._name, f"is damaged ({error}): the zstd file must be written again") from None
        self._compressed = self._frame.unused_data if self._frame.eof else b""
        if self._frame.eof:
            self._frame = None
        return True
