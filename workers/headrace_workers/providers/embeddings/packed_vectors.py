"""Packs the vectors of large responses: JSON or base64 in, MessagePack out, one vector at a time. Pure.

A number takes 9 bytes in MessagePack and 32 bytes as a Python object. Six million objects would take 190 MiB, so they
are never made all at once.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import msgspec

from headrace_workers.providers.shared.answer_limits import LIGHT, MIB, too_large, vectors_weighed
from headrace_workers.providers.shared.lenient_json import UNREADABLE

SMALL = MIB
"""Bytes of a response up to which its vectors are decoded to lists of floats."""
MAX_NUMBERS = 6_400_000
"""Numbers in all vectors of one response: as many as one frame has room for."""
MAX_DIMENSIONS = 65_535
"""Numbers in one vector."""

_FLOAT_BYTES = 4
_BRACES = 64
"""JSON objects that a response may have beside those of its vectors."""
_QUOTES = 32
"""Quotes in one JSON object."""
_decode = msgspec.json.Decoder(list[float]).decode
_encode = msgspec.msgpack.Encoder().encode


def size_checked(body: bytes, texts: int) -> Iterator[None]:
    """Raise LimitError for a response that has much more than the vectors of ``texts`` texts.

    Goes in steps. Between two steps the event loop may do other work.
    """
    braces = body.count(b"{")
    if braces > 2 * texts + _BRACES:
        raise too_large(f"the vectors of the {texts} texts that were given", "give fewer texts at a time")
    yield
    commas = body.count(b",")
    if commas > MAX_NUMBERS + 3 * texts + _BRACES:
        raise too_large(f"{MAX_NUMBERS} numbers", "give fewer texts at a time, or ask for fewer dimensions")
    yield
    if body.count(b'"') > _QUOTES * (2 * texts + _BRACES):
        raise too_large(f"the vectors of the {texts} texts that were given", "give fewer texts at a time")
    yield
    yield from vectors_weighed(body, braces, commas)


def small_value(raw: msgspec.Raw) -> Any:
    """Decode a field beside the vectors; None if it is absent, invalid, or longer than any such field of an API."""
    data = bytes(raw)
    try:
        return msgspec.json.decode(data) if 0 < len(data) <= LIGHT else None
    except UNREADABLE:
        return None


def packed(raw: msgspec.Raw) -> msgspec.Raw:
    """Return a vector as MessagePack. ``raw`` is a list of numbers, or base64 of little-endian 4-byte floats.

    Raises ValueError for anything else, and LimitError for a vector that is too long.
    """
    data = bytes(raw).strip()
    if data.startswith(b'"'):
        return msgspec.Raw(_packed_floats(data[1:-1].replace(b"\\/", b"/")))
    if data.count(b",") >= MAX_DIMENSIONS:
        raise too_large(f"{MAX_DIMENSIONS} numbers in one vector")
    try:
        return msgspec.Raw(_encode(_decode(data)))
    except UNREADABLE as error:
        raise ValueError from error


def _packed_floats(text: bytes) -> bytes:
    """Return floats as MessagePack: for each a type byte, and its four bytes in reverse order."""
    try:
        floats = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError from error
    count, rest = divmod(len(floats), _FLOAT_BYTES)
    if rest:
        raise ValueError(len(floats))
    if count > MAX_DIMENSIONS:
        raise too_large(f"{MAX_DIMENSIONS} numbers in one vector")
    said = bytearray(3 + 5 * count)
    said[:3] = b"\xdc" + count.to_bytes(2, "big")
    said[3::5] = b"\xca" * count
    for place in range(_FLOAT_BYTES):
        said[4 + place :: 5] = floats[_FLOAT_BYTES - 1 - place :: _FLOAT_BYTES]
    return bytes(said)
