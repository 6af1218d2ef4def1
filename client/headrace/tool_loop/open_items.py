"""Finds calls of OpenAI Responses that the program must answer and that are no function calls, such as approvals. Pure."""

from __future__ import annotations

from headrace.types import Message

_ANSWERS = {
    "apply_patch_call": "apply_patch_call_output",
    "computer_call": "computer_call_output",
    "local_shell_call": "local_shell_call_output",
    "mcp_approval_request": "mcp_approval_response",
    "shell_call": "shell_call_output",
}
"""The type of a call's item → the type of the item that answers it. The provider may have answered some itself."""


def has_open_items(message: Message) -> bool:
    """Tell whether a message of the assistant has such a call without its answer."""
    if isinstance(message.content, str):
        return False
    data = [getattr(part, "provider_data", None) or {} for part in message.content]
    items = [item for each in data if isinstance(item := each.get("item"), dict)]
    answered = {(item.get("type"), item.get("call_id")) for item in items}
    return any(
        item["type"] in _ANSWERS and (_ANSWERS[item["type"]], item.get("call_id")) not in answered
        for item in items
        if isinstance(item.get("type"), str)
    )
