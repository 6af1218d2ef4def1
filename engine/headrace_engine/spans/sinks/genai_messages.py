"""Converts prompts and answers to the messages and parts of OpenTelemetry's GenAI semantic conventions. Pure."""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from headrace.spans.span import UNENCODABLE, SpanContent
from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, ReasoningPart, TextPart, Tool, ToolCallPart

_INSTRUCTIONS = ("system", "developer")

Json = dict[str, Any]


def split_instructions(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """Return the instructions and the other messages, for providers that take instructions in a field of their own."""
    instructions = [message for message in messages if message.role in _INSTRUCTIONS]
    return instructions, [message for message in messages if message.role not in _INSTRUCTIONS]


def system_instructions(messages: list[Message]) -> list[Json]:
    """Return the parts of ``gen_ai.system_instructions``."""
    return [_text(message.text) for message in messages]


def input_messages(content: SpanContent, messages: list[Message]) -> list[Json]:
    """Return ``gen_ai.input.messages``: the conversation, or the texts that were embedded."""
    if content.inputs:
        return [{"role": "user", "parts": [_text(text)]} for text in content.inputs]
    return [{"role": message.role, "parts": _parts(message)} for message in messages]


def output_messages(content: SpanContent, finish_reason: str | None) -> list[Json]:
    """Return ``gen_ai.output.messages``: the answer, or the part of it that arrived. Version 1.41 has the finish reason in it."""
    parts: list[Json] = []
    if content.reasoning:
        parts.append({"type": "reasoning", "content": content.reasoning})
    if content.text:
        parts.append(_text(content.text))
    if content.refusal:
        parts.append({"type": "refusal", "content": content.refusal})
    parts += [_part(part) for part in content.media]
    parts += [
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": parsed(call.arguments)}
        for call in content.tool_calls
    ]
    if not parts:
        return []
    message: Json = {"role": "assistant", "parts": parts}
    return [message if finish_reason is None else message | {"finish_reason": finish_reason}]


def tool_definitions(tools: list[Tool]) -> list[Json]:
    """Return ``gen_ai.tool.definitions``."""
    return [_tool_definition(tool) for tool in tools]


def _tool_definition(tool: Tool) -> Json:
    """Return a function with its schema, or a tool of the provider with its settings."""
    if tool.type != "function":
        return {**(tool.extra or {}), "type": tool.type, "name": tool.name or tool.type}
    return {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters}


def parsed(arguments: str) -> Any:
    """Return a tool call's arguments as a JSON value; as text if they are cut or cannot be encoded again."""
    try:
        value = msgspec.json.decode(arguments)
        msgspec.json.encode(value)  # an integer of thousands of digits can be read but not written
    except (msgspec.DecodeError, *UNENCODABLE):
        return arguments
    return value


def _parts(message: Message) -> list[Json]:
    if message.role == "tool":
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": message.text}]
    if isinstance(message.content, str):
        return [_text(message.content)]
    return [_part(part) for part in message.content]


def _part(part: Part) -> Json:
    match part:
        case TextPart():
            return _text(part.text)
        case ReasoningPart():
            return {"type": "reasoning", "content": part.text}
        case ToolCallPart():
            return {"type": "tool_call", "id": part.id, "name": part.name, "arguments": part.arguments}
        case ImagePart():
            return _media(part, "image")
        case AudioPart():
            return _media(part, "audio")
        case FilePart():
            return _text(part.text) if part.text is not None else _media(part, _modality(part))
        case _:
            assert_never(part)


def _modality(part: FilePart) -> str:
    family = (part.media_type or "").partition("/")[0]
    return family if family in {"image", "audio", "video"} else "document"


def _media(part: ImagePart | AudioPart | FilePart, modality: str) -> Json:
    kind, data, url = part.media_type, part.data, part.url or ""
    if not isinstance(part, AudioPart) and part.file_id:
        return {"type": "file", "modality": modality, "file_id": part.file_id}
    if url.startswith("data:"):  # the conventions treat such a URL as data
        head, _, data = url.removeprefix("data:").partition(",")
        kind = head.partition(";")[0]
    said = {"modality": modality, "mime_type": kind} if kind else {"modality": modality}
    return {"type": "uri", **said, "uri": url} if data is None else {"type": "blob", **said, "content": data}


def _text(text: str) -> Json:
    return {"type": "text", "content": text}
