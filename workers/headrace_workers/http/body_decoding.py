"""Unpacking of compressed response bodies, piece by piece, and no bombs. Pure; never holds more than a piece of what it unpacks."""

from __future__ import annotations

import re
import zlib

PIECE = 64 * 1024
"""Bytes that are unpacked at once: in one turn of the loop."""
MAX_RATIO = 200
"""How many times its size a body may unpack to. JSON of the most repetitive kind comes to 100."""
_RATIO_COUNTS_FROM = 8 * 1024 * 1024
_SLICE = 16 * 1024
_MAX_STEPS = 16

_PACKED = {"gzip", "x-gzip", "deflate"}
_MAX_LAYERS = 2
# Servers and gateways write into content-encoding what belongs elsewhere, or that there is none.
_PLAIN = re.compile(
    r"|identity|none|null|raw|plain|text|binary|[78]bit|json|application/json|unicode|(?:us-)?ascii"
    r"|(?:x-)?utf-?\d+(?:-?[lb]e)?|utf|(?:iso-?)?8859-\d+|iso[-_]8859[-_]\d+|latin-?\d*|(?:windows-|cp)\d+"
)


class BadResponseError(Exception):
    """The response is one that we do not read. The text is for users."""


class _Layer:
    """Takes one layer of gzip or deflate off a body, piece by piece."""

    def __init__(self, encoding: str) -> None:
        self._is_gzip = encoding.endswith("gzip")
        self._unpacker = zlib.decompressobj(31 if self._is_gzip else 15)
        self._has_begun = False
        self._input = b""
        self._at = 0
        self._tail = b""  # of a slice that the unpacker did not take yet
        self._is_full = False  # whether it may have more without further input

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
        """Return up to PIECE unpacked bytes; none says nothing about the next. Raises zlib.error for damaged data."""
        if self._unpacker.eof:
            if not self._is_gzip:
                self._input, self._at, self._tail, self._is_full = b"", 0, b"", False
                return b""
            # A gzip body may be several files, one after the other.
            self._unpacker = zlib.decompressobj(31)
        data = self._tail
        if not data and not self._is_full:
            # Little at a time: what the unpacker leaves of it is a copy each time.
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
            # "deflate" means zlib's format, but some servers send the bare one.
            self._unpacker = zlib.decompressobj(-15)
            return self._unpacker.decompress(data, PIECE)


class BodyDecoder:
    """Unpacks a body as it arrives: gzip or deflate, once or twice. Servers send these although we ask for ``identity``.

    ``feed`` what came, then ask for pieces until there are no more: a little in each turn of the loop. The first of the
    layers is the outermost.
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
        """Whether something is left to unpack of what was fed."""
        return any(layer.has_more for layer in self._layers)

    def feed(self, data: bytes) -> None:
        """Take packed bytes."""
        self._packed += len(data)
        self._layers[0].take(data)

    def piece(self) -> bytes:
        """Return some unpacked bytes, if only few steps lead to any. Raises BadResponseError for damage, and for a bomb."""
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
        """Move something one layer on, the last layer that has anything first; return what leaves the last one."""
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
    """Return what unpacks a body with this field, None where nothing is packed; raise BadResponseError for what we cannot."""
    codings = [coding.strip().strip("\"'").lower() for coding in content_encoding.split(",")]
    packed = [coding for coding in codings if not _PLAIN.fullmatch(coding)]
    if (unknown := next((coding for coding in packed if coding not in _PACKED), None)) is not None:
        raise BadResponseError(f"the body is packed as {unknown[:40]!r} (content-encoding), which was not asked for")
    if len(packed) > _MAX_LAYERS:
        raise BadResponseError(f"the body is packed {len(packed)} times; {_MAX_LAYERS} are unpacked at most")
    return BodyDecoder([_Layer(coding) for coding in reversed(packed)]) if packed else None
