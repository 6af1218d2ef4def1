"""Checks the conversation of a Responses request: the fields of each item, and the items that must follow each other.

Pure. The real API stores nothing of a request with ``store=false``, and the simulation stores nothing either. Hashes in
the ids and in ``encrypted_content`` show the words of an item, and the reasoning before it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from headrace.testing.shared.request_rules import (
    OpenAIRefusal,
    check_choice,
    check_function_name,
    check_object,
    check_type,
)
from headrace.testing.shared.server_steps import ITEM_PREFIXES, is_sealed_item
from headrace.testing.shared.simulated_media import inline_type

_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_NO_REASONING = "0" * 24
_MARKED_ID = re.compile(r"(?:msg|fc)_([0-9a-f]{24})[0-9a-f]{24}")
_MARKED_CALL_ID = re.compile(r"call_([0-9a-f]{12})r[0-9a-f]{11}")

_FIELDS: dict[str, set[str]] = {
    "message": {"type", "id", "role", "content", "status", "phase"},
    "reasoning": {"type", "id", "summary", "content", "encrypted_content", "status"},
    "function_call": {"type", "id", "call_id", "name", "arguments", "status", "namespace"},
    "function_call_output": {"type", "id", "call_id", "output", "status"},
}
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
_PARTS: dict[str, dict[str, set[str]]] = {
    "assistant": {"output_text": {"text", "annotations", "logprobs"}, "refusal": {"refusal"}},
    "user": {
        "input_text": {"text"},
        "input_image": {"image_url", "file_id", "detail"},
        "input_file": {"file_data", "file_id", "file_url", "filename", "detail"},
    },
}


def encrypted(reasoning: str) -> str:
    """Return the ``encrypted_content`` for this reasoning: a hash, so that a change is noticed."""
    return base64.b64encode(hashlib.sha256(reasoning.encode()).digest()).decode()


def reasoning_mark(reasoning: str) -> str:
    """Return the beginning of the ids of items that follow this reasoning."""
    return _digest(encrypted(reasoning))[:24] if reasoning else _NO_REASONING


def reasoning_id(reasoning: str) -> str:
    """Return the id of a reasoning item."""
    return f"rs_{reasoning_mark(reasoning)}{_digest(reasoning)[:24]}"


def item_id(prefix: str, reasoning: str, seed: str) -> str:
    """Return the id of an item that follows this reasoning. Different seeds give different ids."""
    return f"{prefix}_{reasoning_mark(reasoning)}{_digest(seed)[:24]}"


def call_id(reasoning: str, seed: str) -> str:
    """Return the id by which a call is answered."""
    return f"call_{reasoning_mark(reasoning)[:12]}r{_digest(seed)[:11]}"  # the "r" tells it from other formats' ids


def kind_of(item: Mapping[str, Any]) -> object:
    """Return an item's type. A message may lack it."""
    return item.get("type", "message" if "role" in item else None)


def check_input(value: object) -> None:
    """Raise OpenAIRefusal if the API would refuse this conversation."""
    if not isinstance(value, list):
        return
    calls = _Calls()
    marks: set[str] = set()
    for index, item in enumerate(value):
        where = f"input[{index}]"
        kind = _check_item(where, item)
        if kind == "reasoning":
            marks.add(_check_reasoning(where, item, value[index + 1 :]))
        _check_reasoning_stands_before(item, str(kind), marks)
        calls.take(item, str(kind))
    calls.check_all_answered()


