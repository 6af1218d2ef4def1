"""Suspects: rows that were refused because workers died with them. Each is run again at the end, alone. Pure.

When a worker dies, all rows on it are suspected, and one of them may be guilty. A row that is refused for its second
death may be an innocent one. Alone, a row hurts no other row, and what happens to it is its own doing.
"""

from __future__ import annotations

from headrace.batch.row import Row
from headrace.errors import PoisonRunError

_ENOUGH = 10
"""Guilty rows, one after another, after which the rest counts as guilty too: each of them costs the engine workers."""


class Suspects:
    """Rows that wait for the end of the job, with the error that each had."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[Row, PoisonRunError]] = {}
        self._tried: set[int] = set()
        self._guilty = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row, error: PoisonRunError) -> bool:
        """Keep a row for later. Returns False if it was tried alone already: then it is guilty."""
        if row.number in self._tried:
            self._guilty += 1
            return False
        self._rows[row.number] = (row, error)
        return True

    def acquit(self, row: Row) -> None:
        """A row has ended in another way."""
        if row.number in self._tried:
            self._guilty = 0

    def next(self) -> Row | None:
        """Return a row to run alone; None if there is none, or if the rest counts as guilty."""
        if not self._rows or self._guilty >= _ENOUGH:
            return None
        row, _ = self._rows.pop(next(iter(self._rows)))
        self._tried.add(row.number)
        return row

    def convicted(self) -> list[tuple[Row, PoisonRunError]]:
        """Return the rows that are not tried alone any more, and forget them."""
        rows, self._rows = list(self._rows.values()), {}
        return rows
