"""Unpacking of compressed response bodies. Pure; never holds more than a bounded piece of what it unpacks."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

# How much is unpacked before the receiver may say no.
MAX_PIECE_BYTES = 1024 * 1024


_PACKED = {"gzip", "x-gzip", "deflate"}
_MAX_LAYERS = 4
# Servers and gateways write into content-encoding what belongs elsewhere, or that there is none.
_PLAIN = re.compile(
    r"|identity|none|null|raw|plain|text|binary|[78]bit|json|application/json|unicode|(?:us-)?ascii"
    r"|(?:x-)?utf-?\d+(?:-?[lb]e)?|utf|(?:iso-?)?8859-\d+|iso[-_]8859[-_]\d+|latin-?\d*|(?:windows-|cp)\d+"
)


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


class LayeredDecoder:
    """Unpacks a body that was packed more than once: the first decoder takes off the outermost layer."""

    def __init__(self, layers: list[BodyDecoder]) -> None:
        self._layers = layers

    @property
    def is_complete(self) -> bool:
        return all(layer.is_complete for layer in self._layers)

    def feed(self, data: bytes, deliver: Callable[[bytes], bool]) -> None:
        """Hand the unpacked bytes to ``deliver`` until it returns False; raise BadResponseError for damaged data."""
        self._unpack(0, data, deliver)

    def _unpack(self, layer: int, data: bytes, deliver: Callable[[bytes], bool]) -> bool:
        if layer == len(self._layers):
            return deliver(data)
        is_wanted = True

        def take(piece: bytes) -> bool:
            nonlocal is_wanted
            is_wanted = self._unpack(layer + 1, piece, deliver)
            return is_wanted

        self._layers[layer].feed(data, take)
        return is_wanted


def decoder_for(content_encoding: str) -> BodyDecoder | LayeredDecoder | None:
    """Return what unpacks a body with this field, None where nothing is packed; raise BadResponseError for what we cannot."""
    codings = [coding.strip().strip("\"'").lower() for coding in content_encoding.split(",")]
    packed = [coding for coding in codings if not _PLAIN.fullmatch(coding)]
    if (unknown := next((coding for coding in packed if coding not in _PACKED), None)) is not None:
        raise BadResponseError(f"the body is packed as {unknown[:40]!r} (content-encoding), which was not asked for")
    if len(packed) > _MAX_LAYERS:
        raise BadResponseError(f"the body is packed {len(packed)} times; {_MAX_LAYERS} are unpacked at most")
    layers = [BodyDecoder(coding) for coding in reversed(packed)]
    if not layers:
        return None
    return layers[0] if len(layers) == 1 else LayeredDecoder(layers)
