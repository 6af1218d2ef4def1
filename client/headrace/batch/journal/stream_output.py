"""StreamOutput: copies the successes of a batch job to a stream as they are recorded, such as the standard output."""

from __future__ import annotations

from typing import Protocol

from headrace.batch.journal.journal import Journal


class ByteSink(Protocol):
    """What bytes can be written to."""

    def write(self, data: bytes, /) -> object:
        """Write all bytes."""

    def flush(self) -> object:
        """Pass on what was written."""


class StreamOutput:
    """Copies the records of successes to a stream: each once, and those of earlier starts first.

    With ``is_ordered`` (of the journal's files) a record waits for the records of all rows before it.
    """

    def __init__(self, journal: Journal, sink: ByteSink) -> None:
        raise NotImplementedError

    def advance(self) -> int:
        """Write the records that can be written now, and return how many. Raises what the stream raises."""
        raise NotImplementedError

    def finish(self) -> int:
        """Write all records that are left, also those behind rows without a record. Return how many."""
        raise NotImplementedError
