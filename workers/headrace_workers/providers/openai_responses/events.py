"""What is read of a Responses stream and of its items: typed events, and the words in an item.

Never judges what a response means; that is the mapper's.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from headrace.types import Usage
from headrace_workers.providers.shared import usage_counts
from headrace_workers.providers.shared.lenient_json import as_text, json_text

Item = dict[str, Any]
"""An item of a response's output, as it came."""


class ResponseEvent(msgspec.Struct, gc=False):
    """The data of one event. What is large, and not of every kind of event, stays undecoded."""

    kind: Any = msgspec.field(default="", name="type")
    delta: Any = None
    output_index: Any = None
    item_id: Any = None
    arguments: Any = None
    item: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


decode = msgspec.json.Decoder(ResponseEvent).decode
"""Decodes an event; raises one of UNREADABLE."""


def event_of(loaded: Any) -> ResponseEvent:
    """Return the event that a value of JSON is; raises one of UNREADABLE."""
    if isinstance(loaded, dict):
        raw = {key: msgspec.Raw(json.dumps(loaded[key]).encode()) for key in ("item", "response") if key in loaded}
        loaded = loaded | raw
    return msgspec.convert(loaded, ResponseEvent)


def read_usage(said: dict[str, Any]) -> Usage:
    """Return the usage that a whole response says."""
    chat = said | {
        "prompt_tokens": said.get("input_tokens"),
        "completion_tokens": said.get("output_tokens"),
        "total_tokens": said.get("total_tokens"),
        "prompt_tokens_details": said.get("input_tokens_details"),
        "completion_tokens_details": said.get("output_tokens_details"),
    }
    return usage_counts.read_usage(chat, is_final=True)


def items_of(value: Any) -> list[Item]:
    """Return the items in a response's ``output``."""
    return [typed(item) for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def typed(item: Item) -> Item:
    """Return an item with its type; some servers leave out that of a message."""
    return item if item.get("type") or "content" not in item else item | {"type": "message"}


def text_of(item: Item) -> str:
    """Return the text in a message."""
    return _joined(item.get("content"), "output_text", "text") if item.get("type") == "message" else ""


def refusal_of(item: Item) -> str:
    """Return the refusal in a message."""
    return _joined(item.get("content"), "refusal", "refusal") if item.get("type") == "message" else ""


def reasoning_of(item: Item) -> str:
    """Return the words of a reasoning item: its summary, and the reasoning itself where the server tells it."""
    if item.get("type") != "reasoning":
        return ""
    return _joined(item.get("summary"), "summary_text", "text") + _joined(item.get("content"), "reasoning_text", "text")


def arguments_of(value: Any) -> str:
    """Return a call's arguments as text; some servers send the object itself."""
    return json_text(value) if isinstance(value, dict | list) else as_text(value)


def _joined(content: Any, kind: str, field: str) -> str:
    if isinstance(content, str) and field == "text":
        return content
    if not isinstance(content, list):
        return ""
    kinds = (kind, "text", None) if kind == "output_text" else (kind,)
    parts = (part for part in content if isinstance(part, dict) and part.get("type") in kinds)
    return "".join(text for part in parts if isinstance(text := part.get(field), str))
