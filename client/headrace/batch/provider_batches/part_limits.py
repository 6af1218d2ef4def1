"""Limits of the providers' batch APIs, and the parts of rows that stay within them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from headrace.batch.provider_batches.part import RowRanges
from headrace.wire.batch_messages import BatchApiName, BatchGroup, EncodedRow

_MB = 1000 * 1000
_LINE_BYTES = 160
"""Bytes of a request in a batch beside its body: its id, its URL, braces and commas."""


class PartLimits(msgspec.Struct, frozen=True):
    """How large one batch may be, and how many batches of this kind the job keeps with the provider.

    ``requests``, ``size`` (bytes) and ``inputs`` (texts to embed) are of one batch. ``is_uploaded_from``: a batch of so
    many bytes is uploaded as a file; 0: each one; None: none.
    """

    requests: int
    size: int
    inputs: int
    batches: int
    is_uploaded_from: int | None


# A part keeps some distance from each limit: the size of a line is an estimate.
LIMITS: dict[BatchApiName, PartLimits] = {
    "openai": PartLimits(50_000, 190 * _MB, 50_000, 100, 0),
    "anthropic": PartLimits(100_000, 240 * _MB, 0, 100, None),
    "google": PartLimits(100_000, 1000 * _MB, 0, 50, 10 * _MB),
    "google-embeddings": PartLimits(100_000, 1000 * _MB, 0, 50, 10 * _MB),
    "background": PartLimits(1, 48 * _MB, 0, 1000, None),
}
"""Batch API → its limits. ``inputs`` 0: no limit."""


class OpenPart:
    """A part that still takes rows."""

    def __init__(self, group: BatchGroup, limits: PartLimits) -> None:
        self.group = group
        self.numbers = RowRanges()
        self.requests = 0
        self.size = 0
        self._inputs = 0
        self._limits = limits

    def has_room(self, row: EncodedRow) -> bool:
        """Return whether a row fits. An empty part takes any row: the provider says what it thinks of it."""
        limits = self._limits
        if not self.requests:
            return True
        return (
            self.requests + row.requests <= limits.requests
            and self.size + size_of(row) <= limits.size
            and (not limits.inputs or self._inputs + row.inputs <= limits.inputs)
        )

    def add(self, row: EncodedRow) -> None:
        """Add a row."""
        self.numbers.add(row.number)
        self.requests += row.requests
        self.size += size_of(row)
        self._inputs += row.inputs


def size_of(row: EncodedRow) -> int:
    """Return the bytes that a row takes in a batch, rather too many."""
    return row.size + row.requests * _LINE_BYTES


def needs_upload(group: BatchGroup, size: int, limits: Mapping[BatchApiName, PartLimits] = LIMITS) -> bool:
    """Return whether a batch of so many bytes is uploaded as a file before it is created."""
    least = limits[group.api].is_uploaded_from
    return least is not None and size >= least
