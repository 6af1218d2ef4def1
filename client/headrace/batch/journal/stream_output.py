"""StreamOutput: copies the successes of a batch job to a stream as they are recorded, such as the standard output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from headrace.batch.journal.journal import Journal
from headrace.batch.journal.record_file import joined


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
        self._journal = journal
        self._sink = sink
        self._position = 0
        """Unordered: bytes of the results that were copied. Ordered: the number of the last row that was passed."""

    def advance(self) -> None:
        """Write the records that can be written now. Raises what the stream raises; then it must not be used further."""
        self._advance(is_last=False)

    def finish(self) -> None:
        """Write all records that are left, also those behind rows without a record."""
        self._advance(is_last=True)

    def _advance(self, *, is_last: bool) -> None:
        if self._journal.files.is_ordered:
            self._copy_in_order(is_last=is_last)
        else:
            for piece in self._journal.results_since(self._position):
                self._sink.write(piece)
                self._position += len(piece)
        self._sink.flush()

    def _copy_in_order(self, *, is_last: bool) -> None:
        for piece in joined(self._lines_in_order(is_last=is_last)):
            self._sink.write(piece)

    def _lines_in_order(self, *, is_last: bool) -> Iterator[bytes]:
        for number, line in self._journal.results_in_order(self._position, is_last=is_last):
            self._position = number
            yield line
