"""Writes vectors as OpenAI's list of embeddings, and reads them back. Pure."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from headrace.types import RunEmbeddingResult

_BASE64 = "base64"


class EmbeddingItem(msgspec.Struct, frozen=True):
    """One vector, as numbers or as base64 of 32-bit floats, little-endian."""

    object: str
    index: int
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct, frozen=True, gc=False):
    """OpenAI's ``usage`` of embeddings."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True):
    """OpenAI's answer to a request for embeddings."""

    object: str
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage


def embedding_list_of(result: RunEmbeddingResult, arguments: Mapping[str, Any]) -> EmbeddingList:
    """Return the list. ``arguments``: the row's, as it says whether vectors are in base64."""
    is_packed = (arguments.get("custom_options") or {}).get("encoding_format") == _BASE64
    vectors: Sequence[list[float] | str] = result.embeddings
    if is_packed:
        vectors = [packed(vector) for vector in result.embeddings]
    data = [EmbeddingItem("embedding", index, vector) for index, vector in enumerate(vectors)]
    usage = result.usage
    return EmbeddingList("list", data, result.model, EmbeddingUsage(usage.input_tokens, usage.total_tokens))


def packed(vector: list[float]) -> str:
    """Return a vector as base64."""
    return base64.b64encode(_in_order(array("f", vector)).tobytes()).decode()


def unpacked(vector: list[float] | str) -> list[float]:
    """Return a vector as numbers. Raises ValueError if its base64 is damaged."""
    if not isinstance(vector, str):
        return vector
    numbers = array("f")
    numbers.frombytes(base64.b64decode(vector, validate=True))
    return _in_order(numbers).tolist()


def _in_order(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
