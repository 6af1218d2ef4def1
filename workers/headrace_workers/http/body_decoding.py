"""Unpacks compressed response bodies, one piece at a time, and refuses compression bombs. Pure.

Holds at most one unpacked piece per layer.
"""

from __future__ import annotations

import re
import zlib

PIECE = 64 * 1024
"""Bytes that are unpacked in one turn of the loop, at most."""
MAX_RATIO = 200
"""The unpacked size of a body, as a multiple of its packed size, at most. Very repetitive JSON reaches 100."""
_RATIO_COUNTS_FROM = 8 * 1024 * 1024
_SLICE = 16 * 1024
_MAX_STEPS = 16

_PACKED = {"gzip", "x-gzip", "deflate"}
_MAX_LAYERS = 2
# Values of content-encoding that mean "not packed". Some servers write a character set or a media type there.
_PLAIN = re.compile(
    r"|identity|none|null|raw|plain|text|binary|[78]bit|json|application/json|unicode|(?:us-)?ascii"
    r"|(?:x-)?utf-?\d+(?:-?[lb]e)?|utf|(?:iso-?)?8859-\d+|iso[-_]8859[-_]\d+|latin-?\d*|(?:windows-|cp)\d+"
)


class BadResponseError(Exception):
    """A response that the client does not read. The text is for users."""


class _Layer:
    """Unpacks one layer of gzip or deflate, one piece at a time."""

    def __init__(self, encoding: str) -> None:
        self._is_gzip = encoding.endswith("gzip")
        self._unpacker = zlib.decompressobj(31 if self._is_gzip else 15)
        self._has_begun = False
        self._input = b""
        self._at = 0
        self._tail = b""  # the part of the last slice that the unpacker did not take yet
        self._is_full = False  # whether the unpacker may return more without new input

    @property
    def is_complete(self) -> bool:
        return self._unpacker.eof or not self._has_begun

    @property
    def has_more(self) -> bool:
        return bool(self._tail) or self._at < len(self._input) or self._is_full

    def take(self, data: bytes) -> None:
        """Take packed bytes."""
        self._input = self._input[self._at :] + data if self._at < len(self._input) else data
        self._at = 0

    def piece(self) -> bytes:
        """Return up to PIECE unpacked bytes. Empty bytes do not mean the end. Raises zlib.error for damaged data."""
        if self._unpacker.eof:
            if not self._is_gzip:
                self._input, self._at, self._tail, self._is_full = b"", 0, b"", False
                return b""
            # A gzip body may consist of several files, one after the other.
            self._unpacker = zlib.decompressobj(31)
        data = self._tail
        if not data and not self._is_full:
            # A small slice: the unpacker copies what it leaves of it.
            data = self._input[self._at : self._at + _SLICE]
            self._at += len(data)
        unpacked = self._unpack(data)
        self._tail = self._unpacker.unconsumed_tail or self._unpacker.unused_data
        self._is_full = len(unpacked) == PIECE and not self._unpacker.eof
        return unpacked

    def _unpack(self, data: bytes) -> bytes:
        is_first, self._has_begun = not self._has_begun, True
        try:
            return self._unpacker.decompress(data, PIECE)
        except zlib.error:
            if self._is_gzip or not is_first:
                raise
            # "deflate" means the zlib format, but some servers send raw deflate.
            self._unpacker = zlib.decompressobj(-15)
            return self._unpacker.decompress(data, PIECE)


class BodyDecoder:
    """Unpacks a body as it arrives: gzip or deflate, once or twice. Some servers pack although we ask for ``identity``.

    Call ``feed`` with the bytes that came. Then call ``piece`` while ``has_more`` is true, once in each turn of the
    loop. The first of ``layers`` is the outermost.
    """

    def __init__(self, layers: list[_Layer]) -> None:
        self._layers = layers
        self._packed = 0
        self._unpacked = 0

    @property
    def is_complete(self) -> bool:
        """Whether the body may end here."""
        return not self.has_more and all(layer.is_complete for layer in self._layers)

    @property
    def has_more(self) -> bool:
        """Whether some of the bytes fed are still to unpack."""
        return any(layer.has_more for layer in self._layers)

    def feed(self, data: bytes) -> None:
        """Take packed bytes."""
        self._packed += len(data)
        self._layers[0].take(data)

    def piece(self) -> bytes:
        """Return the next unpacked bytes.

        Empty if a few steps produce none. Raises BadResponseError for damage or a bomb.
        """
        unpacked = b""
        try:
            for _ in range(_MAX_STEPS):
                unpacked = self._step()
                if unpacked or not self.has_more:
                    break
        except zlib.error:
            raise BadResponseError("the compressed body is damaged") from None
        self._count(len(unpacked))
        return unpacked

    def _step(self) -> bytes:
        """Unpack one piece of the last layer that has input, and pass it on.

        Return it if that is the last layer of all.
        """
        last = len(self._layers) - 1
        for place in range(last, -1, -1):
            if self._layers[place].has_more:
                unpacked = self._layers[place].piece()
                if place == last:
                    return unpacked
                self._count(len(unpacked))
                self._layers[place + 1].take(unpacked)
                return b""
        return b""

    def _count(self, unpacked: int) -> None:
        self._unpacked += unpacked
        if self._unpacked > _RATIO_COUNTS_FROM and self._unpacked > MAX_RATIO * self._packed:
            raise BadResponseError(f"the compressed body unpacks to more than {MAX_RATIO} times its size")


def decoder_for(content_encoding: str) -> BodyDecoder | None:
    """Return the decoder for a content-encoding, or None if the body is not packed.

    Raises BadResponseError for other encodings.
    """
    codings = [coding.strip().strip("\"'").lower() for coding in content_encoding.split(",")]
    packed = [coding for coding in codings if not _PLAIN.fullmatch(coding)]
    if (unknown := next((coding for coding in packed if coding not in _PACKED), None)) is not None:
        raise BadResponseError(f"the body is packed as {unknown[:40]!r} (content-encoding), which was not asked for")
    if len(packed) > _MAX_LAYERS:
        raise BadResponseError(f"the body is packed {len(packed)} times; {_MAX_LAYERS} are unpacked at most")
    return BodyDecoder([_Layer(coding) for coding in reversed(packed)]) if packed else None
