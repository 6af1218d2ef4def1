"""Packs the vectors of a large response while its body arrives, so that its JSON is never held as a whole. Pure.

2,048 vectors of 3,072 numbers take 80 to 200 MiB as JSON, and 54 MiB packed. In the body, a text such as ``"~7~"``
takes the place of each vector that was taken out: the number of the vector.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from headrace_workers.providers.embeddings.packed_vectors import MAX_NUMBERS, SMALL, packed
from headrace_workers.providers.shared.answer_limits import MAX_FAR_EXPONENTS, MIB, odd_numbers_in, too_large
from headrace_workers.providers.shared.provider_errors import protocol_failure

MAX_BYTES = 256 * MIB
"""Bytes of all vectors in one response, as JSON. A number on its own line, with blanks before it, takes up to 33
bytes."""

_SHORT = 256
_KEY_BYTES = 64
_KEY = re.compile(rb'(?<!\\)"(?:embedding|values)"\s*:\s*\Z')
_PLACE = re.compile(rb'"~(\d{1,7})~"')
_OF_NUMBERS = b"0123456789+-.eE, \t\r\n"
_BRACKETS = 64
"""Lists that a response may have beside its vectors. After more lists, no more vectors are taken out."""


class ArrivingVectors:
    """Takes the vectors out of one response while it arrives.

    ``vectors`` are MessagePack, in the order of their arrival.
    """

    __slots__ = ("_bytes", "_from", "_lists", "_low", "_numbers", "_odd", "vectors")

    def __init__(self, texts: int) -> None:
        self.vectors: list[msgspec.Raw] = []
        self._lists = 2 * texts + _BRACKETS  # the number of lists that may still end
        self._low = 0  # in the body: the end of the last list
        self._from = 0  # in the body: where the search for the next end of a list begins
        self._numbers = 0
        self._odd = 0
        self._bytes = 0

    def take(self, body: bytearray) -> None:
        """Take the vectors that have arrived whole out of a large body.

        Raises LimitError if there are too many vectors, or if they would take too long to read. Raises
        ProviderFailedError for a list that is no vector.
        """
        if len(body) <= SMALL or not self._lists:
            return
        kept: list[bytes] = []
        end = 0
        while self._lists and (close := body.find(b"]", self._from)) >= 0:
            start = body.rfind(b"[", self._low, close)
            if start >= 0 and self._is_vector(body, start, close):
                kept += [bytes(body[end:start]), b'"~%d~"' % len(self.vectors)]
                end = close + 1
                self._pack(bytes(body[start:end]))
            self._low = self._from = close + 1
            self._lists -= 1
        if kept:
            kept.append(bytes(body[end:]))
            removed = len(body) - sum(map(len, kept))
            body[:] = b"".join(kept)
            self._low -= removed
        self._from = len(body)

    @staticmethod
    def _is_vector(body: bytearray, start: int, close: int) -> bool:
        if close - start < _SHORT or _KEY.search(body[max(start - _KEY_BYTES, 0) : start]) is None:
            return False
        return not body[start + 1 : close].translate(None, _OF_NUMBERS)

    def _pack(self, data: bytes) -> None:
        self._bytes += len(data)
        self._numbers += data.count(b",") + 1
        if self._bytes > MAX_BYTES or self._numbers > MAX_NUMBERS:
            raise too_large(f"{MAX_NUMBERS} numbers", "give fewer texts at a time, or ask for fewer dimensions")
        self._odd += odd_numbers_in(data)
        if self._odd > MAX_FAR_EXPONENTS:
            raise too_large(f"{MAX_FAR_EXPONENTS} numbers with large exponents or very many digits")
        try:
            self.vectors.append(packed(msgspec.Raw(data)))
        except ValueError:
            raise protocol_failure("an embedding is neither a list of numbers nor base64 of floats") from None


def vector_at(raw: msgspec.Raw, arrived: Sequence[msgspec.Raw]) -> msgspec.Raw | None:
    """Return the vector that was taken out at this place of the body; None if none was."""
    found = _PLACE.fullmatch(bytes(raw)) if arrived else None
    place = int(found[1]) if found is not None else len(arrived)
    return arrived[place] if place < len(arrived) else None
