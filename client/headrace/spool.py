"""The format of a spool file: spans one after another, each with its length and checksum. Pure.

A worker appends to its spool before a run's client hears of the end, so that a span outlives its worker. What a crash or a disk
did to a file is found by the checksums: reading goes on to the first record that is not whole, and no further.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_HEAD = struct.Struct("<4sII")
_MARK = b"HRS1"
HEAD_BYTES = _HEAD.size
MAX_RECORD_BYTES = 128 * 1024 * 1024


def encode_record(payload: bytes) -> bytes:
    """Return the record that holds ``payload``."""
    return _HEAD.pack(_MARK, len(payload), zlib.crc32(payload)) + payload


def read_records(data: bytes | memoryview) -> Iterator[memoryview]:
    """Yield the payloads of the whole records at the start of ``data``; see :func:`intact_bytes` for where they end."""
    view = memoryview(data)
    offset = 0
    while (end := _record_end(view, offset)) is not None:
        yield view[offset + HEAD_BYTES : end]
        offset = end


def intact_bytes(data: bytes | memoryview) -> int:
    """Return how many bytes of ``data`` are whole records, from its start."""
    view = memoryview(data)
    offset = 0
    while (end := _record_end(view, offset)) is not None:
        offset = end
    return offset


def _record_end(view: memoryview, offset: int) -> int | None:
    if len(view) - offset < HEAD_BYTES:
        return None
    mark, length, checksum = _HEAD.unpack_from(view, offset)
    end = offset + HEAD_BYTES + length
    if mark != _MARK or length > MAX_RECORD_BYTES or end > len(view):
        return None
    return end if zlib.crc32(view[offset + HEAD_BYTES : end]) == checksum else None
