"""Writes a worker's spool: files with the spans that the collector has not stored, and the stubs of running runs.

Each file stays locked while this process lives. The collector recovers a file that it can lock. No call raises when the
disk fails: then the caller keeps the spans in memory, and the spool tries again later.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from headrace.spans.spool_format import HEAD_BYTES, encode_record, read_records
from headrace_workers.spans.unacknowledged_spans import SpoolPlace

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 4 * 1024 * 1024
"""Bytes of one file. Then the spool begins another one."""
RETRY_AFTER = 1.0
"""Seconds between a failed write and the next attempt."""

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
_NAMES_TO_TRY = 16


class WrittenSpan(msgspec.Struct, frozen=True, gc=False):
    """The span of an ended run, and its place in the spool. ``place`` is None if it could not be written."""

    span: bytes
    place: SpoolPlace | None


class _Segment:
    """One file. Its first ``head`` bytes are the stubs of the runs that were running when the file was created."""

    __slots__ = ("fd", "head", "number", "path", "size")

    def __init__(self, number: int, path: Path, fd: int, head: int) -> None:
        self.number = number
        self.path = path
        self.fd = fd
        self.head = head
        self.size = 0


class SpoolWriter:
    """The files ``directory/NAME-EPOCHHEX-N.spool`` of one worker.

    Spans and stubs are collected until :meth:`commit` writes them.

    The newest file holds the stubs of all running runs. ``limit`` is the size of all files in bytes. 0: nothing is
    written. ``encode`` returns the bytes of a stub: stubs are kept as they are given, and encoded again for each new file.
    """

    def __init__(
        self, directory: Path, name: str, epoch: int, limit: int, encode: Callable[[Any], bytes] = bytes
    ) -> None:
        self.size = 0
        self._directory = directory
        self._prefix = f"{name}-{epoch:x}"
        self._limit = limit
        self._segment_bytes = min(SEGMENT_BYTES, limit // 4)
        self._count = 0
        self._segments: dict[int, _Segment] = {}  # the oldest first
        self._current: _Segment | None = None
        self._retry_at: float | None = None
        self._encode = encode
        self._stubs: dict[int, Any] = {}
        self._begun: list[bytes] = []
        self._ended: list[bytes] = []

    @property
    def has_uncommitted(self) -> bool:
        """Whether the spool has spans or stubs that are not committed yet."""
        return bool(self._begun or self._ended)

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to write to the spool failed."""
        return self._retry_at is not None

    def begin(self, run: int, stub: Any) -> None:
        """A run has begun. ``stub`` is its span until it has ended. ``run`` is its number in this worker."""
        self._begun.append(encode_record(self._encode(stub)))
        self._stubs[run] = stub

    def end(self, run: int, span: bytes) -> None:
        """A run has ended. ``span`` replaces its stub, if it has one."""
        self._stubs.pop(run, None)
        self._ended.append(span)

    def commit(self, now: float) -> list[WrittenSpan]:
        """Write the stubs and spans that were collected. Return the spans of the ended runs, with their places."""
        if not self.has_uncommitted:
            return []
        begun, self._begun = self._begun, []
        ended, self._ended = self._ended, []
        records = [encode_record(span) for span in ended]
        offset = self._append(begun, records, now)
        if offset is None or self._current is None:
            return [WrittenSpan(span, None) for span in ended]
        number = self._current.number
        written: list[WrittenSpan] = []
        for span, record in zip(ended, records, strict=True):
            length = len(record)
            written.append(WrittenSpan(span, SpoolPlace(number, offset, length)))
            offset += length
        return written

    def read(self, place: SpoolPlace) -> bytes | None:
        """Return the span at a place, or None if it cannot be read whole."""
        segment = self._segments.get(place.segment)
        if segment is None:
            return None
        try:
            record = os.pread(segment.fd, place.length, place.offset)
        except OSError:
            return None
        payload = next(read_records(record), None)
        return bytes(payload) if payload is not None and len(payload) + HEAD_BYTES == place.length else None

    def over_limit(self) -> int | None:
        """Return the number of the file to remove, or None if the spool is within its limit.

        The newest file always stays.
        """
        if self.size <= self._limit or len(self._segments) <= 1:
            return None
        return next(iter(self._segments))

    def remove(self, number: int) -> None:
        """Remove a file, and the spans in it."""
        segment = self._segments.pop(number)
        self.size -= segment.size
        with contextlib.suppress(OSError):
            if os.path.samestat(
                segment.path.lstat(), os.fstat(segment.fd)
            ):  # else another process has put another file there
                segment.path.unlink()
        os.close(segment.fd)
        if segment is self._current:
            self._current = None

    def release(self, is_needed: Callable[[int], object]) -> None:
        """Remove the oldest files that are not needed.

        Empty the newest file if it is not needed and no run is running.
        """
        while len(self._segments) > 1 and not is_needed(number := next(iter(self._segments))):
            self.remove(number)
        if len(self._segments) == 1 and not self._stubs:
            segment = next(iter(self._segments.values()))
            if segment.size and not is_needed(segment.number):
                self._cut(segment, 0)

    def close(self) -> None:
        """Close the files. Files with spans stay for the collector. May be called twice."""
        for segment in list(self._segments.values()):
            if segment.size:
                os.close(segment.fd)
            else:
                self.remove(segment.number)
        self._segments.clear()
        self._current = None
        self._limit = 0

    def _append(self, begun: list[bytes], ended: list[bytes], now: float) -> int | None:
        """Write stubs and spans. Return the offset of the first of ``ended``, or None if nothing could be written."""
        if self._limit <= 0 or (self._retry_at is not None and now < self._retry_at):
            return None
        try:
            segment = self._current
            if segment is None or self.is_failing or segment.size - segment.head >= self._segment_bytes:
                begun = [encode_record(self._encode(stub)) for stub in self._stubs.values()]
                segment = self._open(head=sum(map(len, begun)))
            self._write(segment, b"".join([*begun, *ended]))
        except OSError as error:
            self._failed(error, now)
            return None
        if self.is_failing:
            self._retry_at = None
            logger.warning("spool can be written again")
        return segment.size - sum(map(len, ended))

    def _open(self, head: int) -> _Segment:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        for _ in range(_NAMES_TO_TRY):
            self._count += 1
            path = self._directory / f"{self._prefix}-{self._count}.spool"
            try:
                fd = os.open(path, _FLAGS, 0o600)
            except FileExistsError:
                continue
            if _is_ours(fd):
                segment = self._current = self._segments[self._count] = _Segment(self._count, path, fd, head)
                return segment
            os.close(fd)
        raise FileExistsError(f"{self._prefix}: no free name")

    def _write(self, segment: _Segment, data: bytes) -> None:
        try:
            written = os.write(segment.fd, data)
            while written < len(data):
                written += os.write(segment.fd, memoryview(data)[written:])
        except OSError:
            self._cut(segment, segment.size)
            raise
        segment.size += len(data)
        self.size += len(data)

    def _cut(self, segment: _Segment, size: int) -> None:
        """Shorten a file to whole records. If that fails, never write to it again."""
        try:
            os.ftruncate(segment.fd, size)
        except OSError:
            self._current = None
            return
        self.size += size - segment.size
        segment.size = size
        segment.head = min(segment.head, size)

    def _failed(self, error: OSError, now: float) -> None:
        if self._retry_at is None:
            logger.warning("spool cannot be written", extra={"reason": error.strerror})
        self._retry_at = now + RETRY_AFTER
        # The next attempt creates a new file, because the end of this one is unknown.
        if self._current is not None and not self._current.size:
            self.remove(self._current.number)
        self._current = None


def _is_ours(fd: int) -> bool:
    """Lock a new file, and return whether it still exists.

    The collector may have locked and removed it, as a dead worker's.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return os.fstat(fd).st_nlink > 0
