"""Reads the body of a Responses request as the arguments of a run. Pure. See :mod:`headrace.batch.rows.chat_body`."""

from __future__ import annotations

from typing import Any

from headrace.batch.rows.body_keys import BodyKeys, Fields, read_body_keys, read_metadata, refuse_stream
from headrace.batch.rows.responses_items import messages_of
from headrace.errors import InvalidRequestError

_LOGPROBS = "message.output_text.logprobs"


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
    read_body_keys(body, arguments, _KEYS, is_openais=is_openais)


def _text(arguments: Fields, custom: Fields, key: str, value: Any) -> None:
    _take_apart(arguments, custom, key, value, {"format": "response_format", "verbosity": "verbosity"})


def _reasoning(arguments: Fields, custom: Fields, key: str, value: Any) -> None:
    _take_apart(arguments, custom, key, value, {"effort": "reasoning_effort"})


def _take_apart(arguments: Fields, custom: Fields, key: str, value: Any, names: dict[str, str]) -> None:
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


def _include(arguments: Fields, custom: Fields, key: str, value: Any) -> None:
    if isinstance(value, list):
        if _LOGPROBS in value:
            arguments["logprobs"] = True
        value = [word for word in value if word != _LOGPROBS]
    if value != []:
        custom[key] = value


def _top_logprobs(arguments: Fields, _custom: Fields, key: str, value: Any) -> None:
    if value != 0:  # 0 is the API's default
        arguments[key] = value


def _background(_arguments: Fields, _custom: Fields, key: str, value: Any) -> None:
    if value is not False:
        raise InvalidRequestError("a batch waits for each answer by itself: leave it out", f"body.{key}")


_KEYS = BodyKeys(
    same=frozenset({"temperature", "top_p", "max_output_tokens", "service_tier", "top_k"}),
    read_apart=frozenset({"model", "input", "instructions"}),
    readers={
        "text": _text,
        "reasoning": _reasoning,
        "include": _include,
        "top_logprobs": _top_logprobs,
        "background": _background,
        "metadata": read_metadata,
        "stream": refuse_stream,
    },
)
