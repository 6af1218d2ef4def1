"""Writes what a tool returned, or raised, as the content of the message that answers the model's call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.answers.tool_arguments import well_formed_text
from headrace.types import AudioPart, FilePart, ImagePart, Part, TextPart

Content = str | list[Part]
_PARTS = (TextPart, ImagePart, AudioPart, FilePart)
"""Parts that a tool may return."""
_MAX_ERROR = 10_000
"""Characters of an error's text that a model is told."""


class UnfitResultError(Exception):
    """A tool returned a value that no message can hold. The text says why, and what to return instead."""


def content_of(value: Any) -> Content:
    """Return a result as content: a str as it is (half a character becomes U+FFFD), parts as parts, every other value as JSON.

    Raises UnfitResultError for bytes, and for a value that JSON cannot hold.
    """
    if isinstance(value, str):
        return well_formed_text(str.__str__(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise UnfitResultError(
            f"the tool returned {type(value).__name__}, which a model cannot read: "
            "return a str, or a part such as headrace.ImagePart.from_file(data)"
        )
    parts = list(value) if isinstance(value, (list, tuple)) else [value]
    if parts and all(isinstance(part, _PARTS) for part in parts):
        return parts
    try:
        return msgspec.json.encode(value, enc_hook=_plain).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UnfitResultError(f"the tool returned {type(value).__name__}, which JSON cannot hold: {error}") from None


def error_words(error: BaseException) -> str:
    """Return an error as the model is told it: its type and its text, without the traceback."""
    try:
        words = str(error)
    except Exception:  # noqa: BLE001 - the error is the user's
        words = ""
    kind = type(error).__name__
    return f"{kind}: {words}" if words else kind


def failure_content(words: str) -> str:
    """Return the words about a call that failed, as the model is told them."""
    cut = words if len(words) <= _MAX_ERROR else words[:_MAX_ERROR] + "…"
    return "Error: " + well_formed_text(cut)


def _plain(value: Any) -> Any:
    """Return a value of another library in types that JSON can hold."""
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    if hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"return a str, or a dict, list or dataclass of plain values, not {type(value).__name__}")
