"""Decodes Chat Completions responses to typed chunks: fast if the JSON is regular, else leniently. Pure.

The meaning of a chunk is the mapper's business (``stream.py``).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headrace_workers.providers.shared.lenient_json import UNREADABLE, loads_with_halves
from headrace_workers.providers.shared.provider_errors import is_error
from headrace_workers.providers.shared.unread_content import is_other

# Vendors send null or unexpected types in any field. So the fields are Any.


class ChatDelta(msgspec.Struct, gc=False):
    """A piece of a message, or the whole message."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    thinking: Any = None
    reasoning_details: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None
    annotations: Any = None
    images: Any = None


class ChatChoice(msgspec.Struct, gc=False):
    """One answer of a response. A stream has ``delta``, a whole response has ``message``."""

    index: Any = 0
    delta: ChatDelta | None = None
    message: ChatDelta | None = None
    finish_reason: Any = None
    native_finish_reason: Any = None
    error: Any = None
    text: Any = None


class ChatChunk(msgspec.Struct, gc=False):
    """The data of one event, or a whole body."""

    choices: list[ChatChoice | None] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None
    model: Any = None
    id: Any = None


decode = msgspec.json.Decoder(ChatChunk).decode
"""Decodes one chunk. Raises one of UNREADABLE."""


class SilentDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A piece of a message without content, as at the start and at the end of most streams."""

    role: str | None = None
    content: Literal[""] | None = None
    refusal: Literal[""] | None = None


class SilentChoice(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A choice without content."""

    index: int = 0
    delta: SilentDelta | None = None
    finish_reason: str | None = None
    logprobs: None = None


class SilentChunk(msgspec.Struct, gc=False):
    """A chunk of choices without content."""

    choices: list[SilentChoice]


_decode_silent = msgspec.json.Decoder(SilentChunk).decode


def is_silent(data: bytes) -> bool:
    """Return whether all choices of a chunk have only fields that are known, and no content."""
    try:
        _decode_silent(data)
    except UNREADABLE:
        return False
    return True


def plain_text(data: bytes) -> str | None:
    """Return the text of a chunk whose only choice is the first one, and has a text and nothing else that is read."""
    try:
        chunk = decode(data)
    except UNREADABLE:
        return None
    if chunk.usage or chunk.error or chunk.x_groq or chunk.choices is None or len(chunk.choices) != 1:
        return None
    choice = chunk.choices[0]
    if choice is None or choice.message is not None or choice.finish_reason or choice.error:
        return None
    if choice.delta is None or (choice.index and is_other(choice.index)):
        return None
    content, *others = msgspec.structs.astuple(choice.delta)
    return content if content and type(content) is str and not any(others) else None


def decode_leniently(data: bytes) -> ChatChunk:
    """Decode a chunk in JSON with mistakes, such as NaN or invalid UTF-8. Raises ValueError for anything else.

    Lone halves of surrogate pairs are kept.
    """
    try:
        return decode(data)
    except UNREADABLE:
        pass
    try:
        loaded = loads_with_halves(data)
        if loaded is None:
            return ChatChunk(choices=[])
        if isinstance(loaded, list) and is_error(next(iter(loaded), None)):
            return ChatChunk(choices=[], error=loaded)
        return msgspec.convert(loaded, ChatChunk)
    except (ValueError, *UNREADABLE) as error:
        raise ValueError from error


def groq_part(chunk: ChatChunk) -> dict[str, Any]:
    """Return the object ``x_groq``, in which Groq sends usage and errors; empty if it is absent."""
    return chunk.x_groq if isinstance(chunk.x_groq, dict) else {}
