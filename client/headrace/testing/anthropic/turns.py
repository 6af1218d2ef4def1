"""Checks the conversation of a Messages request as Anthropic does, with its error texts. Pure.

The simulated provider keeps no state between requests. So the signature of a thinking block is a hash of its text, and
the id of a tool call after thinking has a hash of the signature. Changed or missing thinking is seen in the request
itself.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from headrace.testing.anthropic.block_fields import AnthropicRefusal as AnthropicRefusal  # noqa: PLC0414 - passed on
from headrace.testing.anthropic.block_fields import check_block_fields, check_source
from headrace.testing.shared.server_steps import has_broken_seal

Turn = tuple[str, list[dict[str, Any]]]

_ID = re.compile(r"[a-zA-Z0-9_-]+")
_THOUGHT_ID = re.compile(r"toolu_(?P<mark>th[0-9a-f]{10})[0-9a-f]{12}")
_THINKING = ("thinking", "redacted_thinking")
_SERVER_BLOCKS = """
    server_tool_use mcp_tool_use mcp_tool_result web_search_tool_result web_fetch_tool_result advisor_tool_result
    code_execution_tool_result bash_code_execution_tool_result text_editor_code_execution_tool_result
    tool_search_tool_result container_upload compaction fallback
"""
_SERVER_USES = ("server_tool_use", "mcp_tool_use")
_BLOCKS = {
    "user": ("text", "image", "document", "search_result", "tool_result", "container_upload"),
    "assistant": ("text", "tool_use", *_THINKING, *_SERVER_BLOCKS.split()),
}
# Type of a block → the fields that it must have, and the fields that it may have. The type itself is not listed.
_FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "text": ({"text"}, {"cache_control", "citations"}),
    "image": ({"source"}, {"cache_control", "transformations"}),
    "document": ({"source"}, {"cache_control", "citations", "context", "title"}),
    "tool_result": ({"tool_use_id"}, {"content", "is_error", "cache_control", "toolset_name"}),
    "tool_use": ({"id", "name", "input"}, {"cache_control", "caller", "toolset_name"}),
    "thinking": ({"thinking", "signature"}, set()),
    "redacted_thinking": ({"data"}, set()),
}


def signature_of(thinking: str) -> str:
    """Return the signature of a thinking block."""
    return base64.b64encode(hashlib.sha256(thinking.encode()).digest()).decode()


def thought_mark(signature: str) -> str:
    """Return the beginning of the ids of tool calls that follow thinking with this signature."""
    return "th" + hashlib.sha256(signature.encode()).hexdigest()[:10]


def turns_of(messages: list[dict[str, Any]]) -> list[Turn]:
    """Return a checked conversation as turns of blocks. Several messages of one side in a row are one turn."""
    turns: list[Turn] = []
    for message in messages:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if turns and turns[-1][0] == message["role"]:
            turns[-1][1].extend(blocks)
        else:
            turns.append((message["role"], list(blocks)))
    return turns


def check_messages(messages: list[Any], *, thinks: bool, may_prefill: bool) -> None:
    """Raise AnthropicRefusal for a conversation that the API would refuse."""
    if not messages:
        raise AnthropicRefusal("messages: at least one message is required")
    for index, message in enumerate(messages):
        _check_message(f"messages.{index}", message)
    if messages[0]["role"] != "user":
        raise AnthropicRefusal('messages: first message must use the "user" role')
    turns = turns_of(messages)
    _check_answers(turns)
    _check_server_tools(turns)
    for index, (role, blocks) in enumerate(turns):
        if role == "assistant":
            _check_thinking(f"messages.{index}", blocks)
    if thinks:
        _check_thinking_is_there(turns)
    _check_end(turns[-1], may_prefill=may_prefill)


def _check_message(where: str, message: Any) -> None:
    check_block_fields(where, message, {"role", "content"}, set())
    role, content = message["role"], message["content"]
    if role not in _BLOCKS:
        raise AnthropicRefusal(
            f'{where}.role: Unexpected role "{role}". The Messages API accepts "user" and "assistant" here.'
        )
    if not isinstance(content, str | list):
        raise AnthropicRefusal(f"{where}.content: Input should be a valid string or list")
    if not content:
        raise AnthropicRefusal(f"{where}: all messages must have non-empty content")
    if isinstance(content, str):
        _check_text(where, content)
        return
    for index, block in enumerate(content):
        _check_block(f"{where}.content.{index}", block, _BLOCKS[role])


def _check_block(where: str, block: Any, kinds: tuple[str, ...]) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in kinds:
        expected = ", ".join(f"'{kind}'" for kind in kinds)
        raise AnthropicRefusal(
            f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags: {expected}"
        )
    if kind not in _FIELDS:
        return
    must, may = _FIELDS[kind]
    check_block_fields(f"{where}.{kind}", block, must | {"type"}, may)
    match kind:
        case "text":
            _check_text(where, block["text"])
        case "image" | "document":
            check_source(f"{where}.{kind}.source", block["source"], kind)
        case "tool_use":
            _check_id(f"{where}.tool_use.id", block["id"])
            if not isinstance(block["input"], dict):
                raise AnthropicRefusal(f"{where}.tool_use.input: Input should be a valid dictionary")
        case "tool_result":
            _check_id(f"{where}.tool_result.tool_use_id", block["tool_use_id"])
            _check_result(f"{where}.tool_result.content", block.get("content", ""))


def _check_text(where: str, text: Any) -> None:
    if not isinstance(text, str):
        raise AnthropicRefusal(f"{where}.text.text: Input should be a valid string")
    if not text.strip():
        raise AnthropicRefusal("messages: text content blocks must contain non-whitespace text")


def _check_id(where: str, call_id: Any) -> None:
    if not isinstance(call_id, str) or not _ID.fullmatch(call_id):
        raise AnthropicRefusal(f"{where}: String should match pattern '^[a-zA-Z0-9_-]+$'")


def _check_result(where: str, content: Any) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise AnthropicRefusal(f"{where}: Input should be a valid string or list")
    for index, block in enumerate(content):
        _check_block(f"{where}.{index}", block, ("text", "image", "document", "search_result", "tool_reference"))


def _check_answers(turns: list[Turn]) -> None:
    """Check that the next turn begins with the results of all calls, and of no other calls."""
    asked: list[str] = []
    for index, (role, blocks) in enumerate(turns):
        leading = _leading_results(blocks)
        for at, block in enumerate(blocks):
            if block["type"] == "tool_result" and block["tool_use_id"] not in asked:
                raise AnthropicRefusal(
                    f"messages.{index}.content.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {block['tool_use_id']}. "
                    "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                )
        _check_answered_once(index, leading)
        _check_all_answered(index - 1, [call_id for call_id in asked if call_id not in leading])
        asked = [block["id"] for block in blocks if block["type"] == "tool_use"] if role == "assistant" else []
        if len(set(asked)) < len(asked):
            raise AnthropicRefusal(f"messages.{index}: `tool_use` ids must be unique")
    _check_all_answered(len(turns) - 1, asked)


def _check_server_tools(turns: list[Turn]) -> None:
    """Check that blocks of server tools are unchanged, and that only results follow a pending server tool."""
    open_uses: set[str] = set()
    for index, (role, blocks) in enumerate(turns):
        if role == "user" and open_uses and any(block["type"] != "tool_result" for block in blocks):
            raise AnthropicRefusal(
                f"messages.{index}: a turn with pending `server_tool_use` blocks is answered with `tool_result` blocks only"
            )
        for at, block in enumerate(blocks):
            where = f"messages.{index}.content.{at}"
            if has_broken_seal(block):
                raise AnthropicRefusal(f"{where}: Invalid `encrypted_content` in `web_search_result` block")
            if block["type"] in _SERVER_USES:
                open_uses.add(block["id"])
            elif block["type"].endswith("_tool_result"):
                if block["tool_use_id"] not in open_uses:
                    raise AnthropicRefusal(
                        f"{where}: `{block['type']}` without its `server_tool_use`: {block['tool_use_id']}"
                    )
                open_uses.remove(block["tool_use_id"])


def _leading_results(blocks: list[dict[str, Any]]) -> list[str]:
    ids = []
    for block in blocks:
        if block["type"] != "tool_result":
            break
        ids.append(block["tool_use_id"])
    return ids


def _check_answered_once(index: int, answered: list[str]) -> None:
    for at, call_id in enumerate(answered):
        if call_id in answered[:at]:
            raise AnthropicRefusal(
                f"messages.{index}.content.{at}: each tool_use must have a single result. "
                f"Found multiple `tool_result` blocks with id: {call_id}"
            )


def _check_all_answered(index: int, unanswered: list[str]) -> None:
    if unanswered:
        raise AnthropicRefusal(
            f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(unanswered)}. "
            "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
        )


def _check_thinking(where: str, blocks: list[dict[str, Any]]) -> None:
    for index, block in enumerate(blocks):
        if block["type"] == "thinking" and block["signature"] != signature_of(str(block["thinking"])):
            raise AnthropicRefusal(f"{where}.content.{index}: Invalid `signature` in `thinking` block")
    if blocks[-1]["type"] in _THINKING:
        raise AnthropicRefusal(f"{where}: The final block in an assistant message cannot be `{blocks[-1]['type']}`.")


def _check_thinking_is_there(turns: list[Turn]) -> None:
    """Check that the last assistant turn still has the thinking that its calls followed."""
    index, blocks = next(
        ((at, blocks) for at, (role, blocks) in reversed(list(enumerate(turns))) if role == "assistant"), (0, [])
    )
    marks: set[str] = set()
    for at, block in enumerate(blocks):
        if block["type"] == "thinking":
            marks.add(thought_mark(block["signature"]))
            continue
        thought = _THOUGHT_ID.fullmatch(block["id"]) if block["type"] == "tool_use" else None
        if thought and thought["mark"] not in marks:
            raise AnthropicRefusal(
                f"messages.{index}.content.{at}.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. "
                "When `thinking` is enabled, thinking blocks must be passed back with the tool calls that follow them."
            )


def _check_end(turn: Turn, *, may_prefill: bool) -> None:
    role, blocks = turn
    if role != "assistant" or blocks[-1]["type"] != "text":
        return
    if not may_prefill:
        raise AnthropicRefusal(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    if blocks[-1]["text"] != blocks[-1]["text"].rstrip():
        raise AnthropicRefusal("messages: final assistant content cannot end with trailing whitespace")
