"""Makes the items that answer calls in a Responses conversation: each kind of call has its own kind of answer. Pure.

The caller answers every call with a message of role ``tool``. Fields beside text stand on the message, with OpenAI's
names: ``{"role": "tool", "tool_call_id": "mcpr_1", "content": "", "approve": True}``.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from headrace.types import ImagePart, Message
from headrace_workers.providers.openai_responses.events import Item
from headrace_workers.providers.openai_responses.input_content import image_address


class ResultForm(msgspec.Struct, frozen=True):
    """The form of the item that answers one kind of call.

    ``id_key`` is the key of the call's id, ``keys`` are further keys.
    """

    kind: str
    id_key: str = "call_id"
    keys: Collection[str] = ()


FORMS = {
    "function_call": ResultForm("function_call_output"),
    "custom_tool_call": ResultForm("custom_tool_call_output"),
    "apply_patch_call": ResultForm("apply_patch_call_output", keys=("caller", "status")),
    "computer_call": ResultForm("computer_call_output", keys=("acknowledged_safety_checks", "output", "status")),
    "local_shell_call": ResultForm("local_shell_call_output", "id", ("status",)),
    "mcp_approval_request": ResultForm("mcp_approval_response", "approval_request_id", ("approve", "reason")),
    "shell_call": ResultForm("shell_call_output", keys=("caller", "max_output_length", "output", "status")),
}
"""Type of the call's item → the form of its answer."""

_PLAIN = ("function_call_output", "custom_tool_call_output")


def call_ids(item: Item) -> list[str]:
    """Return the ids under which a caller may answer an item of the model."""
    return [str(item[key]) for key in ("call_id", "id") if item.get(key)]


def result_item(form: ResultForm, message: Message, content: str | list[dict[str, Any]], extra: dict[str, Any]) -> Item:
    """Return the item that answers a call, with the message's text as its output."""
    item: Item = {"type": form.kind, form.id_key: message.tool_call_id}
    if form.kind in _PLAIN:
        return item | {"output": content} | extra
    parts = message.content if isinstance(message.content, list) else []
    if form.kind == "computer_call_output" and len(parts) == 1 and isinstance(parts[0], ImagePart):
        own = {key: value for key, value in (parts[0].extra or {}).items() if value is not None}
        item["output"] = {
            "type": "computer_screenshot",
            "image_url": image_address("", parts[0], is_openai=False),
        } | own
    elif content:
        item["output"] = content
    return item | extra
