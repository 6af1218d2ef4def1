"""Reads records back: their id and their figures, or the whole result. Pure."""

from __future__ import annotations

import msgspec

from headrace.errors import HeadraceError
from headrace.types import RunEmbeddingResult, RunLocalResult


class RecordHead(msgspec.Struct, frozen=True):
    """What a journal needs of a record.

    ``number``: the row's, 0 if the record was not written by Headrace. ``cost`` in US dollars, None if not known.
    """

    id: str
    number: int
    is_failure: bool
    cost: float | None
    input_tokens: int
    output_tokens: int


def read_head(line: bytes) -> RecordHead | None:
    """Return the head of a record. None: the line is no record, or is torn."""
    raise NotImplementedError


def read_result(line: bytes) -> RunLocalResult | RunEmbeddingResult | HeadraceError:
    """Return the result or the error of a record, as far as the record has its fields.

    ``message`` has text and tool calls only: what a provider needs back (signatures) is not in records.
    Raises BatchInputError if the line is no record.
    """
    raise NotImplementedError
