"""Builds the conversation of a Messages request: system prompt, alternating turns, tool results first in a turn. Pure.

Opaque data of this API is sent back as it came. Opaque data of other formats is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, ReasoningPart, TextPart, ToolCallPart
from headrace_workers.providers.anthropic.blocks import API_NAME
from headrace_workers.providers.anthropic.media_blocks import media_block
from headrace_workers.providers.shared.extra_keys import ExtraKeys
from headrace_workers.providers.shared.media import is_left_out, refused_in_answer
from headrace_workers.providers.shared.provider_errors import request_failure
from headrace_workers.providers.shared.request_parts import parts_of, word_for

_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_SERVER_USES = ("server_tool_use", "mcp_tool_use")
_THINKING = ("thinking", "redacted_thinking")

SentBlock = dict[str, Any]

_TOOL_KEYS = ("allowed_callers", "cache_control", "defer_loading", "eager_input_streaming", "input_examples")
KEYS = ExtraKeys(
    "Anthropic",
    {
        "message": {"cache_control"},
        "assistant message": {"cache_control"},
        "tool message": {"cache_control", "is_error", "toolset_name"},
        "text": {"cache_control", "citations"},
        "image": {"cache_control", "transformations"},
        "file": {"cache_control", "citations", "context"},
        "tool call": {"cache_control", "caller", "toolset_name"},
        "tool": _TOOL_KEYS,
        "function": _TOOL_KEYS,
    },
    {
        "prompt_cache_breakpoint": "use cache_control={'type': 'ephemeral'} instead",
        "detail": "resize the image before you send it",
    },
)
"""Extra keys that the API takes. A key on a message itself is sent on the last block of the message."""


def system_of(messages: Sequence[Message]) -> list[SentBlock]:
    """Return the system prompt: the texts of all system and developer messages."""
    blocks: list[SentBlock] = []
    for index, message in enumerate(messages):
        if message.role in {"system", "developer"}:
            where = f"messages[{index}]"
            for part_index, part in enumerate(parts_of(message)):
                if not isinstance(part, TextPart):
                    at = f"{where}.content[{part_index}]"
                    raise request_failure(f"a message with role {message.role} can hold only text", at)
            said = [_user_block(at, part, message.role) for at, part in _sendable_parts(where, message)]
            blocks += _with_extra_keys(where, message, said)
    return blocks


def conversation_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return all other messages as turns. Several messages of one side in a row become one turn."""
    turns: list[tuple[str, list[SentBlock]]] = []
    toolsets: dict[str, str] = {}
    for index, message in enumerate(messages):
        if message.role in {"system", "developer"}:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(f"messages[{index}]", message)
        for block in blocks:
            _keep_toolset(block, toolsets)
        if message.role == "user" and len(turns) > 1:
            _check_mixed_turn(f"messages[{index}]", turns)
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((role, blocks))
    return [{"role": role, "content": _content(_ordered(role, blocks))} for role, blocks in turns]


def _keep_toolset(block: SentBlock, toolsets: dict[str, str]) -> None:
    """Copy the toolset name of each call to the result of the call."""
    if block.get("type") == "tool_use" and block.get("toolset_name"):
        toolsets[block["id"]] = block["toolset_name"]
    elif block.get("type") == "tool_result" and block["tool_use_id"] in toolsets:
        block.setdefault("toolset_name", toolsets[block["tool_use_id"]])


def _check_mixed_turn(where: str, turns: list[tuple[str, list[SentBlock]]]) -> None:
    """Raise ProviderFailedError for a user's message while a server tool is pending: the API takes only tool results."""
    said = turns[-1][1] if turns[-1][0] == "assistant" else turns[-2][1]
    ended = {block.get("tool_use_id") for block in said}
    pending = [block for block in said if block.get("type") in _SERVER_USES and block.get("id") not in ended]
    if pending and any(block.get("type") == "tool_use" for block in said):
        reason = (
            f"Anthropic's own tool {pending[0].get('name')} has not ended: answer the calls with tool messages only"
        )
        raise request_failure(reason, where)


