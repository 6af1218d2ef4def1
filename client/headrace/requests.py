"""From the arguments of ``run_local`` to a checked run request. Pure; nothing wrong gets past here to be sent.

Every error is an InvalidRequestError that names the argument and says what it takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypedDict, get_args

import msgspec

from headrace.errors import InvalidRequestError
from headrace.provider_table import MODEL_PREFIXES
from headrace.types import ImagePart, Message, Part, Role, TextPart, Tool, ToolCallPart
from headrace.wire.messages import AbortMode, RunRequest

Priority = Literal["interactive", "batch"]

_SPAN_ID = re.compile(r"sp_[0-9a-f]{16}")
_TRACE_ID = re.compile(r"tr_[0-9a-f]{16}")
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}")
_ROLES = get_args(Role)
_MESSAGE_KEYS = {"role", "content", "tool_call_id", "tool_name", "name", "tool_calls"}
_TOOL_CHOICES = ("auto", "none", "required")


class RunArguments(TypedDict, total=False):
    """The keyword arguments of ``run_local`` and ``arun_local``, beside ``stream``."""

    model: Required[str]
    messages: Required[Sequence[Message | Mapping[str, Any]]]
    provider: str | None
    tools: Sequence[Tool | Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, str] | None
    response_format: Mapping[str, Any] | None
    temperature: float | None
    max_output_tokens: int | None
    top_p: float | None
    stop_sequences: Sequence[str] | None
    reasoning_effort: str | None
    timeout_ms: int | None
    first_chunk_timeout_ms: int | None
    idle_timeout_ms: int | None
    variables: Mapping[str, str] | None
    provider_api_key: str | None
    custom_options: Mapping[str, Any] | None
    tags: Sequence[str] | None
    user_id: str | None
    session_id: str | None
    send_trace: bool
    span_id: str | None
    trace_id: str | None
    parent_span_id: str | None
    priority: Priority
    on_abort: AbortMode


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What of a run stays with the client: how it is admitted and how it is aborted."""

    span_id: str | None
    provider_api_key: str | None
    priority: Priority
    on_abort: AbortMode

    def __repr__(self) -> str:
        return f"RunOptions(span_id={self.span_id!r}, priority={self.priority!r}, on_abort={self.on_abort!r})"


_ARGUMENTS = frozenset(RunArguments.__annotations__)


def check_names(arguments: Mapping[str, Any]) -> None:
    """Raise InvalidRequestError for an argument that does not exist, or one that must be there and is not."""
    for name in arguments.keys() - _ARGUMENTS:
        raise InvalidRequestError(f"no such argument; there are: {', '.join(sorted(_ARGUMENTS))}", name)
    for name in ("model", "messages"):
        if name not in arguments:
            raise InvalidRequestError("is missing", name)


def build_options(arguments: RunArguments) -> RunOptions:
    """Return the checked options of a run."""
    span_id = arguments.get("span_id")
    if span_id is not None:
        _matches("span_id", span_id, _SPAN_ID, "'sp_' and 16 hex digits")
    key = _text("provider_api_key", arguments.get("provider_api_key"))
    if key is not None and (not key or not key.isascii() or not key.isprintable()):
        raise InvalidRequestError("takes a non-empty str of printable ASCII characters", "provider_api_key")
    priority = arguments.get("priority", "interactive")
    on_abort = arguments.get("on_abort", "close")
    _one_of("priority", priority, get_args(Priority))
    _one_of("on_abort", on_abort, get_args(AbortMode))
    return RunOptions(span_id=span_id, provider_api_key=key, priority=priority, on_abort=on_abort)


