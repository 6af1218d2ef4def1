"""Reads the parts of a message: text, images, tool calls, reasoning, in the forms of each provider. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headrace.arguments import checks
from headrace.arguments.mapping_keys import KnownKeys, further_keys, joined
from headrace.arguments.original_paths import OriginalPaths
from headrace.arguments.plain_values import named, plain_dict, plain_text, shown
from headrace.errors import InvalidRequestError
from headrace.types import ImagePart, Part, ReasoningPart, TextPart, ToolCall, ToolCallPart

_TEXT_FIELDS = frozenset({"type", *TextPart.__struct_fields__})
_IMAGE_FIELDS = frozenset({"type", *ImagePart.__struct_fields__})
_CALL_FIELDS = frozenset({"type", *ToolCallPart.__struct_fields__})

_IMAGE_PLACES = ("url", "data", "media_type")

_TEXT = KnownKeys(_TEXT_FIELDS, slips={"content": "text", "value": "text"}, fields=_TEXT_FIELDS)
_IMAGE = KnownKeys(
    _IMAGE_FIELDS | {"source"},
    fields=_IMAGE_FIELDS | {"source"},
    slips={"mime_type": "media_type", "mimeType": "media_type", "uri": "url", "base64": "data"},
)
_IMAGE_URL = KnownKeys(frozenset({"type", "image_url", "extra"}), fields=_IMAGE_FIELDS)
_INNER_URL = KnownKeys(frozenset({"url", "detail"}), slips={"uri": "url"})
_BASE64_SOURCE = KnownKeys(frozenset({"type", "media_type", "data"}))
_URL_SOURCE = KnownKeys(frozenset({"type", "url"}))
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
    if not isinstance(given, Mapping):
        raise InvalidRequestError(
            f"takes a part such as {{'type': 'text', 'text': 'Hello'}}, not {named(part)}", argument
        )
    kind = given.get("type")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise InvalidRequestError(f"is no part ({', '.join(_READERS)}): its type is {shown(kind)}", argument)
    if kind == "image" and given.get("source") is not None:
        original_paths |= {f"{argument}.{name}": f"{argument}.source.{name}" for name in _IMAGE_PLACES}
    if kind == "image_url":
        original_paths[f"{argument}.url"] = f"{argument}.image_url"
        if "detail" not in given:
            original_paths[f"{argument}.detail"] = f"{argument}.image_url.detail"
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


def _image_part(argument: str, given: Mapping[str, Any]) -> ImagePart:
    extra = further_keys(argument, given, _IMAGE)
    if (source := given.get("source")) is None:
        return _image(argument, given, extra)
    for name in _IMAGE_PLACES:
        if given.get(name) is not None:
            raise InvalidRequestError("is given beside source: give one of the two", f"{argument}.{name}")
    inside = f"{argument}.source"
    return _image(inside, _source(inside, source), extra)


def _source(argument: str, source: object) -> dict[str, Any]:
    """Read Anthropic's form: ``{"type": "base64", "media_type", "data"}`` or ``{"type": "url", "url"}``."""
    given: Mapping[str, Any] = source if isinstance(source, Mapping) else {}
    kind = given.get("type")
    if kind not in {"base64", "url"}:
        raise InvalidRequestError("takes a dict with type 'base64' or 'url'", argument)
    if further := further_keys(argument, given, _BASE64_SOURCE if kind == "base64" else _URL_SOURCE):
        raise InvalidRequestError("there is no such key here", f"{argument}.{min(further)}")
    return {key: value for key, value in given.items() if key != "type"}


def _image_url_part(argument: str, given: Mapping[str, Any]) -> ImagePart:
    """Read OpenAI's form: ``{"type": "image_url", "image_url": {"url", "detail"}}``."""
    image, extra = given.get("image_url"), further_keys(argument, given, _IMAGE_URL)
    inside = f"{argument}.image_url"
    if not isinstance(image, Mapping):
        return _image(argument, {"url": checks.text(inside, image)}, extra)
    within = further_keys(inside, image, _INNER_URL)
    url = checks.text(f"{inside}.url", image.get("url"))
    detail = checks.text(f"{inside}.detail", image.get("detail"))
    extra = joined(argument, extra, within and {"image_url": within}, {"detail": detail} if detail else None)
    return _image(argument, {"url": url}, extra)


def _image(argument: str, fields: Mapping[str, Any], extra: dict[str, Any] | None) -> ImagePart:
    url, data, media_type = (checks.text(f"{argument}.{name}", fields.get(name)) for name in _IMAGE_PLACES)
    if url and data:
        raise InvalidRequestError("is given beside url: give one of the two", f"{argument}.data")
    if not (url or (data and media_type)):
        raise InvalidRequestError("an image needs a url, or data and media_type", argument)
    return ImagePart(url, data, media_type, extra)


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


_READERS: dict[str, Callable[[str, Mapping[str, Any]], Part]] = {
    "text": _text_part,
    "image": _image_part,
    "image_url": _image_url_part,
    "tool_call": _tool_call_part,
    "reasoning": _reasoning_part,
}
