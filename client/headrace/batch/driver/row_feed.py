"""RowFeed: the rows that a batch job starts next: rows to run again first, then the input, as far as it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol, runtime_checkable

from headrace.batch.driver.read_ahead import ReadAhead
from headrace.batch.driver.selection import Selection
from headrace.batch.row import BadRow, Row


@runtime_checkable
class NumberedRows(Protocol):
    """An input that can skip rows without reading them as rows."""

    def numbered(self, numbers: Iterable[int]) -> Iterator[Row | BadRow]:
        """Yield the rows with these numbers, which must ascend."""


@runtime_checkable
class BlockingRows(Protocol):
    """An input whose next row may take long: it is read in a thread of its own."""

    may_block: bool


class RowFeed:
    """The rows to start. ``waiting``: the numbers of the rows that have no record, ascending; None: all rows."""

    def __init__(self, rows: Iterable[Row | BadRow], selection: Selection, waiting: Iterator[int] | None) -> None:
        self._rows = _chosen(rows, selection, waiting)
        self._ahead = ReadAhead(self._rows) if isinstance(rows, BlockingRows) and rows.may_block else None
        self._again: deque[Row] = deque()
        self._has_ended = False
        self._error: BaseException | None = None
        """What the input has raised, behind rows that were read before."""

    @property
    def is_empty(self) -> bool:
        """Whether no row is left. Known only after :meth:`take` has returned fewer rows than it was asked for."""
        return self._has_ended and not self._again and self._error is None

    @property
    def is_slow(self) -> bool:
        """Whether the input may have further rows at any time."""
        return self._ahead is not None and not self._has_ended

    def take(self, count: int, *, reads_on: bool = True, patience: float = 0.0) -> list[Row | BadRow]:
        """Return the next rows, at most ``count``.

        What the input raises is raised after the rows before it were returned; then the input counts as ended.
        ``reads_on`` False: only rows that run again. ``patience``: seconds to wait for the first row of a slow input.
        """
        taken: list[Row | BadRow] = []
        while self._again and len(taken) < count:
            taken.append(self._again.popleft())
        if self._ahead is not None:
            if reads_on and not self._has_ended and len(taken) < count:
                taken += self._ahead.take(count - len(taken), 0.0 if taken else patience)
                if self._ahead.has_ended:
                    self._has_ended, self._error = True, self._ahead.error
        elif reads_on and not self._has_ended and len(taken) < count:
            try:
                taken.extend(islice(self._rows, count - len(taken)))  # keeps the rows before an error
            except Exception as error:  # noqa: BLE001 - it is raised by the next call
                self._error = error
            self._has_ended = len(taken) < count
        if not taken and self._error is not None:
            raised, self._error = self._error, None
            raise raised
        return taken

    def put_back(self, row: Row) -> None:
        """Let a row run again."""
        self._again.append(row)

    def close(self) -> None:
        """Close the input. Rows that are to run again are still returned."""
        self._has_ended = True
        if self._ahead is not None:
            self._ahead.close()
            return
        close = getattr(self._rows, "close", None)
        if close is not None:
            close()


def _chosen(
    rows: Iterable[Row | BadRow], selection: Selection, waiting: Iterator[int] | None
) -> Iterator[Row | BadRow]:
    if waiting is not None:
        return _numbered(rows, waiting if selection.is_whole else selection.among(waiting))
    if selection.numbers is not None:
        return _numbered(rows, iter(selection.numbers))
    return islice(rows, selection.first)


def _numbered(rows: Iterable[Row | BadRow], numbers: Iterator[int]) -> Iterator[Row | BadRow]:
    """Yield the rows with these numbers. Ends after the last one: a further row may take a while to come."""
    if isinstance(rows, NumberedRows):
        yield from rows.numbered(numbers)
        return
    number = next(numbers, None)
    if number is None:
        return
    for row in rows:
        if row.number == number:
            yield row
            if (number := next(numbers, None)) is None:
                return
