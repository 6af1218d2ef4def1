"""What the supervisor and the collector have reported to the broker: the processes of the engine, and its spans.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec

from headrace.wire.engine_status import ProcessStatus, SpanStatus
from headrace_engine.broker.unstored_spans import UnstoredSpans


class EngineReports:
    """The last report of each of them."""

    def __init__(self) -> None:
        self.processes: list[ProcessStatus] = []
        """The processes, as the supervisor sees them; none before its first report."""
        self._unstored = UnstoredSpans()
        self._spans: SpanStatus | None = None
        self._spans_at = 0.0

    @property
    def keeps_spans(self) -> bool:
        """Whether the engine stores spans, as far as is known. Before the first report it may."""
        return not self.processes or any(known.name == "collector" and known.state != "off" for known in self.processes)

    @property
    def is_worker_starting(self) -> bool:
        """Whether a worker starts for the first time.

        One that takes too long is ended, and its second start does not count.
        """
        return any(
            process.epoch and process.pid and not process.has_served and not process.restarts
            for process in self.processes
        )

    def processes_reported(self, processes: list[ProcessStatus], serving: Collection[int]) -> None:
        """The supervisor says which processes there are.

        ``serving`` are the epochs of the workers that are connected.
        """
        self.processes = processes
        self._unstored.reported(processes, serving)

    def spans_reported(self, spans: SpanStatus, now: float) -> None:
        """The collector says what became of the spans."""
        self._spans, self._spans_at = spans, now

    def granted(self, epoch: int, count: int = 1) -> None:
        """So many runs that want a span have got their first lease, on the worker with this epoch."""
        self._unstored.granted(epoch, count)

    def running_workers(self) -> dict[int, bool]:
        """Return the epochs of the workers that run, and whether a broker has heard of them before."""
        return {process.epoch: process.has_served for process in self.processes if process.epoch}

    def failed_workers(self) -> Iterator[str]:
        """Yield which workers have ended, and how."""
        for process in self.processes:
            if process.pid is None and process.reason and process.name not in ("broker", "collector"):
                yield f"{process.name} ended with {process.reason}"

    def worker_pid(self, epoch: int) -> int:
        """Return the pid of a worker; 0 if the supervisor has not reported it."""
        return next((process.pid or 0 for process in self.processes if process.epoch == epoch), 0)

    def worker_name(self, epoch: int) -> str:
        """Return the name of a worker; empty if the supervisor has not reported it."""
        return next((process.name for process in self.processes if process.epoch == epoch), "")

    def span_status(self, now: float) -> SpanStatus | None:
        """Return what the collector has reported, and how many spans are not stored; ``None`` if nothing is known."""
        spans = self._spans
        if spans is not None:
            spans = msgspec.structs.replace(spans, age=now - self._spans_at)
        return self._unstored.status(spans)
