"""Reads of a socket that are exactly one chunk of HTTP's chunked transfer coding: most reads of a slow stream. Pure.

Such a read is ``size line, bytes of the body, line end``, and needs no parser if the read before it ended with a chunk too.
"""

from __future__ import annotations

LINE_END = b"\r\n"
_LONGEST = 1024


def _size_line(read: int) -> bytes:
    """Return the size line of a chunk that takes ``read`` bytes with it and its line ends."""
    for digits in range(1, 4):
        size = read - digits - 2 * len(LINE_END)
        line = b"%x\r\n" % max(size, 0)
        if size > 0 and len(line) == digits + len(LINE_END):
            return line
    return b"no chunk has this length"


SIZE_LINES = tuple(map(_size_line, range(_LONGEST)))
"""Length of a read → the size line with which it begins, if it is one chunk."""


def ends_with_chunk(read: bytes, piece: bytes) -> bool:
    """Return whether a read of a chunked body ends where a chunk ends, for a body of server-sent events.

    ``piece`` is its last piece of the body, as the parser gave it. False if it is not certain. Two line feeds in a row stand only in
    the body, never in size lines. So what follows them is the end of their chunk, unless it is in the body itself.
    """
    return read.endswith(b"\n\n\r\n") and piece.endswith(b"\n\n")
