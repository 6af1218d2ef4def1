"""Reads the messages of a call, and fills their variables. Pure.

A wrong value raises InvalidRequestError, which names its place, as in ``messages[2].content[0].text``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import msgspec

from headrace.arguments import checks
from headrace.arguments.mapping_keys import KnownKeys, further_keys, joined
from headrace.arguments.message_parts import read_part, read_tool_call
from headrace.arguments.original_paths import OriginalPaths
from headrace.arguments.plain_values import named, plain_text, shown
from headrace.errors import InvalidRequestError
from headrace.types import Message, Part, Role, TextPart

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}")
_ROLES = get_args(Role)
_KEYS = KnownKeys(
    read=frozenset({"role", "content", "tool_call_id", "tool_name", "name", "tool_calls", "extra"}),
    passed_on=frozenset({"reasoning_content", "tool_plan", "toolset_name"}),
    slips={"text": "content", "parts": "content", "message": "content", "tool_use_id": "tool_call_id"},
    fields=frozenset({"role", "content", "tool_call_id", "tool_name", "tool_calls", "extra"}),
)


def read_messages(messages: object, original_paths: OriginalPaths) -> list[Message]:
    """Return the messages. A str is one message of the user. Raises InvalidRequestError.

    Keys that Headrace does not know go into ``extra``.

    Adds to ``original_paths`` each path that differs in the request.
    """
    if isinstance(messages, str) and messages:
        original_paths |= {"messages[0]": "messages", "messages[0].content": "messages"}
        return [Message(role="user", content=plain_text("messages", messages))]
    if isinstance(messages, (str, bytes, Mapping, Message)) or not isinstance(messages, Sequence) or not messages:
        is_single = isinstance(messages, Mapping | Message)
        advice = "; put the message into a list" if is_single else ""
        raise InvalidRequestError(
            "takes a non-empty str, or a non-empty list of messages such as "
            f"{{'role': 'user', 'content': 'Hello'}}{advice}",
            "messages",
        )
    return [read_message(f"messages[{index}]", message, original_paths) for index, message in enumerate(messages)]


def read_message(argument: str, message: object, original_paths: OriginalPaths) -> Message:
    given = msgspec.structs.asdict(message) if isinstance(message, Message) else message
    if not isinstance(given, Mapping):
        raise InvalidRequestError(f"takes a dict or a Message, not {named(message)}", argument)
    role: Any = given.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidRequestError(f"takes one of {', '.join(_ROLES)}, not {shown(role)}", f"{argument}.role")
    extra = further_keys(argument, given, _KEYS)
    is_answer = role == "tool"
    tool_call_id, tool_name = _answered_call(argument, given, is_answer=is_answer)
    if not is_answer and (name := checks.text(f"{argument}.name", given.get("name"))) is not None:
        extra = joined(argument, extra, {"name": name})
    return Message(
        role=plain_text(f"{argument}.role", role),  # type: ignore[arg-type]
        # An answer may be empty, and OpenAI says so with None. An answer to a call must say what came of the call.
        content=_content(argument, given, original_paths, may_be_missing=role == "assistant"),
        tool_call_id=tool_call_id,
        tool_name=tool_name,
        extra=extra,
    )


def _answered_call(argument: str, given: Mapping[str, Any], *, is_answer: bool) -> tuple[str | None, str | None]:
    """Return the id and the tool name of the call that a message answers.

    Only messages with role ``tool`` have them.
    """
    if not is_answer and given.get("tool_call_id") is None and given.get("tool_name") is None:
        return None, None
    call_id = checks.text(f"{argument}.tool_call_id", given.get("tool_call_id"))
    tool_name = checks.text(f"{argument}.tool_name", given.get("tool_name"))
    if not is_answer:
        for key, value in (("tool_call_id", call_id), ("tool_name", tool_name)):
            if value is not None:
                raise InvalidRequestError("belongs to a message with role 'tool'", f"{argument}.{key}")
        return None, None
    if not call_id:
        raise InvalidRequestError(
            "a message with role 'tool' needs the id of the call that it answers", f"{argument}.tool_call_id"
        )
    name = checks.text(f"{argument}.name", given.get("name"))
    if name and tool_name and name != tool_name:
        raise InvalidRequestError(f"differs from tool_name, {shown(tool_name)}", f"{argument}.name")
    return call_id, tool_name or name


def _content(
    argument: str, given: Mapping[str, Any], original_paths: OriginalPaths, *, may_be_missing: bool
) -> str | list[Part]:
    """Return the content. OpenAI's ``tool_calls`` become parts of it."""
    parts = _parts(argument, given.get("content"), original_paths)
    calls = _tool_calls(f"{argument}.tool_calls", given.get("tool_calls"))
    if parts is None and not calls and not may_be_missing:
        raise InvalidRequestError("is missing: give a str, or a list of parts", f"{argument}.content")
    if not calls:
        return parts or ""
    before = [TextPart(parts)] if parts and isinstance(parts, str) else list(parts or ())
    for index in range(len(calls)):
        read, gave = f"{argument}.content[{len(before) + index}]", f"{argument}.tool_calls[{index}]"
        original_paths |= {
            read: gave,
            f"{read}.name": f"{gave}.function.name",
            f"{read}.arguments": f"{gave}.function.arguments",
        }
    return [*before, *calls]


def _parts(argument: str, content: Any, original_paths: OriginalPaths) -> str | list[Part] | None:
    place = f"{argument}.content"
    if isinstance(content, str):
        return plain_text(place, content)
    if content is None:
        return None
    if isinstance(content, (bytes, Mapping)) or not isinstance(content, Sequence):
        raise InvalidRequestError(f"takes a str or a list of parts, not {type(content).__name__}", place)
    return [read_part(f"{place}[{index}]", part, original_paths) for index, part in enumerate(content)]


def _tool_calls(argument: str, calls: Any) -> list[Part]:
    if calls is None:
        return []
    if isinstance(calls, (str, bytes)) or not isinstance(calls, Sequence):
        raise InvalidRequestError(f"takes a list of calls, not {type(calls).__name__}", argument)
    return [read_tool_call(f"{argument}[{index}]", call) for index, call in enumerate(calls)]


def fill_variables(messages: list[Message], variables: Mapping[str, str] | None) -> list[Message]:
    """Replace each ``{{name}}`` in the messages by its value. If ``variables`` is None, braces stay as they are."""
    if variables is None:
        return messages
    given = checks.mapping("variables", variables)
    values = {name: plain_text(f"variables.{name}", value) for name, value in given.items()}

    def replace(match: re.Match[str]) -> str:
        try:
            return values[match[1]]
        except KeyError:
            raise InvalidRequestError(
                f"a message uses {{{{{match[1]}}}}}, which has no value here", "variables"
            ) from None

    return [_filled(message, replace) for message in messages]


def _filled(message: Message, replace: Callable[[re.Match[str]], str]) -> Message:
    if isinstance(message.content, str):
        return msgspec.structs.replace(message, content=_VARIABLE.sub(replace, message.content))
    parts = [
        msgspec.structs.replace(part, text=_VARIABLE.sub(replace, part.text)) if isinstance(part, TextPart) else part
        for part in message.content
    ]
    return msgspec.structs.replace(message, content=parts)
