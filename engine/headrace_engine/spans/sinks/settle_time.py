"""When a record that is not the last word may be sent on. Pure.

When a worker is lost, the broker's record of its runs, what their clients received and what lay in its spool come within moments of
each other, and each replaces the one before. A receiver that keeps the first of several spans with one id must not get the poorest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.spans.data_directory import StoredSpan
from headrace.spans.span import Rank

SETTLE_SECONDS = 2.0


class SettleTime:
    """Up to where the records of one file have had time to be replaced."""

    def __init__(self) -> None:
        self._settled = 0
        self._next = 0
        self.due: float | None = None
        """When further records will have settled; None when none is waited for."""

    def ready(self, rows: Iterable[StoredSpan], last: int, now: float) -> Iterator[StoredSpan]:
        """Yield rows up to the first that may still be replaced. ``last`` is the last row that the file has now."""
        if self.due is not None and now >= self.due:
            self._settled, self.due = self._next, None
        for row in rows:
            if row.span.rank < Rank.WORKER and row.seq > self._settled:
                if self.due is None:
                    self._next, self.due = last, now + SETTLE_SECONDS
                return
            yield row
