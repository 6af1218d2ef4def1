"""What is read of a Chat Completions response: typed chunks, decoded fast where they are regular and leniently where not.

Never judges what a response means; that is the mapper's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_workers.providers.shared.lenient_json import UNREADABLE, loads_with_halves
from headrace_workers.providers.shared.provider_errors import is_error

# Vendors send null, or another type, wherever they like: hence Any in the leaves.


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


class ChatChoice(msgspec.Struct, gc=False):
    """One of the answers that were asked for; ``delta`` in a stream, else ``message``."""

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
"""Decodes a chunk; raises one of UNREADABLE."""


def decode_leniently(data: bytes) -> ChatChunk:
    """Decode what is nearly JSON: NaN, broken UTF-8. Halves of surrogate pairs are kept. Raises ValueError for what is not."""
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
    """Return what Groq puts beside the choices of a chunk (``x_groq``): usage, or an error."""
    return chunk.x_groq if isinstance(chunk.x_groq, dict) else {}
