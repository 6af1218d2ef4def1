"""Reads the body of a Chat Completions request as the arguments of a run. Pure.

Nothing vanishes: a key that Headrace has no argument for goes to ``custom_options``, as it is. A key with the value null
counts as absent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.batch.rows.tool_fields import read_tool_fields
from headrace.errors import InvalidRequestError

_SAME_NAMES = """
    temperature top_p frequency_penalty presence_penalty seed logprobs top_logprobs verbosity service_tier reasoning_effort
    response_format top_k
"""
_SAME = frozenset(_SAME_NAMES.split())
"""Keys that are arguments of the same name."""
_READ_APART = frozenset({"model", "messages", "tools", "tool_choice", "parallel_tool_calls"})


def chat_arguments(body: dict[str, Any], arguments: dict[str, Any], *, is_openais: bool) -> None:
    """Add the arguments of a body to ``arguments``. Raises InvalidRequestError.

    ``is_openais``: whether the provider takes OpenAI's own keys.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequestError("takes a non-empty list of messages", "body.messages")
    arguments["messages"] = messages
    custom: dict[str, Any] = {}
    for key, value in body.items():
        if key in _READ_APART or value is None:
            continue
        if key in _SAME:
            arguments[key] = value
        elif (read := _READERS.get(key)) is not None:
            read(arguments, key, value)
        else:
            custom[key] = value
    if "tools" in body:
        read_tool_fields(body, arguments, custom)
    if "user" in custom:
        read_user(arguments, custom, is_openais=is_openais)
    if custom:
        arguments["custom_options"] = custom


def read_user(arguments: dict[str, Any], custom: dict[str, Any], *, is_openais: bool) -> None:
    """Keep the id of your user with the span. Only OpenAI's formats have a key for it, so that others would refuse it."""
    if isinstance(custom["user"], str):
        arguments["user_id"] = custom["user"]
        if not is_openais:
            del custom["user"]


def refuse_stream(_arguments: dict[str, Any], key: str, value: Any) -> None:
    """Refuse a streamed answer: a record holds the whole one."""
    if value is not False:
        raise InvalidRequestError("a batch has whole answers only: leave it out", f"body.{key}")


def read_metadata(arguments: dict[str, Any], key: str, value: Any) -> None:
    """Add ``metadata``, if there is any."""
    if value != {}:
        arguments[key] = value


def _one_answer(_arguments: dict[str, Any], key: str, value: Any) -> None:
    if value != 1:
        raise InvalidRequestError("a row has one answer: write as many rows as you want answers", f"body.{key}")


def _output_limit(arguments: dict[str, Any], key: str, value: Any) -> None:
    if arguments.setdefault("max_output_tokens", value) != value:
        raise InvalidRequestError("differs from the other limit of the answer: give one of the two", f"body.{key}")


def _stop(arguments: dict[str, Any], _key: str, value: Any) -> None:
    if value != []:
        arguments["stop_sequences"] = [value] if isinstance(value, str) else value


_READERS: dict[str, Callable[[dict[str, Any], str, Any], None]] = {
    "max_tokens": _output_limit,
    "max_completion_tokens": _output_limit,
    "stop": _stop,
    "metadata": read_metadata,
    "n": _one_answer,
    "stream": refuse_stream,
}
