"""Reads the body of a request for embeddings as the arguments of ``run_embedding``. Pure."""

from __future__ import annotations

from typing import Any

from headrace.batch.rows.body_keys import read_user
from headrace.errors import InvalidRequestError

_READ_APART = frozenset({"model", "input"})


def embedding_arguments(body: dict[str, Any], arguments: dict[str, Any], *, is_openais: bool) -> None:
    """Add the arguments of a body to ``arguments``. Raises InvalidRequestError. See :func:`chat_arguments`.

    ``encoding_format`` says how the record has the vectors. ``base64`` goes to the provider too, if it is one of OpenAI's
    kind.
    """
    arguments["input"] = _texts(body.get("input"))
    custom: dict[str, Any] = {}
    for key, value in body.items():
        if key in _READ_APART or value is None:
            continue
        if key == "dimensions":
            arguments[key] = value
        elif key == "encoding_format":
            _read_encoding(custom, value, is_openais=is_openais)
        else:
            custom[key] = value
    if "user" in custom:
        read_user(arguments, custom, is_openais=is_openais)
    if custom:
        arguments["custom_options"] = custom


def _texts(given: Any) -> str | list[str]:
    if isinstance(given, str) and given:
        return given
    if isinstance(given, list) and given and all(isinstance(text, str) for text in given):
        return given
    if isinstance(given, list) and given and isinstance(given[0], int | list):
        raise InvalidRequestError("holds tokens: Headrace embeds text, so give the text itself", "body.input")
    raise InvalidRequestError("takes a text that is not empty, or a non-empty list of texts", "body.input")


def _read_encoding(custom: dict[str, Any], value: Any, *, is_openais: bool) -> None:
    if value == "float":
        return
    if value != "base64" or not is_openais:
        advice = "float or base64" if is_openais else "float, for this provider"
        raise InvalidRequestError(f"takes {advice}", "body.encoding_format")
    custom["encoding_format"] = value
