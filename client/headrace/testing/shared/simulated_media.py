"""Images and audio in simulated answers, and the content of files in requests. Pure."""

from __future__ import annotations

import base64
import binascii
import re

from headrace.media.media_types import type_of_base64

SAMPLES = "audio/L16;codec=pcm;rate=24000"
"""The type of audio without a file's head."""

_DATA_URL = re.compile(r"data:(?P<media_type>[^;,]*);base64,(?P<data>.*)", re.DOTALL)
_AUDIO_PIECES = 3


def image_type(data: str) -> str:
    """Return the media type of an image in base64; ``image/png`` if its bytes do not tell it."""
    return type_of_base64(data) or "image/png"


def audio_type(data: str) -> str:
    """Return the media type of audio in base64; that of samples if its bytes do not tell it."""
    return type_of_base64(data) or SAMPLES


def audio_pieces(data: str) -> list[str]:
    """Return audio as the pieces of a stream, each in base64 of its own."""
    content = base64.b64decode(data)
    size = max(-(-len(content) // _AUDIO_PIECES), 1)
    return [base64.b64encode(content[start : start + size]).decode() for start in range(0, len(content), size)]


def inline_type(url: str) -> str | None:
    """Return the media type of a ``data:`` URL; None for another URL, and for one whose content is no base64."""
    inline = _DATA_URL.fullmatch(url)
    return inline["media_type"] if inline is not None and is_base64(inline["data"]) else None


def is_base64(value: object) -> bool:
    """Return whether a value is text in base64."""
    try:
        return isinstance(value, str) and bool(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        return False
