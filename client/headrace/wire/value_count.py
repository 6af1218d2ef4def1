"""Counts the values in MessagePack before it is decoded: numbers, texts, lists and maps. Pure.

An empty list is one byte, and takes 56 bytes of memory when it is decoded. So a bound on bytes bounds neither memory
nor time.
"""

from __future__ import annotations

MAX_VALUES = 200_000
"""Most numbers, texts, lists and maps in one request or span."""
VALUE_BYTES = 64
"""Bytes of memory that one value may take besides its own bytes."""


def has_too_many_values(data: bytes | memoryview) -> bool:
    """Return whether MessagePack has more values than a request or a span may have.

    Fast if it is short or has long texts.
    """
    return len(data) > MAX_VALUES and count_values(data, MAX_VALUES) > MAX_VALUES


def count_values(data: bytes | memoryview, limit: int) -> int:
    """Return how many values MessagePack has. It stops above ``limit``.

    Broken MessagePack is counted up to its fault.
    """
    at, count, end = 0, 0, len(data)
    while at < end and count <= limit:
        count += 1
        kind = data[at]
        at += 1
        if _FIRST_SHORT_TEXT <= kind <= _LAST_SHORT_TEXT:
            at += kind & 0x1F
        elif (size := _SIZES.get(kind)) is not None:
            head, more = size
            at += head + more + (int.from_bytes(data[at : at + head], "big") if head else 0)
    return count


_FIRST_SHORT_TEXT, _LAST_SHORT_TEXT = 0xA0, 0xBF
# First byte of a value → (how many bytes give its length, how many more bytes it has besides).
_SIZES = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1), 0xCA: (0, 4), 0xCB: (0, 8),
    0xCC: (0, 1), 0xCD: (0, 2), 0xCE: (0, 4), 0xCF: (0, 8), 0xD0: (0, 1), 0xD1: (0, 2), 0xD2: (0, 4), 0xD3: (0, 8),
    0xD4: (0, 2), 0xD5: (0, 3), 0xD6: (0, 5), 0xD7: (0, 9), 0xD8: (0, 17), 0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
    # Lists and maps: their items follow, and are counted as values.
    0xDC: (0, 2), 0xDD: (0, 4), 0xDE: (0, 2), 0xDF: (0, 4),
}  # fmt: skip
