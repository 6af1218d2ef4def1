"""Embeddings: the requests and responses of OpenAI-shaped servers and of Google. Pure: bytes in, vectors out.

Errors with another status than 200 are those of the provider's wire format (``ProviderApi.read_error``).
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Generator, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from headrace.types import Usage
from headrace_workers.http.request import HttpRequest
from headrace_workers.providers.embeddings.arriving_vectors import vector_at
from headrace_workers.providers.embeddings.packed_vectors import SMALL, packed, size_checked, small_value
from headrace_workers.providers.google import errors as google_errors
from headrace_workers.providers.google.request import API_VERSION
from headrace_workers.providers.openai_chat.chunks import read_usage
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.answer_limits import weigh, weigh_vectors
from headrace_workers.providers.shared.lenient_json import UNREADABLE, as_name
from headrace_workers.providers.shared.provider_errors import is_error, protocol_failure, request_failure
from headrace_workers.providers.shared.request_parts import encoded
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderFailure, ProviderSettings

_FLOAT_BYTES = 4
MANY = 256
"""Texts from which on their vectors are asked for in base64, as OpenAI's own SDK does: a third of the bytes."""
_BASE64 = ("openai", "openai-responses", "azure")


class Embeddings(msgspec.Struct, frozen=True):
    """One vector per input, in the order of the inputs. ``model`` is empty where the provider does not name it."""

    vectors: list[list[float]] | list[msgspec.Raw]
    """Those of a large answer as MessagePack."""
    usage: Usage
    model: str


class _RawRow(msgspec.Struct, gc=False):
    embedding: msgspec.Raw
    index: msgspec.Raw = msgspec.Raw()


class _RawOpenAIBody(msgspec.Struct, gc=False):
    data: list[_RawRow]
    usage: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()


class _RawGoogleRow(msgspec.Struct, gc=False):
    values: msgspec.Raw


class _RawGoogleBody(msgspec.Struct, gc=False):
    embeddings: list[_RawGoogleRow]
    usage: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="usageMetadata")


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


Reading = Generator[None, None, Embeddings]
"""Reads an answer step by step: after each there may be another turn of the loop."""

Read = Callable[[bytes, int, Sequence[msgspec.Raw]], Reading]
"""Reads the body of an answer to so many texts, out of which vectors may have been taken as it came."""

_decode_openai = msgspec.json.Decoder(_OpenAIBody).decode
_decode_google = msgspec.json.Decoder(_GoogleBody).decode
_decode_raw_openai = msgspec.json.Decoder(_RawOpenAIBody).decode
_decode_raw_google = msgspec.json.Decoder(_RawGoogleBody).decode


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
    if len(inputs) >= MANY and settings.name in _BASE64:
        body["encoding_format"] = "base64"
    if dimensions is not None:
        body["dimensions"] = dimensions
    return HttpRequest(settings.url("/embeddings"), tuple(headers), encoded(body | custom_options))


def read_openai(body: bytes, texts: int = 1, arrived: Sequence[msgspec.Raw] = ()) -> Reading:
    """Map a response with status 200, step by step; raise ProviderFailedError where it is an error or none of ours.

    ``texts`` is how many there were, ``arrived`` are vectors that were taken out of the body as it came. Raises LimitError for an answer that holds much more than their vectors.
    """
    if len(body) > SMALL or arrived:
        return (yield from _read_large_openai(body, texts, arrived))
    weigh_vectors(body)
    try:
        said = _decode_openai(body)
    except UNREADABLE:
        whole = _object(body)
        if is_error(whole):
            raise ProviderFailedError(failures.failure_in_stream(whole)) from None
        raise _is_none(body) from None
    order = _order([row.index for row in said.data])
    return Embeddings([_vector(said.data[place].embedding) for place in order], _usage(said.usage), as_name(said.model))


def _read_large_openai(body: bytes, texts: int, arrived: Sequence[msgspec.Raw]) -> Reading:
    yield from size_checked(body, texts)
    try:
        said = _decode_raw_openai(body)
    except UNREADABLE:
        said = None
    yield
    if said is None:
        raise (yield from _large_failure(body, failures.failure_in_stream))
    order = _order([small_value(row.index) for row in said.data])
    vectors = yield from _packed([said.data[place].embedding for place in order], arrived)
    return Embeddings(vectors, _usage(small_value(said.usage)), as_name(small_value(said.model)))


def _order(indexes: list[Any]) -> list[int]:
    """Return the places of rows in the order of their indexes. Not every server counts; those that do not keep the order."""
    places = range(len(indexes))
    if sorted(index for index in indexes if type(index) is int) == list(places):
        return sorted(places, key=lambda place: indexes[place])
    return list(places)


def _usage(said: Any) -> Usage:
    return read_usage(said, is_final=True) if isinstance(said, dict) else Usage()


def _packed(rows: list[msgspec.Raw], arrived: Sequence[msgspec.Raw]) -> Generator[None, None, list[msgspec.Raw]]:
    """Pack the vectors, each in a step: one of as many numbers as it may have takes up to 40 ms."""
    vectors = []
    for row in rows:
        yield
        try:
            vectors.append(vector_at(row, arrived) or packed(row))
        except ValueError:
            raise protocol_failure("an embedding is neither a list of numbers nor base64 of floats") from None
    return vectors


def _large_failure(body: bytes, read: Callable[[Any], ProviderFailure]) -> Generator[None, None, ProviderFailedError]:
    """Return why a large body holds no vectors."""
    weigh(body)
    yield
    whole = _object(body)
    return ProviderFailedError(read(whole)) if is_error(whole) else _is_none(body)


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


def read_google(body: bytes, texts: int = 1, arrived: Sequence[msgspec.Raw] = ()) -> Reading:
    """Map a response with status 200 as :func:`read_openai` does."""
    if len(body) > SMALL or arrived:
        return (yield from _read_large_google(body, texts, arrived))
    weigh_vectors(body)
    try:
        said = _decode_google(body)
    except UNREADABLE:
        whole = _object(body)
        if is_error(whole):
            raise ProviderFailedError(google_errors.failure_in_stream(whole)) from None
        raise _is_none(body) from None
    return Embeddings([row.values for row in said.embeddings], _google_usage(said.usage), "")


def _read_large_google(body: bytes, texts: int, arrived: Sequence[msgspec.Raw]) -> Reading:
    yield from size_checked(body, texts)
    try:
        said = _decode_raw_google(body)
    except UNREADABLE:
        said = None
    yield
    if said is None:
        raise (yield from _large_failure(body, google_errors.failure_in_stream))
    vectors = yield from _packed([row.values for row in said.embeddings], arrived)
    return Embeddings(vectors, _google_usage(small_value(said.usage)), "")


def _google_usage(said: Any) -> Usage:
    if not isinstance(said, dict):
        return Usage()
    return _usage({"prompt_tokens": said.get("promptTokenCount"), "total_tokens": said.get("totalTokenCount")})


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
