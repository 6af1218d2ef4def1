"""Runs all sinks of one engine, each in its own thread. A slow sink delays neither another sink nor the collector."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from headrace.settings.settings import SinkConfig
from headrace.wire.engine_status import SinkStatus
from headrace_engine.spans.sinks.sink_thread import SinkThread


class Sinks:
    """The sinks that send the spans of one slot. Spans that were stored before are sent too, the oldest first."""

    def __init__(self, slot: Path, sinks: Mapping[str, SinkConfig]) -> None:
        self._threads = [SinkThread(name, config, slot, os.environ) for name, config in sinks.items()]

    def start(self) -> None:
        """Begin sending."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look for new spans: some were stored."""
        for thread in self._threads:
            thread.wake()

    def statuses(self) -> list[SinkStatus]:
        """Return the state of each sink, as it was a moment ago. Does not wait, and reads no file."""
        return [thread.status for thread in self._threads]

    def is_caught_up(self, marks: Mapping[Path, int]) -> bool:
        """Return whether every sink is done with the rows up to ``marks`` (file → row number).

        A sink that cannot work does not count: nobody should wait for it. Its status says what it needs.
        """
        return all(thread.is_caught_up(marks) for thread in self._threads)

    def close(self, timeout: float) -> None:
        """Send spans for at most ``timeout`` seconds, then end. The next start goes on from there. May be called twice."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.end(deadline)
        for thread in self._threads:
            thread.join()
