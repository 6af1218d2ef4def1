"""Reads the keys of a request body as the arguments of a run, by a table: for Chat Completions and for Responses. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headrace.batch.rows.tool_fields import read_tool_fields
from headrace.errors import InvalidRequestError

Fields = dict[str, Any]
"""The arguments of a run, or its custom options."""
KeyReader = Callable[[Fields, Fields, str, Any], None]
"""Adds a key and its value to the arguments, or to the custom options."""

_TOOL_KEYS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})


class BodyKeys(msgspec.Struct, frozen=True):
    """The keys of one API's bodies.

    ``same``: keys that are arguments of the same name. ``read_apart``: keys that are read before the others.
    ``readers``: keys with a function of their own. All other keys go to ``custom_options``, as they are.
    """

    same: frozenset[str]
    read_apart: frozenset[str]
    readers: Mapping[str, KeyReader]


def read_body_keys(body: Fields, arguments: Fields, keys: BodyKeys, *, is_openais: bool) -> None:
    """Add the arguments of a body to ``arguments``. Raises InvalidRequestError.

    ``is_openais``: whether the provider takes OpenAI's own keys.
    """
    custom: Fields = {}
    same, readers = keys.same, keys.readers
    for key, value in body.items():
        if value is None or key in keys.read_apart or key in _TOOL_KEYS:
            continue
        if key in same:
            arguments[key] = value
        elif (read := readers.get(key)) is not None:
            read(arguments, custom, key, value)
        else:
            custom[key] = value
    if "tools" in body:
        read_tool_fields(body, arguments, custom)
    if "user" in custom:
        read_user(arguments, custom, is_openais=is_openais)
    if custom:
        arguments["custom_options"] = custom


def refuse_stream(_arguments: Fields, _custom: Fields, key: str, value: Any) -> None:
    """Refuse a streamed answer: a record holds the whole one."""
    if value is not False:
        raise InvalidRequestError("a batch has whole answers only: leave it out", f"body.{key}")


def read_metadata(arguments: Fields, _custom: Fields, key: str, value: Any) -> None:
    """Add ``metadata``, if there is any."""
    if value != {}:
        arguments[key] = value


def read_user(arguments: Fields, custom: Fields, *, is_openais: bool) -> None:
    """Keep the id of your user with the span. Only OpenAI's formats have a key for it, so that others would refuse it."""
    if isinstance(custom["user"], str):
        arguments["user_id"] = custom["user"]
        if not is_openais:
            del custom["user"]
