"""Embeddings of Google, ``batchEmbedContents``: the request, and the response. Pure: bytes in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from headrace.types import Usage
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.embeddings.packed_vectors import SMALL, size_checked, small_value
from headrace_workers.providers.embeddings.vectors import (
    Embeddings,
    ReadingSteps,
    check_inputs,
    large_failure,
    packed_rows,
    small_failure,
    usage_in,
)
from headrace_workers.providers.google import errors as google_errors
from headrace_workers.providers.google.request import API_VERSION
from headrace_workers.providers.shared.answer_limits import weigh_vectors
from headrace_workers.providers.shared.lenient_json import UNREADABLE
from headrace_workers.providers.shared.request_parts import encoded
from headrace_workers.providers.shared.wire_format import ProviderSettings


class _RawRow(msgspec.Struct, gc=False):
    values: msgspec.Raw


class _RawBody(msgspec.Struct, gc=False):
    embeddings: list[_RawRow]
    usage: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="usageMetadata")


class _Row(msgspec.Struct, gc=False):
    values: list[float]


class _Body(msgspec.Struct, gc=False):
    embeddings: list[_Row]
    usage: Any = msgspec.field(default=None, name="usageMetadata")


_decode = msgspec.json.Decoder(_Body).decode
_decode_raw = msgspec.json.Decoder(_RawBody).decode


def build_google(
    settings: ProviderSettings,
    api_key: str | None,
    model: str,
    inputs: list[str],
    dimensions: int | None,
    custom_options: dict[str, Any],
) -> HttpRequest:
    """Return the request to ``:batchEmbedContents``. Custom options (``taskType``, ``title``) go into each part."""
    check_inputs(inputs, dimensions)
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


def read_google(body: bytes, texts: int = 1, arrived: Sequence[msgspec.Raw] = ()) -> ReadingSteps:
    """Read a response with status 200, in steps.

    ``texts`` is the number of texts in the request. ``arrived`` are vectors that were taken out of the body as it
    arrived. Raises ProviderFailedError where the body is an error or holds no vectors, LimitError where it holds much
    more than the vectors of these texts.
    """
    if len(body) > SMALL or arrived:
        return (yield from _read_large(body, texts, arrived))
    weigh_vectors(body)
    try:
        said = _decode(body)
    except UNREADABLE:
        raise small_failure(body, google_errors.failure_in_stream) from None
    return Embeddings([row.values for row in said.embeddings], _usage(said.usage), "")


def _read_large(body: bytes, texts: int, arrived: Sequence[msgspec.Raw]) -> ReadingSteps:
    yield from size_checked(body, texts)
    try:
        said = _decode_raw(body)
    except UNREADABLE:
        said = None
    yield
    if said is None:
        raise (yield from large_failure(body, google_errors.failure_in_stream))
    vectors = yield from packed_rows([row.values for row in said.embeddings], arrived)
    return Embeddings(vectors, _usage(small_value(said.usage)), "")


def _usage(said: Any) -> Usage:
    if not isinstance(said, dict):
        return Usage()
    return usage_in({"prompt_tokens": said.get("promptTokenCount"), "total_tokens": said.get("totalTokenCount")})
