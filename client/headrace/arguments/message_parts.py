"""Reads the parts of a message: text, tool calls, reasoning, in the forms of each provider. Pure.

Images, audio and files are read by ``media_parts.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import msgspec

from headrace.arguments import checks, media_parts
from headrace.arguments.mapping_keys import KnownKeys, further_keys, joined
from headrace.arguments.original_paths import OriginalPaths
from headrace.arguments.plain_values import named, plain_dict, plain_text, shown
from headrace.errors import InvalidRequestError
from headrace.types import Part, ReasoningPart, TextPart, ToolCall, ToolCallPart

_TEXT_FIELDS = frozenset({"type", *TextPart.__struct_fields__})
_CALL_FIELDS = frozenset({"type", *ToolCallPart.__struct_fields__})

_IMAGE_PLACES = ("url", "data", "media_type", "file_id")

_TEXT = KnownKeys(_TEXT_FIELDS, slips={"content": "text", "value": "text"}, fields=_TEXT_FIELDS)
_CALL = KnownKeys(
    _CALL_FIELDS,
    fields=_CALL_FIELDS,
    slips={"input": "arguments", "parameters": "arguments", "params": "arguments", "call_id": "id"},
)
_NESTED_CALL = KnownKeys(frozenset({"type", "id", "function", "extra"}), slips={"call_id": "id"}, fields=_CALL_FIELDS)
_NESTED_FUNCTION = KnownKeys(
    frozenset({"name", "arguments"}),
    slips={"input": "arguments", "parameters": "arguments", "params": "arguments"},
    fields=_CALL_FIELDS,
)


def read_part(argument: str, part: object, original_paths: OriginalPaths) -> Part:
    """Return the part, each key that is not Headrace's own in its ``extra``; raises InvalidRequestError.

    Adds to ``original_paths`` each path that differs in the request.
    """
    given: object = part
    if isinstance(part, Part):
        given = {"type": type(part).__struct_config__.tag, **msgspec.structs.asdict(part)}
    if isinstance(part, str):
        return TextPart(plain_text(argument, part))
    if isinstance(part, PurePath | bytes | bytearray | memoryview):
        advice = "give ImagePart.from_file, AudioPart.from_file or FilePart.from_file"
        raise InvalidRequestError(f"takes a part, not {type(part).__name__}: {advice}", argument)
    if not isinstance(given, Mapping):
        raise InvalidRequestError(
            f"takes a part such as {{'type': 'text', 'text': 'Hello'}}, not {named(part)}", argument
        )
    kind = given.get("type")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if kind is None:
        reader = media_parts.google_part if media_parts.is_googles(given) else _text_part if "text" in given else None
    if reader is None:
        raise InvalidRequestError(f"is no part ({', '.join(_READERS)}): its type is {shown(kind)}", argument)
    if isinstance(kind, str):
        original_paths |= {f"{argument}.{name}": f"{argument}.{gave}" for name, gave in _paths(kind, given).items()}
    return reader(argument, given)


def read_tool_call(argument: str, call: object) -> ToolCallPart:
    """Read an item of ``tool_calls``: OpenAI's form, or a call of a result."""
    if isinstance(call, ToolCall | ToolCallPart):
        call = msgspec.structs.asdict(call)
    if not isinstance(call, Mapping):
        raise InvalidRequestError(f"takes a dict with id and function, not {named(call)}", argument)
    if "name" in call and "function" not in call:
        return _tool_call_part(argument, call)
    return _nested_tool_call(argument, call)


def _nested_tool_call(argument: str, call: Mapping[str, Any]) -> ToolCallPart:
    """Read OpenAI's form: ``{"id", "type": "function", "function": {"name", "arguments": "<JSON>"}}``."""
    function = call.get("function")
    if not isinstance(function, Mapping):
        raise InvalidRequestError("takes id and function with name and arguments", argument)
    if (kind := call.get("type")) not in {None, "function"}:
        raise InvalidRequestError(f"takes 'function', not {shown(kind)}", f"{argument}.type")
    inside = f"{argument}.function"
    within = further_keys(inside, function, _NESTED_FUNCTION)
    return ToolCallPart(
        id=_needed_text(argument, call, "id"),
        name=_name(inside, function),
        arguments=_json_arguments(f"{inside}.arguments", function.get("arguments")),
        extra=joined(argument, further_keys(argument, call, _NESTED_CALL), within and {"function": within}),
    )


def _text_part(argument: str, given: Mapping[str, Any]) -> TextPart:
    text = _needed_text(argument, given, "text")
    return TextPart(text, _provider_data(argument, given), further_keys(argument, given, _TEXT))


def _reasoning_part(argument: str, given: Mapping[str, Any]) -> ReasoningPart:
    text = checks.text(f"{argument}.text", given.get("text")) or ""
    return ReasoningPart(text, _provider_data(argument, given), further_keys(argument, given, _TEXT))


def _tool_call_part(argument: str, given: Mapping[str, Any]) -> ToolCallPart:
    arguments = given.get("arguments")
    return ToolCallPart(
        id=_needed_text(argument, given, "id"),
        name=_name(argument, given),
        arguments={} if arguments is None else plain_dict(f"{argument}.arguments", arguments),
        provider_data=_provider_data(argument, given),
        extra=further_keys(argument, given, _CALL),
    )


def _needed_text(argument: str, given: Mapping[str, Any], key: str) -> str:
    if key not in given:
        raise InvalidRequestError(f"{key} is missing", argument)
    return plain_text(f"{argument}.{key}", given[key])


def _name(argument: str, given: Mapping[str, Any]) -> str:
    if not (name := _needed_text(argument, given, "name")):
        raise InvalidRequestError("takes a non-empty str", f"{argument}.name")
    return name


def _provider_data(argument: str, given: Mapping[str, Any]) -> dict[str, Any] | None:
    data = given.get("provider_data")
    return None if data is None else plain_dict(f"{argument}.provider_data", data)


def _json_arguments(argument: str, text: object) -> dict[str, Any]:
    """Return a call's arguments from their JSON text. None, ``""`` and ``"null"`` mean ``{}``."""
    if text is None:
        return {}
    words = plain_text(argument, text, "a str of JSON")
    try:
        arguments = msgspec.json.decode(words or "null", type=dict[str, Any] | None)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidRequestError(f"is not a JSON object: {error}", argument) from None
    return plain_dict(argument, arguments or {})


def _paths(kind: str, given: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of a part that the caller gave elsewhere: field → where."""
    if kind == "image" and given.get("source") is not None:
        return {name: f"source.{name}" for name in _IMAGE_PLACES}
    if kind == "image_url":
        return {"url": "image_url"} | ({} if "detail" in given else {"detail": "image_url.detail"})
    if kind == "file":
        return media_parts.NESTED_FILE_PATHS if given.get("file") is not None else {}
    return media_parts.PATHS.get(kind, {})


_READERS: dict[str, Callable[[str, Mapping[str, Any]], Part]] = {
    "text": _text_part,
    "image": media_parts.image_part,
    "image_url": media_parts.image_url_part,
    "audio": media_parts.audio_part,
    "file": media_parts.file_part,
    "document": media_parts.document_part,
    "tool_call": _tool_call_part,
    "reasoning": _reasoning_part,
    "input_text": _text_part,
    "input_image": media_parts.input_image_part,
    "input_audio": media_parts.input_audio_part,
    "input_file": media_parts.input_file_part,
    "audio_url": media_parts.audio_url_part,
}
