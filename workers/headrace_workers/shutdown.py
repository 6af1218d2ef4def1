"""A worker's way out. Told to stop, it finishes its runs; told again, it ends them with a word; told a third time, it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from headrace_workers.broker_link import BrokerLink
from headrace_workers.runs.live_run import LiveRun

_IDLE_CHECK_INTERVAL = 0.1
_VACANT_TIMEOUT = 3.0
"""Seconds that a worker without runs waits for those that have a lease on it and have not come yet."""
_FAREWELL = 0.2
"""Seconds for the last messages to be put together and sent."""


class Departure:
    """``runs`` are those that there are; ``finish`` ends the worker, whatever it still has."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: BrokerLink,
        runs: Callable[[], Iterable[LiveRun]],
        finish: Callable[[], None],
    ) -> None:
        self.has_begun = False
        self._loop = loop
        self._link = link
        self._runs = runs
        self._finish = finish
        self._is_ending = False
        self._idle_since: float | None = None

    def told(self) -> None:
        """The worker is told to stop, or told again."""
        if self._is_ending:
            self._finish()
        elif self.has_begun:
            self._end_runs()
        else:
            self.has_begun = True
            self._link.leave()
            self._look_whether_idle()

    def _end_runs(self) -> None:
        self._is_ending = True
        for run in list(self._runs()):
            run.stop("its worker was stopped before the run had finished")
        self._loop.call_later(_FAREWELL, self._finish)

    def _look_whether_idle(self) -> None:
        """End once there is no run, and no lease by which one could come."""
        now = time.monotonic()
        if any(True for _ in self._runs()):
            self._idle_since = None
        else:
            since = self._idle_since = self._idle_since or now
            if self._link.is_vacated or now - since >= _VACANT_TIMEOUT:
                self._finish()
                return
            self._link.beat()
        self._loop.call_later(_IDLE_CHECK_INTERVAL, self._look_whether_idle)
