"""Makes the assistant's message from the items of a response; the next request can send each item back unchanged. Pure.

``provider_data`` of a part is ``{"api": "openai-responses", "item": {…}}``. Items that are neither text nor a call (reasoning,
and items of server tools) become reasoning parts: the API refuses a call or a reasoning item without its neighbours.
"""

from __future__ import annotations

from typing import Any

from headrace.answers.tool_arguments import read_arguments
from headrace.media.media_types import type_of_base64
from headrace.types import FilePart, ImagePart, Message, Part, ReasoningPart, TextPart, ToolCallPart
from headrace_workers.providers.openai_responses.events import (
    Item,
    arguments_of,
    reasoning_of,
    refusal_of,
    text_of,
)
from headrace_workers.providers.shared.answer_limits import weigh_arguments
from headrace_workers.providers.shared.growing_call import arguments_or_none
from headrace_workers.providers.shared.lenient_json import as_text

API_NAME = "openai-responses"
"""The value of ``api`` in ``provider_data`` that this format has made."""

_PLAIN_CALL = {"type", "id", "call_id", "name", "arguments", "status"}


def is_plain(items: list[Item]) -> bool:
    """Whether the items are only text and calls: at most one message, and after it only calls, without opaque data."""
    for place, item in enumerate(items):
        kind = item.get("type")
        if kind == "message":
            if place or item.get("phase") or refusal_of(item) or _is_annotated(item):
                return False
        elif kind != "function_call" or any(item[key] for key in item.keys() - _PLAIN_CALL):
            return False
    return True


def _is_annotated(item: Item) -> bool:
    """Whether a message has citations."""
    content = item.get("content")
    return (
        any(isinstance(part, dict) and part.get("annotations") for part in content or ())
        if isinstance(content, list)
        else False
    )


def message_of(items: list[Item], *, is_cut: bool = False) -> Message:
    """Return the message. A call with unreadable arguments, because the output was cut, is left out.

    If the output was cut, the last reasoning has no successor, and the API would refuse its item: only its words are
    kept.
    """
    plain = is_plain(items)
    weigh_arguments([arguments_of(item.get("arguments")) for item in items if item.get("type") == "function_call"])
    parts: list[Part] = []
    for item in items:
        if (part := _part(item, is_plain=plain)) is not None:
            parts.append(part)
        if not plain:
            parts += _made_files(item)
    if is_cut:
        _strip_last_reasoning(parts)
    if plain and all(isinstance(part, TextPart) for part in parts):
        return Message("assistant", "".join(part.text for part in parts if isinstance(part, TextPart)))
    return Message("assistant", parts)


def _strip_last_reasoning(parts: list[Part]) -> None:
    for place in range(len(parts) - 1, -1, -1):
        part = parts[place]
        item = (part.provider_data or {}).get("item", {}) if isinstance(part, ReasoningPart) else {}
        if item.get("type") != "reasoning":
            return
        parts[place] = ReasoningPart(reasoning_of(item))


def custom_calls_of_caller(items: list[Item]) -> list[Item]:
    """Return the calls of custom tools that the caller must answer.

    xAI lists calls that it answers itself in the same way. If a message or reasoning follows a call, xAI has answered
    it.
    """
    calls: list[Item] = []
    for item in items:
        if item.get("type") == "custom_tool_call":
            calls.append(item)
        elif item.get("type") in ("message", "reasoning"):
            calls.clear()
    return calls


def arguments_in(item: Item) -> dict[str, Any] | None:
    """Return the arguments of a call as a dict; None if they cannot be read."""
    if item.get("type") == "custom_tool_call":
        return {"input": as_text(item.get("input"))}
    return read_arguments(arguments_or_none(arguments_of(item.get("arguments")), is_cut=False))


def image_item(part: ImagePart, own: Item) -> Item:
    """Return the item of an image that the model made, with the image in it."""
    return own | {"result": part.data} if part.data else own


def _image_part(item: Item) -> ImagePart | None:
    """Return the image in an ``image_generation_call``; None if it holds none.

    The image itself is not kept twice: :func:`image_item` puts it back into the item.
    """
    data = as_text(item.get("result"))
    if not data:
        return None
    word = as_text(item.get("output_format")) or "png"
    kind = type_of_base64(data) or ("image/svg+xml" if word == "svg" else f"image/{word}")
    rest = {key: value for key, value in item.items() if key != "result"}
    return ImagePart(data=data, media_type=kind, provider_data={"api": API_NAME, "item": rest})


def _made_files(item: Item) -> list[FilePart]:
    """Return the files that code of the model wrote, as the text cites them. The Containers API has their content."""
    content = item.get("content") if item.get("type") == "message" else None
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    found: dict[str, FilePart] = {}
    for part in parts:
        annotations = part.get("annotations")
        for said in annotations if isinstance(annotations, list) else ():
            if isinstance(said, dict) and said.get("type") == "container_file_citation":
                own_id, name = as_text(said.get("file_id")), as_text(said.get("filename")) or None
                own = {"api": API_NAME, "container_id": as_text(said.get("container_id"))}
                found.setdefault(own_id, FilePart(name, file_id=own_id, provider_data=own))
    return [file for own_id, file in found.items() if own_id]


def _part(item: Item, *, is_plain: bool) -> Part | None:
    opaque = None if is_plain else {"api": API_NAME, "item": item}
    match item.get("type"):
        case "message":
            text = text_of(item)
            return TextPart(text, opaque) if text or opaque else None
        case "function_call" | "custom_tool_call":
            return _call_part(item, opaque)
        case "image_generation_call" if (image := _image_part(item)) is not None:
            return image
        case _:
            return ReasoningPart(reasoning_of(item), opaque)


def _call_part(item: Item, opaque: dict[str, Any] | None) -> ToolCallPart | None:
    arguments = arguments_in(item)
    call_id = as_text(item.get("call_id")) or as_text(item.get("id"))
    if arguments is None or not call_id:
        return None
    return ToolCallPart(call_id, as_text(item.get("name")), arguments, opaque)
