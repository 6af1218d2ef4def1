"""Decides when a span that may still be replaced is sent to a sink. Pure.

When a worker is lost, several records of the same run arrive within moments: from the broker, from the client, and from the worker's
spool. Each may replace the one before. Some receivers keep the first span of an id, so a sink waits a little for the best record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.spans.span import Rank
from headrace.spans.span_database import StoredSpan

SETTLE_SECONDS = 2.0


class SettleTime:
    """The last row of one file up to which records have had enough time to be replaced."""

    def __init__(self) -> None:
        self._settled = 0
        self._next = 0
        self.due: float | None = None
        """The time when the next records can be sent, in monotonic seconds; None if no record waits."""

    def ready(self, rows: Iterable[StoredSpan], last: int, now: float) -> Iterator[StoredSpan]:
        """Yield rows, and stop before the first row that may still be replaced. ``last``: the number of the file's last row."""
        if self.due is not None and now >= self.due:
            self._settled, self.due = self._next, None
        for row in rows:
            if row.span.rank < Rank.WORKER and row.seq > self._settled:
                if self.due is None:
                    self._next, self.due = last, now + SETTLE_SECONDS
                return
            yield row
