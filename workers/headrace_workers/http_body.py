"""Unpacking of compressed response bodies. Pure; never holds more than a bounded piece of what it unpacks."""

from __future__ import annotations

import zlib
from collections.abc import Callable

# How much is unpacked before the receiver may say no.
MAX_PIECE_BYTES = 1024 * 1024


class BadResponseError(Exception):
    """The response is one that we do not read. The text is for users."""


class BodyDecoder:
    """Unpacks a gzip or deflate body as it arrives. Servers send these although we ask for ``identity``."""

    def __init__(self, encoding: str) -> None:
        self._is_gzip = encoding.endswith("gzip")
        self._unpacker = zlib.decompressobj(31 if self._is_gzip else 15)
        self._has_begun = False

    @property
    def is_complete(self) -> bool:
        return self._unpacker.eof or not self._has_begun

    def feed(self, data: bytes, deliver: Callable[[bytes], bool]) -> None:
        """Hand the unpacked bytes to ``deliver`` until it returns False; raise BadResponseError for damaged data."""
        try:
            is_more_inside = False
            while data or is_more_inside:
                if self._unpacker.eof:
                    if not self._is_gzip:
                        return
                    # A gzip body may be several files, one after the other.
                    self._unpacker = zlib.decompressobj(31)
                piece = self._unpack(data)
                if piece and not deliver(piece):
                    return
                data = self._unpacker.unconsumed_tail or self._unpacker.unused_data
                is_more_inside = len(piece) == MAX_PIECE_BYTES and not self._unpacker.eof
        except zlib.error:
            raise BadResponseError("the compressed body is damaged") from None

    def _unpack(self, data: bytes) -> bytes:
        is_first, self._has_begun = not self._has_begun, True
        try:
            return self._unpacker.decompress(data, MAX_PIECE_BYTES)
        except zlib.error:
            if self._is_gzip or not is_first:
                raise
            # "deflate" means zlib's format, but some servers send the bare one.
            self._unpacker = zlib.decompressobj(-15)
            return self._unpacker.decompress(data, MAX_PIECE_BYTES)
