"""Decodes the events of a Responses stream, and reads the words of its items. Pure.

The meaning of a response is the mapper's business (``stream.py``).
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from headrace.types import Usage
from headrace_workers.providers.shared import usage_counts
from headrace_workers.providers.shared.lenient_json import UNREADABLE, as_text, json_text

TEXT_DELTA = "response.output_text.delta"

Item = dict[str, Any]
"""An item of a response's output, as it arrived."""


class ResponseEvent(msgspec.Struct, gc=False):
    """The data of one event. Large fields that not every event has stay undecoded."""

    kind: Any = msgspec.field(default="", name="type")
    delta: Any = None
    output_index: Any = None
    item_id: Any = None
    arguments: Any = None
    item: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


decode = msgspec.json.Decoder(ResponseEvent).decode
"""Decodes one event. Raises one of UNREADABLE."""


def plain_text(data: bytes) -> str | None:
    """Return the text of an event that has the type of a text delta. Return None for any other."""
    try:
        event = decode(data)
    except UNREADABLE:
        return None
    delta = event.delta
    return delta if event.kind == TEXT_DELTA and delta and type(delta) is str else None


def event_of(loaded: Any) -> ResponseEvent:
    """Return a decoded JSON value as an event. Raises one of UNREADABLE."""
    if isinstance(loaded, dict):
        raw = {key: msgspec.Raw(json.dumps(loaded[key]).encode()) for key in ("item", "response") if key in loaded}
        loaded = loaded | raw
    return msgspec.convert(loaded, ResponseEvent)


def read_usage(said: dict[str, Any]) -> Usage:
    """Return the usage of a whole response."""
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
    """Return an item with its type. Some servers leave out the type of a message."""
    return item if item.get("type") or "content" not in item else item | {"type": "message"}


def text_of(item: Item) -> str:
    """Return the text in a message."""
    return _joined(item.get("content"), "output_text", "text") if item.get("type") == "message" else ""


def refusal_of(item: Item) -> str:
    """Return the refusal in a message."""
    return _joined(item.get("content"), "refusal", "refusal") if item.get("type") == "message" else ""


def reasoning_of(item: Item) -> str:
    """Return the words of a reasoning item: its summary, and the reasoning itself if the server sends it."""
    if item.get("type") != "reasoning":
        return ""
    return _joined(item.get("summary"), "summary_text", "text") + _joined(item.get("content"), "reasoning_text", "text")


def arguments_of(value: Any) -> str:
    """Return a call's arguments as text. Some servers send an object."""
    return json_text(value) if isinstance(value, dict | list) else as_text(value)


def _joined(content: Any, kind: str, field: str) -> str:
    if isinstance(content, str) and field == "text":
        return content
    if not isinstance(content, list):
        return ""
    kinds = (kind, "text", None) if kind == "output_text" else (kind,)
    parts = (part for part in content if isinstance(part, dict) and part.get("type") in kinds)
    return "".join(text for part in parts if isinstance(text := part.get(field), str))