def build_request(
    arguments: RunArguments, *, stream: bool, trace_id: str, providers: Sequence[str], takes_any_provider: bool = False
) -> RunRequest:
    """Return the checked request.

    ``providers`` are the names known here; with ``takes_any_provider`` an explicit ``provider`` may be another, which the
    engine knows. ``trace_id`` is used where the arguments name none.
    """
    provider, model = _provider_of(arguments["model"], arguments.get("provider"), providers, takes_any_provider)
    send_trace = arguments.get("send_trace", True)
    _instance("stream", stream, bool, "a bool")
    _instance("send_trace", send_trace, bool, "a bool")
    trace_id = arguments.get("trace_id") or trace_id
    _matches("trace_id", trace_id, _TRACE_ID, "'tr_' and 16 hex digits")
    parent_span_id = arguments.get("parent_span_id")
    if parent_span_id is not None:
        _matches("parent_span_id", parent_span_id, _SPAN_ID, "'sp_' and 16 hex digits")
    tools = _tools(arguments.get("tools"))
    return RunRequest(
        provider=provider,
        model=model,
        messages=_fill(_messages(arguments["messages"]), arguments.get("variables")),
        stream=stream,
        tools=tools,
        tool_choice=_tool_choice(arguments.get("tool_choice"), tools),
        response_format=_mapping("response_format", arguments.get("response_format")),
        temperature=_number("temperature", arguments.get("temperature"), 0, 2),
        max_output_tokens=_positive("max_output_tokens", arguments.get("max_output_tokens")),
        top_p=_number("top_p", arguments.get("top_p"), 0, 1),
        stop_sequences=_strings("stop_sequences", arguments.get("stop_sequences")),
        reasoning_effort=_text("reasoning_effort", arguments.get("reasoning_effort")),
        custom_options=_mapping("custom_options", arguments.get("custom_options")) or {},
        total_timeout=_seconds("timeout_ms", arguments.get("timeout_ms")),
        first_chunk_timeout=_seconds("first_chunk_timeout_ms", arguments.get("first_chunk_timeout_ms")),
        idle_timeout=_seconds("idle_timeout_ms", arguments.get("idle_timeout_ms")),
        tags=_strings("tags", arguments.get("tags")),
        user_id=_text("user_id", arguments.get("user_id")),
        session_id=_text("session_id", arguments.get("session_id")),
        trace_id=trace_id,
        parent_span_id=parent_span_id,
        send_trace=send_trace,
    )


def _provider_of(
    model: object, provider: object, providers: Sequence[str], takes_any_provider: bool
) -> tuple[str, str]:
    if not isinstance(model, str) or not model:
        raise InvalidRequestError("takes the model's name, a non-empty str such as 'gpt-4o'", "model")
    known = ", ".join(sorted(providers))
    if provider is not None:
        if not isinstance(provider, str):
            raise InvalidRequestError(f"takes a str, not {type(provider).__name__}", "provider")
        if provider not in providers and not takes_any_provider:
            raise InvalidRequestError(f"{provider!r} is not configured; there are: {known}", "provider")
        return provider, model
    head, slash, rest = model.partition("/")
    if slash and rest and head in providers:
        return head, rest
    for prefix, name in MODEL_PREFIXES:
        if model.startswith(prefix) and name in providers:
            return name, model
    prefixes = ", ".join(f"{prefix}… ({name})" for prefix, name in MODEL_PREFIXES if name in providers)
    raise InvalidRequestError(
        f"cannot tell the provider of {model!r}; names that tell it: {prefixes}; "
        f"or give provider= or 'provider/model' with one of: {known}",
        "model",
    )


# Messages.


def _messages(messages: object) -> list[Message]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise InvalidRequestError(
            "takes a non-empty list of messages such as {'role': 'user', 'content': 'Hello'}", "messages"
        )
    return [_message(f"messages[{index}]", message) for index, message in enumerate(messages)]


def _message(argument: str, message: object) -> Message:
    if isinstance(message, Message):
        return message
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"takes a dict or a Message, not {type(message).__name__}", argument)
    if unknown := set(message) - _MESSAGE_KEYS:
        raise InvalidRequestError(f"unknown key {min(unknown, key=str)!r}", argument)
    role: Any = message.get("role")
    if role not in _ROLES:
        raise InvalidRequestError(f"takes one of {', '.join(_ROLES)}, not {role!r}", f"{argument}.role")
    content = _content(f"{argument}.content", message.get("content"), message.get("tool_calls"))
    tool_call_id = _text(f"{argument}.tool_call_id", message.get("tool_call_id"))
    if role == "tool" and tool_call_id is None:
        raise InvalidRequestError("a tool message needs the id of the call it answers", f"{argument}.tool_call_id")
    tool_name = _text(f"{argument}.tool_name", message.get("tool_name") or message.get("name"))
    return Message(role=role, content=content, tool_call_id=tool_call_id, tool_name=tool_name)


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
    parts.extend(_nested_tool_call(f"{calls}[{index}]", call) for index, call in enumerate(tool_calls or []))
    return parts


