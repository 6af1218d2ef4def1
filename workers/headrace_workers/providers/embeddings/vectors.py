"""Reads the vectors of an embeddings response; what all wire formats that have embeddings share.

Pure: bytes in, vectors out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import msgspec

from headrace.types import Usage
from headrace_workers.providers.embeddings.arriving_vectors import vector_at
from headrace_workers.providers.embeddings.packed_vectors import packed
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.answer_limits import weigh
from headrace_workers.providers.shared.lenient_json import UNREADABLE
from headrace_workers.providers.shared.provider_errors import is_error, protocol_failure, request_failure
from headrace_workers.providers.shared.usage_counts import read_usage
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderFailure

_MAX_QUOTED = 500
"""Characters of a response that an error quotes."""


class Embeddings(msgspec.Struct, frozen=True):
    """One vector per input, in the order of the inputs.

    The vectors of a large response are MessagePack (``Raw``). ``model`` is empty where the provider does not name the
    model.
    """

    vectors: list[list[float]] | list[msgspec.Raw]
    usage: Usage
    model: str


ReadingSteps = Generator[None, None, Embeddings]
"""Reads a response in steps. Between two steps the event loop may do other work."""

ReadEmbeddings = Callable[[bytes, int, Sequence[msgspec.Raw]], ReadingSteps]
"""Reads a response body. Takes the body, the number of texts, and the vectors that were taken out of the body as it
arrived."""


def check_inputs(inputs: list[str], dimensions: int | None) -> None:
    """Raise ProviderFailedError (``invalid_request``) where a text is empty, or ``dimensions`` is not positive."""
    if not inputs:
        raise request_failure("there is nothing to embed: the list is empty", "input")
    for place, text in enumerate(inputs):
        if not text:
            raise request_failure("is empty; embeddings take text", f"input[{place}]")
    if dimensions is not None and dimensions < 1:
        raise request_failure(f"takes a positive number, not {dimensions}", "dimensions")


def usage_in(said: Any) -> Usage:
    """Return the token counts of a ``usage`` object; zeros where there is no such object."""
    return read_usage(said, is_final=True) if isinstance(said, dict) else Usage()


def packed_rows(rows: list[msgspec.Raw], arrived: Sequence[msgspec.Raw]) -> Generator[None, None, list[msgspec.Raw]]:
    """Pack the vectors, one in each step: the longest possible vector takes up to 40 ms."""
    vectors = []
    for row in rows:
        yield
        try:
            vectors.append(vector_at(row, arrived) or packed(row))
        except ValueError:
            raise protocol_failure("an embedding is neither a list of numbers nor base64 of floats") from None
    return vectors


def small_failure(body: bytes, read: Callable[[Any], ProviderFailure]) -> ProviderFailedError:
    """Return the error for a small body without vectors. ``read`` reads the provider's error object."""
    whole = _object(body)
    return ProviderFailedError(read(whole)) if is_error(whole) else _no_embeddings(body)


def large_failure(body: bytes, read: Callable[[Any], ProviderFailure]) -> Generator[None, None, ProviderFailedError]:
    """Return the error for a large body without vectors, in two steps.

    Raises LimitError for a body with too many values.
    """
    weigh(body)
    yield
    return small_failure(body, read)


def _object(body: bytes) -> dict[str, Any]:
    try:
        whole = msgspec.json.decode(body)
    except UNREADABLE:
        return {}
    return whole if isinstance(whole, dict) else {}


def _no_embeddings(body: bytes) -> ProviderFailedError:
    return protocol_failure(f"the response holds no embeddings but {failures.describe(body)[:_MAX_QUOTED]}")
