"""Embeddings: the requests and responses of OpenAI-shaped servers and of Google. Pure: bytes in, vectors out.

Errors with another status than 200 are those of the provider's wire format (``ProviderApi.read_error``).
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any
from urllib.parse import quote

import msgspec

from headrace.types import Usage
from headrace_workers.providers import failures, google_errors
from headrace_workers.providers.failures import is_error, protocol_failure, request_failure
from headrace_workers.providers.google_request import API_VERSION
from headrace_workers.providers.lenient import UNREADABLE, as_text
from headrace_workers.providers.openai_chunks import read_usage
from headrace_workers.providers.protocol import HttpRequest, ProviderFailedError, ProviderSettings
from headrace_workers.providers.request_parts import encoded

_FLOAT_BYTES = 4


class Embeddings(msgspec.Struct, frozen=True):
    """One vector per input, in the order of the inputs. ``model`` is empty where the provider does not name it."""

    vectors: list[list[float]]
    usage: Usage
    model: str


class _Row(msgspec.Struct, gc=False):
    embedding: list[float] | str
    index: Any = None


class _OpenAIBody(msgspec.Struct, gc=False):
    data: list[_Row]
    usage: Any = None
    model: Any = None


class _GoogleRow(msgspec.Struct, gc=False):
    values: list[float]


class _GoogleBody(msgspec.Struct, gc=False):
    embeddings: list[_GoogleRow]
    usage: Any = msgspec.field(default=None, name="usageMetadata")


_decode_openai = msgspec.json.Decoder(_OpenAIBody).decode
_decode_google = msgspec.json.Decoder(_GoogleBody).decode


def build_openai(
    settings: ProviderSettings,
    api_key: str | None,
    model: str,
    inputs: list[str],
    dimensions: int | None,
    custom_options: dict[str, Any],
) -> HttpRequest:
    """Return the request to ``/embeddings``."""
    _check(inputs, dimensions)
    headers = [("content-type", "application/json"), ("accept", "application/json")]
    if api_key:
        headers.append(("authorization", f"Bearer {api_key}"))
    body: dict[str, Any] = {"model": model, "input": inputs}
    if dimensions is not None:
        body["dimensions"] = dimensions
    return HttpRequest(settings.url("/embeddings"), tuple(headers), encoded(body | custom_options))


def read_openai(body: bytes) -> Embeddings:
    """Map a response with status 200; raise ProviderFailedError where it is an error or none of ours."""
    try:
        said = _decode_openai(body)
    except UNREADABLE:
        whole = _object(body)
        if is_error(whole):
            raise ProviderFailedError(failures.failure_in_stream(whole)) from None
        raise _is_none(body) from None
    rows = said.data
    if sorted(row.index for row in rows if type(row.index) is int) == list(range(len(rows))):
        rows.sort(key=lambda row: row.index)  # not every server counts; those that do not keep the order
    usage = read_usage(said.usage, is_final=True) if isinstance(said.usage, dict) else Usage()
    return Embeddings([_vector(row.embedding) for row in rows], usage, as_text(said.model))


def build_google(
    settings: ProviderSettings,
    api_key: str | None,
    model: str,
    inputs: list[str],
    dimensions: int | None,
    custom_options: dict[str, Any],
) -> HttpRequest:
    """Return the request to ``:batchEmbedContents``; custom options (``taskType``, ``title``) go into each of its parts."""
    _check(inputs, dimensions)
    headers = [("content-type", "application/json")]
    if api_key:
        headers.append(("x-goog-api-key", api_key))
    name = model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"
    shared: dict[str, Any] = {"model": name}
    if dimensions is not None:
        shared["outputDimensionality"] = dimensions
    requests = [{**shared, "content": {"parts": [{"text": text}]}, **custom_options} for text in inputs]
    url = settings.url(f"/{API_VERSION}/{quote(name, safe='/')}:batchEmbedContents")
    return HttpRequest(url, tuple(headers), encoded({"requests": requests}))


def read_google(body: bytes) -> Embeddings:
    """Map a response with status 200; raise ProviderFailedError where it is an error or none of ours."""
    try:
        said = _decode_google(body)
    except UNREADABLE:
        whole = _object(body)
        if is_error(whole):
            raise ProviderFailedError(google_errors.failure_in_stream(whole)) from None
        raise _is_none(body) from None
    usage = Usage()
    if isinstance(said.usage, dict):
        figures = {
            "prompt_tokens": said.usage.get("promptTokenCount"),
            "total_tokens": said.usage.get("totalTokenCount"),
        }
        usage = read_usage(figures, is_final=True)
    return Embeddings([row.values for row in said.embeddings], usage, "")


def _check(inputs: list[str], dimensions: int | None) -> None:
    if not inputs:
        raise request_failure("there is nothing to embed: the list is empty", "input")
    for place, text in enumerate(inputs):
        if not text:
            raise request_failure("is empty; embeddings take text", f"input[{place}]")
    if dimensions is not None and dimensions < 1:
        raise request_failure(f"takes a positive number, not {dimensions}", "dimensions")


def _vector(embedding: list[float] | str) -> list[float]:
    """Return a vector that came as numbers, or as the base64 of little-endian floats."""
    if not isinstance(embedding, str):
        return embedding
    try:
        data = base64.b64decode(embedding, validate=True)
        return list(struct.unpack(f"<{len(data) // _FLOAT_BYTES}f", data))
    except (binascii.Error, ValueError, struct.error):
        raise protocol_failure("an embedding is neither a list of numbers nor base64 of floats") from None


def _object(body: bytes) -> dict[str, Any]:
    try:
        whole = msgspec.json.decode(body)
    except UNREADABLE:
        return {}
    return whole if isinstance(whole, dict) else {}


def _is_none(body: bytes) -> ProviderFailedError:
    return protocol_failure(f"the response holds no embeddings but {failures.describe(body)[:500]}")
