"""Hashes everything about a row that shapes its answer: rows with the same hash may share one answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from headrace.batch.plain_objects import plain_object
from headrace.errors import InvalidRequestError
from headrace.runs.typed_answer import typed_answer_of

HASH_BYTES = 16
_NOT_ENCODED = (TypeError, ValueError, OverflowError, RecursionError)
NOT_SHAPING = frozenset({
    "provider_api_key", "timeout_ms", "first_chunk_timeout_ms", "idle_timeout_ms", "tags", "user_id", "session_id",
    "send_trace", "span_id", "trace_id", "parent_span_id", "priority", "on_abort", "max_retries", "hedge_after_ms",
})  # fmt: skip
"""Arguments that do not reach the model: a row keeps its hash if one of them changes."""


def _named(value: object) -> object:
    """Return what stands for a value that has no form in JSON: a function or a class is its name."""
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return plain_object(value)


_encode = msgspec.json.Encoder(order="deterministic", enc_hook=_named).encode


def canonical(value: Any) -> msgspec.Raw:
    """Return a value as it is hashed, encoded. A dict's order does not count. Raises InvalidRequestError."""
    try:
        return msgspec.Raw(_encode(value))
    except _NOT_ENCODED as error:
        raise _refused(error) from None


def canonical_type(response_type: object) -> msgspec.Raw:
    """Return a ``response_type`` as it is hashed: its schema, whatever its name. Raises InvalidRequestError."""
    return canonical(typed_answer_of(response_type).response_type.response_format["json_schema"]["schema"])


def row_hash(start: bytes, arguments: Mapping[str, Any]) -> bytes:
    """Return the hash of a row's arguments. ``start``: what else is hashed. Values may be ``canonical`` already.

    Raises InvalidRequestError for what cannot be written as JSON in UTF-8, such as half of a surrogate pair.
    """
    if not NOT_SHAPING.isdisjoint(arguments):
        arguments = {name: value for name, value in arguments.items() if name not in NOT_SHAPING}
    try:
        return blake2b(start + _encode(arguments), digest_size=HASH_BYTES).digest()
    except _NOT_ENCODED as error:
        raise _refused(error) from None


def _refused(error: Exception) -> InvalidRequestError:
    if isinstance(error, UnicodeError):
        return InvalidRequestError("the row holds text that is not UTF-8: correct it")
    if isinstance(error, RecursionError):
        return InvalidRequestError("the row is nested too deeply")
    return InvalidRequestError(f"the row cannot be sent: {error}")
