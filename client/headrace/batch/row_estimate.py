"""Estimates the tokens of a row's prompt, without counting tokens: for a dry run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headrace.arguments.token_estimate import BYTES_PER_TOKEN, TOKENS_OF_MEDIA
from headrace.batch.row import Row
from headrace.types import AudioPart, FilePart, ImagePart

_MEDIA_TYPES = frozenset(
    "image image_url input_image audio input_audio audio_url file input_file document".split()  # noqa: SIM905 - shorter
)
_LARGE = 16 * 1024
_size_of: Callable[[Any], bytes] = msgspec.json.Encoder(enc_hook=lambda value: str(type(value))).encode


def input_tokens_of(row: Row) -> int:
    """Return the estimate: one token for four bytes of the arguments, and a fixed number for each image, sound or file."""
    arguments = row.arguments
    content = arguments["input"] if row.kind == "embeddings" else arguments["messages"]
    size = _bytes_of(content)
    media = 0
    if type(content) is list and row.kind != "embeddings":
        for message in content:
            count, data = _media_of(message)
            media += count
            size -= data
    for name in ("tools", "response_format"):
        if (value := arguments.get(name)) is not None:
            size += _bytes_of(value)
    return max(size, 0) // BYTES_PER_TOKEN + media * TOKENS_OF_MEDIA


def _bytes_of(value: Any) -> int:
    if type(value) is str:
        return len(value) if value.isascii() else len(value.encode(errors="replace"))
    try:
        return len(_size_of(value))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return 0


def _media_of(message: Any) -> tuple[int, int]:
    """Return how many images, sounds and files a message has, and their bytes."""
    content = message.get("content") if isinstance(message, Mapping) else getattr(message, "content", None)
    if not isinstance(content, list):
        return 0, 0
    count = size = 0
    for part in content:
        is_media = isinstance(part, ImagePart | AudioPart | FilePart) or (
            isinstance(part, Mapping) and isinstance(kind := part.get("type"), str) and kind in _MEDIA_TYPES
        )
        if is_media:
            count += 1
            size += _bytes_of(part)
    return count, size
