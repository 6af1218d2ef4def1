"""Counts the runs whose spans are not stored, because the data directory cannot be used. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from headrace.wire.engine_status import ProcessStatus, SpanStatus

NOT_KEPT = "not_kept"
"""The reason under which the status counts these spans."""
STATE = "not kept"


class UnstoredSpans:
    """Runs since the broker's start whose spans are lost, and why."""

    def __init__(self) -> None:
        self.count = 0
        self._reason = ""
        # Runs that got a lease before the supervisor's first report; None after it.
        self._unreported: int | None = 0
        # Workers that were started while spans could not be stored. They store none as long as they serve.
        self._without_spans: frozenset[int] = frozenset()

    def reported(self, processes: Sequence[ProcessStatus], workers: Collection[int]) -> None:
        """The supervisor reports its processes. ``workers`` are the epochs of the workers that are connected."""
        before = self._reason
        off = [process.reason for process in processes if process.name == "collector" and process.state == "off"]
        self._reason = off[0] if off else ""
        if self._reason:
            self.count += self._unreported or 0
        self._unreported = None
        if before and not self._reason:
            self._without_spans = frozenset(workers)

    def granted(self, epoch: int, count: int = 1) -> None:
        """So many runs that want a span got a lease on a worker."""
        if self._unreported is not None:
            self._unreported += count
        elif self._reason or epoch in self._without_spans:
            self.count += count

    def status(self, spans: SpanStatus | None) -> SpanStatus | None:
        """Return the collector's status ``spans``, with the spans that are not stored counted as dropped."""
        dropped = {NOT_KEPT: self.count} if self.count else {}
        if self._reason:
            return SpanStatus("", STATE, dropped=dropped, error=self._reason)
        if spans is None or not dropped:
            return spans
        return msgspec.structs.replace(spans, dropped={**spans.dropped, **dropped})