class _Calls:
    """The calls of a conversation, and the calls that have no output yet."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._unanswered: list[str] = []

    def take(self, item: dict[str, Any], kind: str) -> None:
        if kind == "function_call":
            self._known.add(item["call_id"])
            self._unanswered.append(item["call_id"])
        elif kind == "function_call_output":
            if item["call_id"] not in self._known:
                message = f"No tool call found for function call output with call_id {item['call_id']}."
                raise OpenAIRefusal(message, "input")
            self._unanswered = [call_id for call_id in self._unanswered if call_id != item["call_id"]]

    def check_all_answered(self) -> None:
        if self._unanswered:
            raise OpenAIRefusal(f"No tool output found for function call {self._unanswered[0]}.", "input")


def _check_item(where: str, item: object) -> object:
    check_type(where, item, "object", dict)
    assert isinstance(item, dict)  # noqa: S101 - just checked
    kind = kind_of(item)
    if kind in ITEM_PREFIXES:
        if not is_sealed_item(item):
            raise OpenAIRefusal(f"Item with id '{item.get('id')}' not found.", "input", status=404)
        return kind
    check_choice(f"{where}.type", kind if isinstance(kind, str) else repr(kind), tuple(_FIELDS))
    check_object(where, item, known=_FIELDS[str(kind)], required=None)
    prefix = _PREFIXES.get(str(kind))
    if item.get("id") is not None and prefix is not None and not str(item["id"]).startswith(prefix):
        message = f"Invalid '{where}.id': '{item['id']}'. Expected an ID that begins with '{prefix}'."
        raise OpenAIRefusal(message, f"{where}.id", "invalid_value")
    match kind:
        case "message":
            _check_message(where, item)
        case "function_call":
            check_function_name(f"{where}.name", item.get("name"))
            check_type(f"{where}.call_id", item.get("call_id"), "string", str)
            check_type(f"{where}.arguments", item.get("arguments"), "string", str)
        case "function_call_output":
            check_type(f"{where}.call_id", item.get("call_id"), "string", str)
            _check_content(f"{where}.output", item.get("output"), "user")
    return kind


def _check_message(where: str, message: dict[str, Any]) -> None:
    role = message.get("role")
    roles = ("assistant", "system", "developer", "user")
    check_choice(f"{where}.role", role if isinstance(role, str) else repr(role), roles)
    _check_content(f"{where}.content", message.get("content"), "assistant" if role == "assistant" else "user")


def _check_content(where: str, content: object, role: str) -> None:
    check_type(where, content, "one of a string or array of objects", (str, list))
    for index, part in enumerate(content if isinstance(content, list) else []):
        at = f"{where}[{index}]"
        own = _PARTS[role]
        check_type(at, part, "object", dict)
        kind = part.get("type")
        check_choice(f"{at}.type", kind if isinstance(kind, str) else repr(kind), tuple(own))
        check_object(at, part, known={"type", *own[kind]}, required=None)
        for name in ("text", "refusal"):
            if name in own[kind]:
                check_type(f"{at}.{name}", part.get(name), "string", str)
        _check_media(at, part)


def _check_media(where: str, part: dict[str, Any]) -> None:
    """Raise OpenAIRefusal for an image or a file that the API does not take."""
    if part["type"] == "input_image":
        url = part.get("image_url")
        if (url is None) == (part.get("file_id") is None):
            message = f"Missing required parameter: '{where}.image_url'."
            raise OpenAIRefusal(message, f"{where}.image_url", "missing_required_parameter")
        if isinstance(url, str) and url.startswith("data:") and inline_type(url) not in _IMAGES:
            message = f"Invalid '{where}.image_url'. The image data you provided does not represent a valid image. Please check your input and try again with one of the supported image formats: ['image/jpeg', 'image/png', 'image/gif', 'image/webp']."
            raise OpenAIRefusal(message, f"{where}.image_url", "invalid_value")
    if part["type"] == "input_file":
        given = [name for name in ("file_data", "file_id", "file_url") if part.get(name) is not None]
        if len(given) != 1:
            message = f"Invalid input file: '{where}'. Exactly one of file_data, file_id and file_url is required."
            raise OpenAIRefusal(message, where, "invalid_value")
        if given == ["file_data"]:
            _check_file_data(where, part)


def _check_file_data(where: str, part: dict[str, Any]) -> None:
    if not part.get("filename"):
        message = f"Missing required parameter: '{where}.filename'."
        raise OpenAIRefusal(message, f"{where}.filename", "missing_required_parameter")
    if inline_type(str(part["file_data"])) is None:
        message = f"Invalid '{where}.file_data'. Expected a base64-encoded data URL."
        raise OpenAIRefusal(message, f"{where}.file_data", "invalid_value")


def _check_reasoning(where: str, item: dict[str, Any], following: list[Any]) -> str:
    """Check that a reasoning item is unchanged and that an item follows it.

    Return the mark in the ids of its followers.
    """
    for name in ("id", "summary"):
        if item.get(name) is None:
            raise OpenAIRefusal(
                f"Missing required parameter: '{where}.{name}'.", f"{where}.{name}", "missing_required_parameter"
            )
    check_type(f"{where}.summary", item["summary"], "array of objects", list)
    if item.get("encrypted_content") is None:
        message = f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to false. Try again with `store` set to true, or remove this item from your input."
        raise OpenAIRefusal(message, "input", status=404)
    words = "".join(str(part.get("text", "")) for part in item["summary"] if isinstance(part, dict))
    if item["encrypted_content"] != encrypted(words) or item["id"] != reasoning_id(words):
        message = f"The encrypted content for item {item['id']} could not be verified. Reason: Encrypted content could not be decrypted or parsed."
        raise OpenAIRefusal(message, "input", "invalid_encrypted_content")
    successor = next((other for other in following if isinstance(other, dict)), {})
    if (
        kind_of(successor) not in ("reasoning", "function_call", *ITEM_PREFIXES)
        and successor.get("role") != "assistant"
    ):
        message = f"Item '{item['id']}' of type 'reasoning' was provided without its required following item."
        raise OpenAIRefusal(message, "input")
    return reasoning_mark(words)


def _check_reasoning_stands_before(item: dict[str, Any], kind: str, marks: set[str]) -> None:
    """Raise OpenAIRefusal if the reasoning before an item is missing."""
    marked = _MARKED_ID.fullmatch(str(item.get("id")))
    if marked is None and kind == "function_call":
        marked = _MARKED_CALL_ID.fullmatch(item["call_id"])
    if marked is None or _NO_REASONING.startswith(marked[1]):
        return
    if not any(mark.startswith(marked[1]) for mark in marks):
        message = f"Item '{item.get('id') or item['call_id']}' of type '{kind}' was provided without its required 'reasoning' item: 'rs_{marked[1]}…'."
        raise OpenAIRefusal(message, "input")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
