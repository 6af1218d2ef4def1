"""From what callers give as messages and tools to the types that cross the wire. Pure.

Every error is an InvalidRequestError that names the place, as in ``messages[2].content``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec

from headrace import checks
from headrace.errors import InvalidRequestError
from headrace.types import ImagePart, Message, Part, Role, TextPart, Tool, ToolCallPart

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}")
_ROLES = get_args(Role)
_MESSAGE_KEYS = {"role", "content", "tool_call_id", "tool_name", "name", "tool_calls"}
_TOOL_CHOICES = ("auto", "none", "required")


def read_messages(messages: object) -> list[Message]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise InvalidRequestError(
            "takes a non-empty list of messages such as {'role': 'user', 'content': 'Hello'}", "messages"
        )
    return [_message(f"messages[{index}]", message) for index, message in enumerate(messages)]


def _message(argument: str, message: object) -> Message:
    if isinstance(message, Message):
        return _checked(argument, message)
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"takes a dict or a Message, not {type(message).__name__}", argument)
    if unknown := set(message) - _MESSAGE_KEYS:
        raise InvalidRequestError(f"unknown key {min(unknown, key=str)!r}", argument)
    role: Any = message.get("role")
    if role not in _ROLES:
        raise InvalidRequestError(f"takes one of {', '.join(_ROLES)}, not {role!r}", f"{argument}.role")
    content = _content(f"{argument}.content", message.get("content"), message.get("tool_calls"))
    tool_call_id = checks.text(f"{argument}.tool_call_id", message.get("tool_call_id"))
    if role == "tool" and tool_call_id is None:
        raise InvalidRequestError("a tool message needs the id of the call it answers", f"{argument}.tool_call_id")
    tool_name = checks.text(f"{argument}.tool_name", message.get("tool_name") or message.get("name"))
    return Message(role=role, content=content, tool_call_id=tool_call_id, tool_name=tool_name)


def _checked(argument: str, message: Message) -> Message:
    """Look at a Message that the caller made: its constructor does not."""
    if message.role not in _ROLES:
        raise InvalidRequestError(f"takes one of {', '.join(_ROLES)}, not {message.role!r}", f"{argument}.role")
    content: object = message.content
    if not isinstance(content, (str, list)):
        raise InvalidRequestError(
            f"takes a str or a list of parts, not {type(content).__name__}", f"{argument}.content"
        )
    for index, part in enumerate(content if isinstance(content, list) else ()):
        _part(f"{argument}.content[{index}]", part)
    if message.role == "tool" and not message.tool_call_id:
        raise InvalidRequestError("a tool message needs the id of the call it answers", f"{argument}.tool_call_id")
    return message


def _content(argument: str, content: Any, tool_calls: Any) -> str | list[Part]:
    """Return the content with OpenAI's ``tool_calls``, where given, as parts."""
    if isinstance(content, str) and not tool_calls:
        return content
    parts: list[Part] = []
    if isinstance(content, str) and content:
        parts.append(TextPart(content))
    elif isinstance(content, Sequence) and not isinstance(content, (str, bytes)):
        parts.extend(_part(f"{argument}[{index}]", part) for index, part in enumerate(content))
    elif content is not None and not isinstance(content, str):
        raise InvalidRequestError(f"takes a str or a list of parts, not {type(content).__name__}", argument)
    elif content is None and not tool_calls:
        raise InvalidRequestError("is missing", argument)
    calls = argument.replace(".content", ".tool_calls")
    if tool_calls is not None and (isinstance(tool_calls, (str, bytes)) or not isinstance(tool_calls, Sequence)):
        raise InvalidRequestError(f"takes a list of calls, not {type(tool_calls).__name__}", calls)
    parts.extend(_nested_tool_call(f"{calls}[{index}]", call) for index, call in enumerate(tool_calls or []))
    return parts


