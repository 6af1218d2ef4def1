"""A conversation as the Messages API wants it: system texts apart, turns that alternate, tool results first in the user's turn.

Opaque data of this API goes back as it came; that of others stays behind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from headrace.types import ImagePart, Message, Part, ReasoningPart, TextPart, ToolCallPart
from headrace_workers.providers.anthropic_blocks import API_NAME
from headrace_workers.providers.failures import request_failure
from headrace_workers.providers.request_parts import parts_of, word_for

_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_DATA_URL = re.compile(r"data:(?P<media_type>[^;,]+);base64,(?P<data>.*)", re.DOTALL)
_THINKING = ("thinking", "redacted_thinking")

Block = dict[str, Any]


def system_of(messages: Sequence[Message]) -> list[Block]:
    """Return the system prompt: the texts of all system and developer messages."""
    blocks: list[Block] = []
    for message in messages:
        if message.role in {"system", "developer"}:
            for part in parts_of(message):
                if not isinstance(part, TextPart):
                    raise request_failure(f"a message with role {message.role} can hold nothing but text")
                if _has_words(part):
                    blocks.append({"type": "text", "text": part.text})
    return blocks


def conversation_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the other messages, those of one side in a row as one turn."""
    turns: list[tuple[str, list[Block]]] = []
    for message in messages:
        if message.role in {"system", "developer"}:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message)
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((role, blocks))
    return [{"role": role, "content": _content(_ordered(role, blocks))} for role, blocks in turns]


def _blocks(message: Message) -> list[Block]:
    match message.role:
        case "assistant":
            return _assistant_blocks(message)
        case "tool":
            return [_tool_result(message)]
        case _:
            blocks = [_user_block(part, message.role) for part in parts_of(message) if _has_words(part)]
            if not blocks:
                raise request_failure("a message with role user is empty")
            return blocks


def _has_words(part: Part) -> bool:
    """Tell a part that can be sent: the API refuses text that is white space alone, though models say it."""
    return not isinstance(part, TextPart) or bool(part.text.strip())


def _ordered(role: str, blocks: list[Block]) -> list[Block]:
    if role == "user":
        return sorted(blocks, key=lambda block: block["type"] != "tool_result")
    return blocks


def _content(blocks: list[Block]) -> str | list[Block]:
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        text = blocks[0]["text"]
        return text if isinstance(text, str) else blocks
    return blocks


def _assistant_blocks(message: Message) -> list[Block]:
    blocks = [_assistant_block(part) for part in parts_of(message) if _has_words(part)]
    sent = [block for block in blocks if block is not None]
    # Thinking that led to nothing was cut off, and a turn must not end in it.
    while sent and sent[-1].get("type") in _THINKING:
        sent.pop()
    return sent


def _assistant_block(part: Part) -> Block | None:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text} | _opaque(part)
        case ToolCallPart():
            call = {"type": "tool_use", "id": _id(part.id), "name": part.name, "input": part.arguments}
            return call | _opaque(part)
        case ReasoningPart():
            block = _opaque(part)
            if block.get("type") == "thinking":
                return {"type": "thinking", "thinking": part.text} | block
            return block or None
        case ImagePart():
            raise request_failure("a message with role assistant cannot hold an image")


def _opaque(part: TextPart | ToolCallPart | ReasoningPart) -> Block:
    said = part.provider_data or {}
    block = said.get("block")
    return block if said.get("api") == API_NAME and isinstance(block, dict) else {}


def _tool_result(message: Message) -> Block:
    if not message.tool_call_id:
        raise request_failure("a message with role tool needs tool_call_id: the call that it answers")
    blocks = [_user_block(part, "tool") for part in parts_of(message) if _has_words(part)]
    return {"type": "tool_result", "tool_use_id": _id(message.tool_call_id), "content": _content(blocks) or ""}


def _user_block(part: Part, role: str) -> Block:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            return {"type": "image", "source": _image_source(part)}
        case ToolCallPart() | ReasoningPart():
            raise request_failure(f"a message with role {role} cannot hold {word_for(part)}")


def _image_source(part: ImagePart) -> Block:
    if part.url and (inline := _DATA_URL.fullmatch(part.url)):
        return {"type": "base64", **inline.groupdict()}
    if part.url:
        return {"type": "url", "url": part.url}
    if not part.data or not part.media_type:
        raise request_failure("an image needs url, or data and media_type")
    return {"type": "base64", "media_type": part.media_type, "data": part.data}


def _id(call_id: str) -> str:
    """Return a call's id in the letters that this API takes: ids of other providers may hold more."""
    return _NOT_IN_IDS.sub("_", call_id)
