"""Reads of a socket that are exactly one chunk of HTTP's chunked transfer coding: most reads of a slow stream. Pure.

Such a read is ``size line, bytes of the body, line end``, and needs no parser if the read before it ended with a chunk too.
"""

from __future__ import annotations

LINE_END = b"\r\n"
_NO_LINE = b"no chunk has this length"


def _size_lines(digits: int) -> list[bytes]:
    """Return the size lines with so many hexadecimal digits, and what stands for the length between them and shorter ones."""
    return [_NO_LINE, *[b"%x\r\n" % size for size in range(16 ** (digits - 1), 16**digits)]]


SIZE_LINES = ([_NO_LINE] * len(b"0\r\n\r\n") + _size_lines(1) + _size_lines(2) + _size_lines(3))[:1024]
"""Length of a read → the size line with which it begins, if it is one chunk."""


def ends_with_chunk(read: bytes, piece: bytes) -> bool:
    """Return whether a read of a chunked body ends where a chunk ends, for a body of server-sent events.

    ``piece`` is its last piece of the body, as the parser gave it. False if it is not certain. Two line feeds in a row stand only in
    the body, never in size lines. So what follows them is the end of their chunk, unless it is in the body itself.
    """
    return read.endswith(b"\n\n\r\n") and piece.endswith(b"\n\n")
