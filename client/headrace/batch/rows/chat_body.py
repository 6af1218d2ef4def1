"""Reads the body of a Chat Completions request as the arguments of a run. Pure.

Nothing vanishes: a key that Headrace has no argument for goes to ``custom_options``, as it is. A key with the value null
counts as absent.
"""

from __future__ import annotations

from typing import Any

from headrace.batch.rows.body_keys import BodyKeys, Fields, read_body_keys, read_metadata, refuse_stream
from headrace.errors import InvalidRequestError

_SAME_NAMES = """
    temperature top_p frequency_penalty presence_penalty seed logprobs top_logprobs verbosity service_tier reasoning_effort
    response_format top_k
"""


def chat_arguments(body: dict[str, Any], arguments: dict[str, Any], *, is_openais: bool) -> None:
    """Add the arguments of a body to ``arguments``. Raises InvalidRequestError.

    ``is_openais``: whether the provider takes OpenAI's own keys.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequestError("takes a non-empty list of messages", "body.messages")
    arguments["messages"] = messages
    read_body_keys(body, arguments, _KEYS, is_openais=is_openais)


def _one_answer(_arguments: Fields, _custom: Fields, key: str, value: Any) -> None:
    if value != 1:
        raise InvalidRequestError("a row has one answer: write as many rows as you want answers", f"body.{key}")


def _output_limit(arguments: Fields, _custom: Fields, key: str, value: Any) -> None:
    if arguments.setdefault("max_output_tokens", value) != value:
        raise InvalidRequestError("differs from the other limit of the answer: give one of the two", f"body.{key}")


def _stop(arguments: Fields, _custom: Fields, _key: str, value: Any) -> None:
    if value != []:
        arguments["stop_sequences"] = [value] if isinstance(value, str) else value


_KEYS = BodyKeys(
    same=frozenset(_SAME_NAMES.split()),
    read_apart=frozenset({"model", "messages"}),
    readers={
        "max_tokens": _output_limit,
        "max_completion_tokens": _output_limit,
        "stop": _stop,
        "metadata": read_metadata,
        "n": _one_answer,
        "stream": refuse_stream,
    },
)
