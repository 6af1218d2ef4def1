"""All sinks of one engine: each in a thread of its own, so that none delays another, or the collector."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from headrace.settings.settings import SinkConfig
from headrace.wire.engine_status import SinkStatus
from headrace_engine.spans.sinks.sink_thread import SinkThread


class Sinks:
    """The sinks of one slot's database files. Spans that are stored already are sent too, the oldest first."""

    def __init__(self, slot: Path, sinks: Mapping[str, SinkConfig]) -> None:
        self._threads = [SinkThread(name, config, slot, os.environ) for name, config in sinks.items()]

    def start(self) -> None:
        """Begin sending."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Spans were stored."""
        for thread in self._threads:
            thread.wake()

    def statuses(self) -> list[SinkStatus]:
        """Return how the sinks are, as of a moment ago. Reads and waits for nothing."""
        return [thread.status for thread in self._threads]

    def is_caught_up(self, marks: Mapping[Path, int]) -> bool:
        """Return whether every sink has dealt with the rows up to ``marks``, the highest row number of each file.

        A sink that cannot work at all is not asked: waiting for it would be of no use, and its status says what it lacks.
        """
        return all(thread.is_caught_up(marks) for thread in self._threads)

    def close(self, timeout: float) -> None:
        """Send what is left within ``timeout`` seconds, and end. The next start goes on where this one came to. May be called twice."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.end(deadline)
        for thread in self._threads:
            thread.join()