def _part(argument: str, part: Any) -> Part:
    if isinstance(part, Part):
        return part
    if isinstance(part, Mapping) and part.get("type") == "image_url":
        url = part.get("image_url")
        return ImagePart(url=_text(argument, url.get("url") if isinstance(url, Mapping) else url))
    try:
        converted: Part = msgspec.convert(part, Part)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"is no part (text, image, tool_call, reasoning): {error}", argument) from None
    if isinstance(converted, ImagePart) and not (converted.url or (converted.data and converted.media_type)):
        raise InvalidRequestError("an image needs a url, or data and media_type", argument)
    return converted


def _nested_tool_call(argument: str, call: Any) -> ToolCallPart:
    """Read OpenAI's own form: ``{"id", "type": "function", "function": {"name", "arguments": "<JSON>"}}``."""
    try:
        function = call["function"]
        arguments = msgspec.json.decode(function["arguments"] or "{}", type=dict[str, Any])
        return ToolCallPart(id=str(call["id"]), name=str(function["name"]), arguments=arguments)
    except (KeyError, TypeError) as error:
        raise InvalidRequestError(f"takes id and function with name and arguments: {error!r}", argument) from None
    except msgspec.DecodeError as error:
        raise InvalidRequestError(f"function.arguments is not a JSON object: {error}", argument) from None


def _fill(messages: list[Message], variables: Mapping[str, str] | None) -> list[Message]:
    """Replace ``{{name}}`` in the messages. Without ``variables`` braces stay as they are."""
    if variables is None:
        return messages
    checked = _mapping("variables", variables) or {}
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


# Tools.


def _tools(tools: Sequence[Tool | Mapping[str, Any]] | None) -> list[Tool]:
    if tools is None:
        return []
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise InvalidRequestError("takes a list of tools", "tools")
    return [_tool(f"tools[{index}]", tool) for index, tool in enumerate(tools)]


def _tool(argument: str, tool: Any) -> Tool:
    if isinstance(tool, Tool):
        return tool
    if isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping):
        tool = tool["function"]
    try:
        checked = msgspec.convert(tool, Tool)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"takes name, description and parameters: {error}", argument) from None
    if not checked.name:
        raise InvalidRequestError("takes a non-empty name", f"{argument}.name")
    return checked


def _tool_choice(choice: Any, tools: list[Tool]) -> str | dict[str, str] | None:
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


# Single values.


def _instance(argument: str, value: object, kind: type, words: str) -> None:
    if not isinstance(value, kind):
        raise InvalidRequestError(f"takes {words}, not {type(value).__name__}", argument)


def _matches(argument: str, value: object, pattern: re.Pattern[str], words: str) -> None:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise InvalidRequestError(f"takes {words}, not {value!r}", argument)


def _one_of(argument: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidRequestError(f"takes one of {', '.join(map(repr, allowed))}, not {value!r}", argument)


def _text(argument: str, value: Any) -> str | None:
    if value is not None:
        _instance(argument, value, str, "a str")
    return value  # type: ignore[no-any-return]


def _number(argument: str, value: Any, low: float, high: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InvalidRequestError(f"takes a number from {low:g} to {high:g}, not {value!r}", argument)
    return value


def _positive(argument: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise InvalidRequestError(f"takes an int above 0, not {value!r}", argument)
    return value


def _seconds(argument: str, milliseconds: Any) -> float | None:
    value = _positive(argument, milliseconds)
    return None if value is None else value / 1000


def _strings(argument: str, value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise InvalidRequestError("takes a list of str", argument)
    for item in value:
        _instance(argument, item, str, "a list of str")
    return list(value)


def _mapping(argument: str, value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    _instance(argument, value, Mapping, "a dict")
    for key in value:
        _instance(argument, key, str, "a dict with str keys")
    return dict(value)
