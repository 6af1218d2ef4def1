"""Embeddings of OpenAI and of servers that are compatible with it: the request, and the response.

Pure: bytes in, vectors out.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

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
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.answer_limits import weigh_vectors
from headrace_workers.providers.shared.lenient_json import UNREADABLE, as_name
from headrace_workers.providers.shared.provider_errors import protocol_failure
from headrace_workers.providers.shared.request_parts import encoded
from headrace_workers.providers.shared.wire_format import ProviderSettings

MANY = 256
"""From this number of texts on, vectors are asked for in base64, as OpenAI's own SDK does: this saves two thirds of the
bytes."""

_FLOAT_BYTES = 4
_BASE64 = ("openai", "openai-chat", "openai-responses", "azure")
"""Providers that are asked for base64. Not every compatible server knows it."""


class _RawRow(msgspec.Struct, gc=False):
    embedding: msgspec.Raw
    index: msgspec.Raw = msgspec.Raw()


class _RawBody(msgspec.Struct, gc=False):
    data: list[_RawRow]
    usage: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()


class _Row(msgspec.Struct, gc=False):
    embedding: list[float] | str
    index: Any = None


class _Body(msgspec.Struct, gc=False):
    data: list[_Row]
    usage: Any = None
    model: Any = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_raw = msgspec.json.Decoder(_RawBody).decode


def build_openai(
    settings: ProviderSettings,
    api_key: str | None,
    model: str,
    inputs: list[str],
    dimensions: int | None,
    custom_options: dict[str, Any],
) -> HttpRequest:
    """Return the request to ``/embeddings``."""
    check_inputs(inputs, dimensions)
    headers = [("content-type", "application/json"), ("accept", "application/json")]
    if api_key:
        headers.append(("authorization", f"Bearer {api_key}"))
    body: dict[str, Any] = {"model": model, "input": inputs}
    if len(inputs) >= MANY and settings.name in _BASE64:
        body["encoding_format"] = "base64"
    if dimensions is not None:
        body["dimensions"] = dimensions
    return HttpRequest(settings.url("/embeddings"), tuple(headers), encoded(body | custom_options))


def read_openai(body: bytes, texts: int = 1, arrived: Sequence[msgspec.Raw] = ()) -> ReadingSteps:
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
        raise small_failure(body, failures.failure_in_stream) from None
    order = _order([row.index for row in said.data])
    vectors = [_vector(said.data[place].embedding) for place in order]
    return Embeddings(vectors, usage_in(said.usage), as_name(said.model))


def _read_large(body: bytes, texts: int, arrived: Sequence[msgspec.Raw]) -> ReadingSteps:
    yield from size_checked(body, texts)
    try:
        said = _decode_raw(body)
    except UNREADABLE:
        said = None
    yield
    if said is None:
        raise (yield from large_failure(body, failures.failure_in_stream))
    order = _order([small_value(row.index) for row in said.data])
    vectors = yield from packed_rows([said.data[place].embedding for place in order], arrived)
    return Embeddings(vectors, usage_in(small_value(said.usage)), as_name(small_value(said.model)))


def _order(indexes: list[Any]) -> list[int]:
    """Return the places of the rows in the order of their indexes. Without valid indexes the order is kept."""
    places = range(len(indexes))
    if sorted(index for index in indexes if type(index) is int) == list(places):
        return sorted(places, key=lambda place: indexes[place])
    return list(places)


def _vector(embedding: list[float] | str) -> list[float]:
    """Return a vector as floats. It arrives as numbers, or as base64 of little-endian 4-byte floats."""
    if not isinstance(embedding, str):
        return embedding
    try:
        data = base64.b64decode(embedding, validate=True)
        return list(struct.unpack(f"<{len(data) // _FLOAT_BYTES}f", data))
    except (binascii.Error, ValueError, struct.error):
        raise protocol_failure("an embedding is neither a list of numbers nor base64 of floats") from None
