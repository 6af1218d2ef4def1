"""Changes a provider's answer so that a frame can carry it and every client can read it. Pure.

Three things cannot be sent as they are. UTF-8 cannot encode half of a surrogate pair. MessagePack has 64 bits for an
integer, and a model may write longer ones. Opaque data may be nested deeper than a decoder can read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.answers.tool_arguments import sendable_number, well_formed_text
from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, ReasoningPart, TextPart, ToolCallPart
from headrace.wire.messages import ToolCallText
from headrace_workers.providers.shared.wire_format import Completion

MAX_DEPTH = 200
"""Levels of nesting allowed in a provider's data. Real providers use fewer than 20."""


class TooDeepError(ValueError):
    """Data in the message is nested deeper than MAX_DEPTH levels."""

    def __str__(self) -> str:
        return f"the message holds data that is nested deeper than {MAX_DEPTH} levels"


def sendable_completion(completion: Completion) -> Completion:
    """Return the completion with whole characters everywhere and a sendable message. Raises TooDeepError."""
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
    """Return the message with whole characters, and only numbers that a frame can carry. Raises TooDeepError.

    A tool call's arguments as text keep all digits.
    """
    if isinstance(message.content, str):
        return msgspec.structs.replace(message, content=well_formed_text(message.content))
    return msgspec.structs.replace(message, content=[_sendable_part(part) for part in message.content])


def _text(text: str | None) -> str | None:
    return None if text is None else well_formed_text(text)


def _sendable_part(part: Part) -> Part:
    match part:
        case ToolCallPart():
            arguments, opaque = _sendable_value(part.arguments), _sendable_value(part.provider_data)
            call_id, name = well_formed_text(part.id), well_formed_text(part.name)
            return msgspec.structs.replace(part, id=call_id, name=name, arguments=arguments, provider_data=opaque)
        case TextPart() | ReasoningPart():
            text, opaque = well_formed_text(part.text), _sendable_value(part.provider_data)
            return msgspec.structs.replace(part, text=text, provider_data=opaque)
        case AudioPart():
            names = {name: _text(getattr(part, name)) for name in ("data", "media_type", "transcript")}
            return msgspec.structs.replace(part, **names, provider_data=_sendable_value(part.provider_data))
        case FilePart():
            names = {name: _text(getattr(part, name)) for name in ("name", "media_type", "text", "url", "file_id")}
            return msgspec.structs.replace(part, **names, provider_data=_sendable_value(part.provider_data))
        case ImagePart():
            names = {name: _text(getattr(part, name)) for name in ("url", "data", "media_type")}
            return msgspec.structs.replace(part, **names, provider_data=_sendable_value(part.provider_data))


def _sendable_value(value: Any, room: int = MAX_DEPTH) -> Any:
    # There may be hundreds of thousands of values. Comparing exact types is faster than isinstance.
    kind = type(value)
    if kind is str:
        return well_formed_text(value)
    if kind is dict or kind is list:
        if not room:
            raise TooDeepError
        room -= 1
        if kind is dict:
            return {well_formed_text(key): _sendable_value(item, room) for key, item in value.items()}
        return [_sendable_value(item, room) for item in value]
    return sendable_number(value) if type(value) in {int, float} else value
