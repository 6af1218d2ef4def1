"""The format of a spool file: spans one after another, each with its length and checksum. Pure.

A worker writes a span to its spool before the run's client hears of the end. So the span survives the death of the
worker. If a crash or the disk damages a file, the checksums show it: only the damaged records are lost.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_HEAD = struct.Struct("<4sII")
_MARK = b"HRS1"
HEAD_BYTES = _HEAD.size
MAX_RECORD_BYTES = 128 * 1024 * 1024

_SEARCH_FACTOR = 4
"""Limits the search after damage: bytes to check, as a multiple of the file's size.

A file may be full of false marks.
"""


def encode_record(payload: bytes) -> bytes:
    """Return the record that holds ``payload``."""
    return _HEAD.pack(_MARK, len(payload), zlib.crc32(payload)) + payload


def is_spool(data: bytes) -> bool:
    """Return whether a file begins like a spool, also if it is damaged later. True for an empty file."""
    return data.startswith(_MARK[: len(data)])


def read_records(data: bytes) -> Iterator[memoryview]:
    """Yield the payloads of all whole records in ``data``, also of those after damage."""
    return (part for part in read_spool(data) if part is not None)


def read_spool(data: bytes) -> Iterator[memoryview | None]:
    """Yield the payloads of all whole records in ``data``, and None for each damaged stretch between them."""
    view = memoryview(data)
    offset, budget = 0, _SEARCH_FACTOR * len(data)
    while offset < len(data):
        end = _record_end(view, offset)
        if end is None:
            yield None
            offset, budget = _next_record(data, offset + 1, budget)
        else:
            yield view[offset + HEAD_BYTES : end]
            offset = end


def _next_record(data: bytes, start: int, budget: int) -> tuple[int, int]:
    """Return the offset of the next whole record from ``start`` on, or the end, and the rest of ``budget``."""
    view = memoryview(data)
    while budget > 0 and (offset := data.find(_MARK, start)) >= 0:
        if _record_end(view, offset) is not None:
            return offset, budget
        budget -= _claimed_bytes(view, offset)
        start = offset + 1
    return len(data), budget


def _record_end(view: memoryview, offset: int) -> int | None:
    length = _claimed_bytes(view, offset)
    if not length:
        return None
    checksum = _HEAD.unpack_from(view, offset)[2]
    end = offset + length
    return end if zlib.crc32(view[offset + HEAD_BYTES : end]) == checksum else None


def _claimed_bytes(view: memoryview, offset: int) -> int:
    """Return the size that a record at ``offset`` claims, or 0 if no record can begin there."""
    if len(view) - offset < HEAD_BYTES:
        return 0
    mark, length, _ = _HEAD.unpack_from(view, offset)
    size: int = HEAD_BYTES + length
    return size if mark == _MARK and length <= MAX_RECORD_BYTES and offset + size <= len(view) else 0
