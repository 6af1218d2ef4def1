"""Makes a provider's answer such that a frame can carry it, and any client read it. Pure.

UTF-8 has no halves of surrogate pairs. A model may call a tool with integers of any length, where MessagePack has 64 bits; and a server's opaque data may be nested
deeper than a decoder on the way goes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.answers.tool_arguments import sendable_number, well_formed_text
from headrace.types import Message, Part, ReasoningPart, TextPart, ToolCallPart
from headrace.wire.messages import ToolCallText
from headrace_workers.providers.shared.wire_format import Completion

MAX_DEPTH = 200
"""Levels of nesting in what a provider gives to be sent back; a tenth of it is already unheard of."""


class TooDeepError(ValueError):
    """A part of the message is nested deeper than the limit."""

    def __str__(self) -> str:
        return f"the message holds data that is nested deeper than {MAX_DEPTH} levels"


def sendable_completion(completion: Completion) -> Completion:
    """Return the completion with a message that is sendable_message, and whole characters everywhere. Raises TooDeepError."""
    return msgspec.structs.replace(
        completion,
        provider_finish_reason=_text(completion.provider_finish_reason),
        tool_calls=[
            ToolCallText(well_formed_text(call.id), well_formed_text(call.name), well_formed_text(call.arguments))
            for call in completion.tool_calls
        ],
        model=well_formed_text(completion.model),
        message=None if completion.message is None else sendable_message(completion.message),
        refusal=_text(completion.refusal),
        response_id=_text(completion.response_id),
    )


def sendable_message(message: Message) -> Message:
    """Return the message with whole characters and numbers that can be sent back only.

    The text of a tool call keeps each digit. Raises TooDeepError.
    """
    if isinstance(message.content, str):
        return msgspec.structs.replace(message, content=well_formed_text(message.content))
    return msgspec.structs.replace(message, content=[_portable_part(part) for part in message.content])


def _text(text: str | None) -> str | None:
    return None if text is None else well_formed_text(text)


def _portable_part(part: Part) -> Part:
    match part:
        case ToolCallPart():
            arguments, opaque = _portable(part.arguments), _portable(part.provider_data)
            call_id, name = well_formed_text(part.id), well_formed_text(part.name)
            return msgspec.structs.replace(part, id=call_id, name=name, arguments=arguments, provider_data=opaque)
        case TextPart() | ReasoningPart():
            text, opaque = well_formed_text(part.text), _portable(part.provider_data)
            return msgspec.structs.replace(part, text=text, provider_data=opaque)
        case _:
            return part


def _portable(value: Any, room: int = MAX_DEPTH) -> Any:
    # Hundreds of thousands of values may be gone through: the exact types of JSON are told apart sooner than by isinstance.
    kind = type(value)
    if kind is str:
        return well_formed_text(value)
    if kind is dict or kind is list:
        if not room:
            raise TooDeepError
        room -= 1
        if kind is dict:
            return {well_formed_text(key): _portable(item, room) for key, item in value.items()}
        return [_portable(item, room) for item in value]
    return sendable_number(value) if type(value) in {int, float} else value
