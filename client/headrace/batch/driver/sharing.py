"""Sharing: rows that wait for the answer of an equal row, which runs now (``dedupe``). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.batch.row import Row


class Sharing:
    """The hashes of the rows that run, and the rows that wait for their answers."""

    def __init__(self) -> None:
        self.waiting = 0
        """How many rows wait for the answer of another row."""
        self._leaders: dict[bytes, tuple[int, list[Row]]] = {}
        """Hash → the number of the row that runs, and the rows that wait for its answer."""

    def joins(self, row: Row) -> bool:
        """Return whether an equal row runs, so that ``row`` now waits for its answer. If not, ``row`` is to be run.

        The row that runs may be run again: it does not wait for itself.
        """
        leader, followers = self._leaders.setdefault(row.hash, (row.number, []))
        if leader == row.number:
            return False
        followers.append(row)
        self.waiting += 1
        return True

    def ended(self, row: Row) -> Sequence[Row]:
        """Return the rows that waited for the answer of ``row``."""
        _, followers = self._leaders.pop(row.hash, (0, ()))
        self.waiting -= len(followers)
        return followers
