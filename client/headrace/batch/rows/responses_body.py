"""Reads the body of a Responses request as the arguments of a run. Pure. See :mod:`headrace.batch.rows.chat_body`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.batch.rows.chat_body import read_metadata, read_user, refuse_stream
from headrace.batch.rows.responses_items import messages_of
from headrace.batch.rows.tool_fields import read_tool_fields
from headrace.errors import InvalidRequestError

_LOGPROBS = "message.output_text.logprobs"
_SAME = frozenset({"temperature", "top_p", "max_output_tokens", "service_tier", "top_k"})
"""Keys that are arguments of the same name."""
_READ_APART = frozenset({"model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls"})


def responses_arguments(body: dict[str, Any], arguments: dict[str, Any], *, is_openais: bool) -> None:
    """Add the arguments of a body to ``arguments``. Raises InvalidRequestError.

    ``is_openais``: whether the provider takes OpenAI's own keys.
    """
    messages = messages_of(body.get("input"))
    if (instructions := body.get("instructions")) is not None:
        if not isinstance(instructions, str):
            raise InvalidRequestError("takes a str", "body.instructions")
        messages.insert(0, {"role": "system", "content": instructions})
    arguments["messages"] = messages
    custom: dict[str, Any] = {}
    for key, value in body.items():
        if key in _READ_APART or value is None:
            continue
        if key in _SAME:
            arguments[key] = value
        elif (read := _READERS.get(key)) is not None:
            read(arguments, custom, value)
        else:
            custom[key] = value
    if "tools" in body:
        read_tool_fields(body, arguments, custom)
    if "user" in custom:
        read_user(arguments, custom, is_openais=is_openais)
    if custom:
        arguments["custom_options"] = custom


_Fields = dict[str, Any]


def _text(arguments: _Fields, custom: _Fields, value: Any) -> None:
    _take_apart(arguments, custom, value, "text", {"format": "response_format", "verbosity": "verbosity"})


def _reasoning(arguments: _Fields, custom: _Fields, value: Any) -> None:
    _take_apart(arguments, custom, value, "reasoning", {"effort": "reasoning_effort"})


def _take_apart(arguments: _Fields, custom: _Fields, value: Any, key: str, names: dict[str, str]) -> None:
    """Add the known keys of an inner object as arguments. The others stay in the object, among the custom options."""
    if not isinstance(value, dict):
        custom[key] = value
        return
    rest: dict[str, Any] = {}
    for inner, given in value.items():
        if given is not None:
            if inner in names:
                arguments[names[inner]] = given
            else:
                rest[inner] = given
    if rest:
        custom[key] = rest


def _include(arguments: _Fields, custom: _Fields, value: Any) -> None:
    if isinstance(value, list):
        if _LOGPROBS in value:
            arguments["logprobs"] = True
        value = [word for word in value if word != _LOGPROBS]
    if value != []:
        custom["include"] = value


def _top_logprobs(arguments: _Fields, _custom: _Fields, value: Any) -> None:
    if value != 0:  # 0 is the API's default
        arguments["top_logprobs"] = value


def _background(_arguments: _Fields, _custom: _Fields, value: Any) -> None:
    if value is not False:
        raise InvalidRequestError("a batch waits for each answer by itself: leave it out", "body.background")


_READERS: dict[str, Callable[[_Fields, _Fields, Any], None]] = {
    "text": _text,
    "reasoning": _reasoning,
    "include": _include,
    "top_logprobs": _top_logprobs,
    "background": _background,
    "metadata": lambda arguments, _custom, value: read_metadata(arguments, "metadata", value),
    "stream": lambda arguments, _custom, value: refuse_stream(arguments, "stream", value),
}
