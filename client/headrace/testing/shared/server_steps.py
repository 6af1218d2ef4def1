"""Seals the steps of simulated server tools, and checks the seals of steps that come back. Pure.

The simulated provider keeps no state between requests. So each step has a seal: a hash of its content. A request with a
changed step, or with a step without its seal, is refused, as the real APIs refuse it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

Step = dict[str, Any]

ITEM_PREFIXES = {
    "code_interpreter_call": "ci",
    "computer_call": "cu",
    "file_search_call": "fs",
    "image_generation_call": "ig",
    "mcp_approval_request": "mcpr",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    "shell_call": "sh",
    "web_search_call": "ws",
}
"""Type of an OpenAI item → the beginning of its id."""


def sealed_item(step: Step) -> Step:
    """Return an item of OpenAI Responses with its seal as its id."""
    return {"id": _item_id(step)} | step


def is_sealed_item(item: Step) -> bool:
    """Return whether an item is unchanged."""
    return item.get("id") == _item_id(item)


def sealed_block(step: Step) -> Step:
    """Return an Anthropic block with a seal (``encrypted_content``) in each of its search results."""
    if not isinstance(step.get("content"), list):
        return step
    return step | {"content": [_sealed_result(result) for result in step["content"]]}


def has_broken_seal(block: Step) -> bool:
    """Return whether a search result in the block was changed, or lacks its ``encrypted_content``."""
    content = block.get("content")
    return isinstance(content, list) and any(_sealed_result(result) != result for result in content)


def _sealed_result(result: Any) -> Any:
    if not isinstance(result, dict) or result.get("type") != "web_search_result":
        return result
    return result | {"encrypted_content": _seal({key: result[key] for key in result.keys() - {"encrypted_content"}})}


def _item_id(item: Step) -> str:
    content = {key: item[key] for key in item.keys() - {"id"}}
    return f"{ITEM_PREFIXES.get(str(item.get('type')), 'item')}_{_seal(content)}"


def _seal(content: Step) -> str:
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:48]