def _blocks(where: str, message: Message) -> list[SentBlock]:
    match message.role:
        case "assistant":
            return _with_extra_keys(where, message, _assistant_blocks(where, message))
        case "tool":
            return _with_extra_keys(where, message, [_tool_result(where, message)])
        case _:
            blocks = [_user_block(at, part, message.role) for at, part in _sendable_parts(where, message)]
            if not blocks:
                raise request_failure("a message with role user is empty", f"{where}.content")
            return _with_extra_keys(where, message, blocks)


def _sendable_parts(where: str, message: Message) -> list[tuple[str, Part]]:
    """Return the parts that can be sent, with their paths.

    Empty text is left out: models write it, but the API refuses it.
    """
    said: list[tuple[str, Part]] = []
    for index, part in enumerate(parts_of(message)):
        at = f"{where}.content[{index}]"
        if message.role == "assistant" and is_left_out(part, message):
            continue
        if not isinstance(part, TextPart) or part.text.strip():
            said.append((at, part))
        elif part.extra:
            raise request_failure(
                "Anthropic does not take it on text that is empty or only white space", f"{at}.{next(iter(part.extra))}"
            )
    return said


def _with_extra_keys(where: str, message: Message, blocks: list[SentBlock]) -> list[SentBlock]:
    """Return the blocks of a message, with the extra keys of the message on its last block."""
    extra = KEYS.of_message(where, message)
    if not extra:
        return blocks
    if not blocks or blocks[-1]["type"] in _THINKING:
        raise request_failure("the message has no block to send it with", f"{where}.{next(iter(extra))}")
    for key, value in extra.items():
        if blocks[-1].get(key, value) != value:
            raise request_failure("the last part of the message has another", f"{where}.{key}")
    return [*blocks[:-1], blocks[-1] | extra]


def _ordered(role: str, blocks: list[SentBlock]) -> list[SentBlock]:
    if role == "user":
        return sorted(blocks, key=lambda block: block["type"] != "tool_result")
    return blocks


def _content(blocks: list[SentBlock]) -> str | list[SentBlock]:
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        text = blocks[0]["text"]
        return text if isinstance(text, str) else blocks
    return blocks


def _assistant_blocks(where: str, message: Message) -> list[SentBlock]:
    blocks = [_assistant_block(at, part) for at, part in _sendable_parts(where, message)]
    sent = [block for block in blocks if block is not None]
    # Thinking at the end was cut off before its answer. The API refuses a turn that ends with it.
    while sent and sent[-1].get("type") in _THINKING:
        sent.pop()
    return sent


def _assistant_block(where: str, part: Part) -> SentBlock | None:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text} | _opaque(part) | KEYS.of("text", where, part.extra)
        case ToolCallPart():
            call = {"type": "tool_use", "id": _id(part.id), "name": part.name, "input": part.arguments}
            return call | _opaque(part) | KEYS.of("tool call", where, part.extra)
        case ReasoningPart():
            extra = KEYS.of("reasoning", where, part.extra)
            block = _opaque(part)
            if block.get("type") == "thinking":
                return {"type": "thinking", "thinking": part.text} | block
            return (block | extra) or None
        case ImagePart() | AudioPart() | FilePart():
            raise refused_in_answer(where, part)


def _opaque(part: TextPart | ToolCallPart | ReasoningPart) -> SentBlock:
    said = part.provider_data or {}
    block = said.get("block")
    return block if said.get("api") == API_NAME and isinstance(block, dict) else {}


def _tool_result(where: str, message: Message) -> SentBlock:
    if not message.tool_call_id:
        raise request_failure(
            "a message with role tool needs the id of the call that it answers", f"{where}.tool_call_id"
        )
    blocks = [_user_block(at, part, "tool") for at, part in _sendable_parts(where, message)]
    return {"type": "tool_result", "tool_use_id": _id(message.tool_call_id), "content": _content(blocks) or ""}


def _user_block(where: str, part: Part, role: str) -> SentBlock:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text} | KEYS.of("text", where, part.extra)
        case ImagePart() | AudioPart() | FilePart():
            return media_block(where, part, KEYS)
        case ToolCallPart() | ReasoningPart():
            raise request_failure(f"a message with role {role} cannot hold {word_for(part)}", where)


def _id(call_id: str) -> str:
    """Return a call's id with only the letters that this API takes. Ids of other providers may have others."""
    return _NOT_IN_IDS.sub("_", call_id)