def _part(argument: str, part: Any) -> Part:
    if isinstance(part, ImagePart):
        return _image(argument, part)
    if isinstance(part, Part):
        return part
    if isinstance(part, Mapping) and part.get("type") == "image_url":
        url = part.get("image_url")
        return _image(
            argument, ImagePart(url=checks.text(argument, url.get("url") if isinstance(url, Mapping) else url))
        )
    try:
        converted: Part = msgspec.convert(part, Part)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"is no part (text, image, tool_call, reasoning): {error}", argument) from None
    return _image(argument, converted) if isinstance(converted, ImagePart) else converted


def _image(argument: str, image: ImagePart) -> ImagePart:
    if not (image.url or (image.data and image.media_type)):
        raise InvalidRequestError("an image needs a url, or data and media_type", argument)
    return image


def _nested_tool_call(argument: str, call: Any) -> ToolCallPart:
    """Read OpenAI's own form: ``{"id", "type": "function", "function": {"name", "arguments": "<JSON>"}}``."""
    try:
        function = call["function"]
        arguments = msgspec.json.decode(function["arguments"] or "{}", type=dict[str, Any])
        return ToolCallPart(id=str(call["id"]), name=str(function["name"]), arguments=arguments)
    except (KeyError, TypeError) as error:
        raise InvalidRequestError(f"takes id and function with name and arguments: {error!r}", argument) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidRequestError(f"function.arguments is not a JSON object: {error}", argument) from None


def fill_variables(messages: list[Message], variables: Mapping[str, str] | None) -> list[Message]:
    """Replace ``{{name}}`` in the messages. Without ``variables`` braces stay as they are."""
    if variables is None:
        return messages
    checked = checks.mapping("variables", variables) or {}
    for name, value in checked.items():
        if not isinstance(value, str):
            raise InvalidRequestError(f"takes str values; {name!r} is {type(value).__name__}", "variables")

    def replace(match: re.Match[str]) -> str:
        try:
            return str(checked[match[1]])
        except KeyError:
            raise InvalidRequestError(f"a message uses {{{{{match[1]}}}}}, which is missing", "variables") from None

    def fill(message: Message) -> Message:
        if isinstance(message.content, str):
            return msgspec.structs.replace(message, content=_VARIABLE.sub(replace, message.content))
        parts = [
            msgspec.structs.replace(part, text=_VARIABLE.sub(replace, part.text))
            if isinstance(part, TextPart)
            else part
            for part in message.content
        ]
        return msgspec.structs.replace(message, content=parts)

    return [fill(message) for message in messages]


def read_tools(tools: Sequence[Tool | Mapping[str, Any]] | None) -> list[Tool]:
    if tools is None:
        return []
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise InvalidRequestError("takes a list of tools", "tools")
    return [_tool(f"tools[{index}]", tool) for index, tool in enumerate(tools)]


def _tool(argument: str, tool: Any) -> Tool:
    if isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping):
        tool = tool["function"]
    try:
        checked = tool if isinstance(tool, Tool) else msgspec.convert(tool, Tool)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"takes name, description and parameters: {error}", argument) from None
    if not checked.name:
        raise InvalidRequestError("takes a non-empty name", f"{argument}.name")
    return checked


def read_tool_choice(choice: Any, tools: list[Tool]) -> str | dict[str, str] | None:
    if choice is None:
        return None
    if not tools:
        raise InvalidRequestError("is given, but there are no tools", "tool_choice")
    if isinstance(choice, str) and choice in _TOOL_CHOICES:
        return choice
    if isinstance(choice, Mapping) and set(choice) == {"tool"}:
        names = [tool.name for tool in tools]
        if choice["tool"] not in names:
            raise InvalidRequestError(
                f"there is no tool {choice['tool']!r}; there are: {', '.join(names)}", "tool_choice"
            )
        return {"tool": choice["tool"]}
    raise InvalidRequestError("takes 'auto', 'none', 'required' or {'tool': name}", "tool_choice")
