"""Makes a provider's message such that a frame can carry it, and any client read it. Pure.

A model may call a tool with integers of any length, where MessagePack has 64 bits; and a server's opaque data may be nested
deeper than a decoder on the way goes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.types import Message, Part, ReasoningPart, TextPart, ToolCallPart

MAX_DEPTH = 200
"""Levels of nesting in what a provider gives to be sent back; a tenth of it is already unheard of."""

_LEAST, _MOST = -(2**63), 2**64 - 1


class TooDeepError(ValueError):
    """A part of the message is nested deeper than the limit."""

    def __str__(self) -> str:
        return f"the message holds data that is nested deeper than {MAX_DEPTH} levels"


def portable(message: Message) -> Message:
    """Return the message with large integers as floats, which is what most readers of JSON make of them.

    The text of a tool call keeps each digit. Raises TooDeepError.
    """
    if isinstance(message.content, str):
        return message
    return msgspec.structs.replace(message, content=[_portable_part(part) for part in message.content])


def _portable_part(part: Part) -> Part:
    match part:
        case ToolCallPart():
            arguments, opaque = _portable(part.arguments), _portable(part.provider_data)
            return msgspec.structs.replace(part, arguments=arguments, provider_data=opaque)
        case TextPart() | ReasoningPart() if part.provider_data is not None:
            return msgspec.structs.replace(part, provider_data=_portable(part.provider_data))
        case _:
            return part


def _portable(value: Any, room: int = MAX_DEPTH) -> Any:
    if isinstance(value, dict | list) and not room:
        raise TooDeepError
    if isinstance(value, dict):
        return {key: _portable(item, room - 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item, room - 1) for item in value]
    if type(value) is not int or _LEAST <= value <= _MOST:
        return value
    try:
        return float(value)
    except OverflowError:  # no float has room for it either
        return str(value)
