"""Reads the ``input`` of a Responses request as messages. Pure.

An item that the model made is kept whole in its part (``provider_data``), so that OpenAI gets it back unchanged; other
providers get its text and its calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from headrace.errors import InvalidRequestError

API_NAME = "openai-responses"
"""The value of ``api`` in ``provider_data`` of items of this API."""
_ANSWERS = {
    "function_call_output": "call_id",
    "custom_tool_call_output": "call_id",
    "apply_patch_call_output": "call_id",
    "computer_call_output": "call_id",
    "local_shell_call_output": "id",
    "shell_call_output": "call_id",
    "mcp_approval_response": "approval_request_id",
}
"""Items with which a program answers a call → the key of the call's id."""
_PLAIN_ANSWERS = frozenset({"function_call_output", "custom_tool_call_output"})
_NOT_SENT = frozenset({"type", "id", "status"})
"""Keys of an item of the input that say nothing to the model."""
_decode_arguments: Callable[[bytes | str], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode


def messages_of(given: Any) -> list[dict[str, Any]]:
    """Return the messages. Raises InvalidRequestError, which names the place."""
    if isinstance(given, str) and given:
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise InvalidRequestError("takes a text that is not empty, or a non-empty list of items", "body.input")
    messages: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] | None = None  # of the assistant's message that is being put together
    for index, item in enumerate(given):
        where = f"body.input[{index}]"
        if not isinstance(item, dict):
            raise InvalidRequestError("takes an object with a type, or with a role", where)
        kind = item.get("type", "message")
        made = _made_part(where, kind, item)
        if made is None:
            parts = None
            messages.append(_message(where, item) if kind == "message" else _answer(where, kind, item))
        elif parts is None or made.keys() & {"message"}:
            parts = _begin(messages, made)
        else:
            parts.append(made)
    return messages


def _begin(messages: list[dict[str, Any]], made: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Add a message of the assistant that begins with a part, or that is one text. Return its parts; None for a text."""
    if (text := made.get("message")) is not None:
        messages.append(text)
        return None
    parts = [made]
    messages.append({"role": "assistant", "content": parts})
    return parts


def _made_part(where: str, kind: Any, item: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the model made as a part of its message; ``{"message"}`` for a plain text. None: the program's own item."""
    match kind:
        case "message":
            return _own_message(where, item) if item.get("role") == "assistant" else None
        case "function_call" | "custom_tool_call":
            return _call(where, kind, item)
        case "reasoning":
            return {"type": "reasoning", "text": _summary(item), "provider_data": _kept(item)}
        case "item_reference":
            raise InvalidRequestError("names an item that OpenAI stored: give the item itself", where)
        case str() if kind not in _ANSWERS:
            return {"type": "reasoning", "provider_data": _kept(item)}
        case str():
            return None
        case _:
            raise InvalidRequestError("takes a str", f"{where}.type")


def _own_message(where: str, item: dict[str, Any]) -> dict[str, Any]:
    content = item.get("content")
    if not isinstance(content, list):
        rest = {key: value for key, value in item.items() if key not in _NOT_SENT}
        return {"message": rest}
    texts: list[str] = []
    for part in content:
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise InvalidRequestError("a message of the assistant takes texts and refusals", f"{where}.content")
        texts.append(text)
    return {"type": "text", "text": "".join(texts), "provider_data": _kept(item | {"type": "message"})}


def _call(where: str, kind: str, item: dict[str, Any]) -> dict[str, Any]:
    call_id = item.get("call_id", item.get("id"))
    if kind == "custom_tool_call":
        arguments: Any = {"input": item.get("input", "")}
    else:
        try:
            arguments = _decode_arguments(item.get("arguments") or "{}")
        except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError) as error:
            raise InvalidRequestError(f"is not a JSON object: {error}", f"{where}.arguments") from None
    return {
        "type": "tool_call",
        "id": call_id,
        "name": item.get("name"),
        "arguments": arguments,
        "provider_data": _kept(item),
    }


def _summary(item: dict[str, Any]) -> str:
    for key in ("summary", "content"):
        parts = item.get(key)
        texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        if found := "".join(text for text in texts if isinstance(text, str)):
            return found
    return ""


def _kept(item: dict[str, Any]) -> dict[str, Any]:
    return {"api": API_NAME, "item": item}


def _message(where: str, item: dict[str, Any]) -> dict[str, Any]:
    if "role" not in item:
        raise InvalidRequestError("takes an object with a type, or with a role", where)
    return {key: value for key, value in item.items() if key not in _NOT_SENT}


def _answer(where: str, kind: str, item: dict[str, Any]) -> dict[str, Any]:
    """Return the message of role ``tool`` for an answer to a call."""
    id_key = _ANSWERS[kind]
    call_id = item.get(id_key)
    if not isinstance(call_id, str) or not call_id:
        raise InvalidRequestError("needs the id of the call that it answers", f"{where}.{id_key}")
    message: dict[str, Any] = {"role": "tool", "tool_call_id": call_id, "content": ""}
    for key, value in item.items():
        if key in {id_key, "type", "id"} or value is None:
            continue
        if key == "output" and kind in _PLAIN_ANSWERS:
            message["content"] = value
        elif key != "status" or kind not in _PLAIN_ANSWERS:
            message[key] = value
    return message
