"""Reads a short line: ``{"id", "messages", …}`` with the arguments of a run by their Headrace names. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.arguments.run_arguments import EmbeddingArguments, RunArguments
from headrace.arguments.unknown_arguments import advice_on
from headrace.batch.row import RowKind
from headrace.batch.rows.row_target import RowTarget, RowTargets
from headrace.errors import InvalidRequestError

RUN_ARGUMENTS = frozenset({*RunArguments.__annotations__, "response_type"})
"""What a row of a run may name, beside its id."""
EMBEDDING_ARGUMENTS = frozenset(EmbeddingArguments.__annotations__)
"""What a row that embeds may name, beside its id."""
_READ_APART = frozenset({"id", "custom_id", "prompt", "model", "provider"})
_PLACES = ("messages", "prompt", "input")
_ITEMS = {"messages": "messages such as {'role': 'user', 'content': 'Hello'}", "input": "texts"}


def short_arguments(
    given: dict[str, Any], targets: RowTargets, default_model: str | None, provider: str | None
) -> tuple[RowKind, RowTarget, dict[str, Any]]:
    """Return the kind, the target and the arguments of a line. Raises InvalidRequestError."""
    places = [place for place in _PLACES if given.get(place) is not None]
    if len(places) != 1:
        raise InvalidRequestError(
            f"the row has {' and '.join(places)}: give one of them"
            if places
            else "the row has nothing to run: give messages, or prompt (a text), or input (texts to embed)"
        )
    (place,) = places
    _check_content(place, given[place])
    kind: RowKind = "embeddings" if places == ["input"] else "chat"
    model = given.get("model")
    if provider is None:
        provider = given.get("provider")
    target = targets.of(default_model if model is None else model, provider, kind)
    arguments: dict[str, Any] = dict(target.arguments)
    if places == ["prompt"]:
        arguments["messages"] = given["prompt"]
    known = EMBEDDING_ARGUMENTS if kind == "embeddings" else RUN_ARGUMENTS
    for key, value in given.items():
        if key in _READ_APART or value is None:
            continue
        if key not in known:
            raise InvalidRequestError(_advice(key, known, kind), key)
        arguments[key] = value
    if "provider_api_key" in given:
        raise InvalidRequestError(
            "a key does not belong into a file: set the provider's variable, such as OPENAI_API_KEY", "provider_api_key"
        )
    return kind, target, arguments


def _check_content(place: str, value: Any) -> None:
    """Raise InvalidRequestError, which names the key as it was written, for what no JSON of it may be. The run checks the rest."""
    if place == "prompt":
        if not isinstance(value, str) or not value:
            raise InvalidRequestError("takes a text that is not empty", place)
    elif isinstance(value, int | float | Mapping) or (isinstance(value, str | list) and not value):
        raise InvalidRequestError(f"takes a text that is not empty, or a non-empty list of {_ITEMS[place]}", place)


def _advice(key: str, known: frozenset[str], kind: RowKind) -> str:
    if key in {"stream", "url", "body", "method"}:
        return (
            "a batch has whole answers only: leave it out"
            if key == "stream"
            else "belongs to OpenAI's form, which has custom_id, method, url and body"
        )
    return advice_on(key, sorted(known), is_run=kind != "embeddings")
