"""Counts the runs whose spans nobody keeps, because the data directory cannot be used. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from headrace.wire.engine_status import ProcessStatus, SpanStatus

NOT_KEPT = "not_kept"
"""Why these spans are dropped."""
STATE = "not kept"


class Unkept:
    """Runs since the broker's start, and why their spans are lost."""

    def __init__(self) -> None:
        self.count = 0
        self._reason = ""
        # Runs that got a lease before the supervisor had told whether spans are kept; None since it has.
        self._untold: int | None = 0
        # Workers that were started without a place for spans, and serve on after there is one.
        self._without: frozenset[int] = frozenset()

    def reported(self, processes: Sequence[ProcessStatus], workers: Collection[int]) -> None:
        """The supervisor told of its processes; ``workers`` are the epochs of the workers that serve."""
        before = self._reason
        off = [process.reason for process in processes if process.name == "collector" and process.state == "off"]
        self._reason = off[0] if off else ""
        if self._reason:
            self.count += self._untold or 0
        self._untold = None
        if before and not self._reason:
            self._without = frozenset(workers)

    def granted(self, epoch: int) -> None:
        """A run that wants a span got a lease on a worker."""
        if self._untold is not None:
            self._untold += 1
        elif self._reason or epoch in self._without:
            self.count += 1

    def status(self, spans: SpanStatus | None) -> SpanStatus | None:
        """Return what the collector says, with what is lost without it."""
        dropped = {NOT_KEPT: self.count} if self.count else {}
        if self._reason:
            return SpanStatus("", STATE, dropped=dropped, error=self._reason)
        if spans is None or not dropped:
            return spans
        return msgspec.structs.replace(spans, dropped={**spans.dropped, **dropped})
