"""Reads a line of OpenAI's Batch API: ``{"custom_id", "method", "url", "body"}``. Pure."""

from __future__ import annotations

from typing import Any

from headrace.batch.row import RowKind
from headrace.batch.rows.chat_body import chat_arguments
from headrace.batch.rows.embeddings_body import embedding_arguments
from headrace.batch.rows.responses_body import responses_arguments
from headrace.batch.rows.row_target import RowTarget, RowTargets
from headrace.errors import InvalidRequestError

_PATHS: dict[str, RowKind] = {
    "chat/completions": "chat",
    "responses": "responses",
    "embeddings": "embeddings",
}
_KINDS: dict[Any, RowKind] = {
    f"{start}{path}": kind for path, kind in _PATHS.items() for start in ("/v1/", "/", "", "v1/")
}
_KEYS = frozenset({"custom_id", "method", "url", "body"})
_BODIES = {"chat": chat_arguments, "responses": responses_arguments, "embeddings": embedding_arguments}


def is_openai_line(given: dict[str, Any]) -> bool:
    """Whether a line is in the form of OpenAI's Batch API."""
    return "custom_id" in given and "body" in given


def openai_arguments(
    given: dict[str, Any], targets: RowTargets, default_model: str | None, provider: str | None
) -> tuple[RowKind, RowTarget, dict[str, Any]]:
    """Return the kind, the target and the arguments of a line. Raises InvalidRequestError."""
    url = given.get("url")
    kind = _KINDS.get(url) if isinstance(url, str) else None
    if kind is None:
        raise InvalidRequestError(f"takes /v1/chat/completions, /v1/responses or /v1/embeddings, not {url!r}", "url")
    if given.get("method", "POST") != "POST":
        raise InvalidRequestError(f"takes 'POST', not {given['method']!r}", "method")
    if not given.keys() <= _KEYS:
        key = next(key for key in given if key not in _KEYS)
        raise InvalidRequestError(
            "is no key of a batch line: fields of the request belong into body; leave other keys out", key
        )
    body = given["body"]
    if not isinstance(body, dict):
        raise InvalidRequestError("takes an object: the body of the request", "body")
    model = body.get("model")
    target = targets.of(default_model if model is None else model, provider, kind)
    arguments: dict[str, Any] = dict(target.arguments)
    _BODIES[kind](body, arguments, is_openais=target.is_openais)
    return kind, target, arguments
