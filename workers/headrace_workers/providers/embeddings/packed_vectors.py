"""Large answers of vectors: each vector goes from JSON, or base64, to the bytes of its frame. Pure; never holds all as numbers.

A number is 8 bytes in JSON at its shortest, 9 in a frame, and 32 as an object: six million objects would be 190 MiB.
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
"""Bytes of an answer up to which its numbers are made objects."""
MAX_NUMBERS = 6_400_000
"""In all vectors of an answer: what one frame has room for."""
MAX_DIMENSIONS = 65_535
"""In one vector."""

_FLOAT_BYTES = 4
_BRACES = 64
"""Objects that an answer may hold beside those of its vectors."""
_QUOTES = 32
"""Quotes in the object of a vector, and in one beside them."""
_decode = msgspec.json.Decoder(list[float]).decode
_encode = msgspec.msgpack.Encoder().encode


def size_checked(body: bytes, texts: int) -> Iterator[None]:
    """Raise LimitError for an answer that holds much more than the vectors of so many texts.

    Goes step by step: after each there may be another turn of the loop.
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
    """Return what a field beside the vectors says; nothing where it is too long to say something that is known."""
    data = bytes(raw)
    try:
        return msgspec.json.decode(data) if 0 < len(data) <= LIGHT else None
    except UNREADABLE:
        return None


def packed(raw: msgspec.Raw) -> msgspec.Raw:
    """Return a vector, which came as numbers or as the base64 of little-endian floats, as MessagePack.

    Raises ValueError for what is neither, LimitError for one that is too long.
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
    """Return floats as MessagePack has them: a sign, and four bytes the other way round."""
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
