"""The end of a worker: at the first signal its runs may finish, at the second they are stopped, at the third it ends at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from headrace_workers.broker_link import BrokerLink
from headrace_workers.runs.live_run import ClientRun

_IDLE_CHECK_INTERVAL = 0.1
_VACANT_TIMEOUT = 3.0
"""Seconds that a worker without runs waits for clients that have a lease on it and have not sent their runs yet."""
_LAST_WORDS = 0.2
"""Seconds for the last messages of stopped runs to be sent."""


class Shutdown:
    """Ends a worker. ``runs`` returns the present runs. ``finish`` ends the worker at once, with or without runs."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: BrokerLink,
        runs: Callable[[], Iterable[ClientRun]],
        finish: Callable[[], None],
    ) -> None:
        self.has_begun = False
        self._loop = loop
        self._link = link
        self._runs = runs
        self._finish = finish
        self._is_ending = False
        self._idle_since: float | None = None

    def signalled(self) -> None:
        """The worker got a signal to end."""
        if self._is_ending:
            self._finish()
        elif self.has_begun:
            self._stop_runs()
        else:
            self.has_begun = True
            self._link.leave()
            self._end_when_idle()

    def _stop_runs(self) -> None:
        self._is_ending = True
        for run in list(self._runs()):
            run.stop("its worker was stopped before the run had finished")
        self._loop.call_later(_LAST_WORDS, self._finish)

    def _end_when_idle(self) -> None:
        """End the worker when it has no run, and no client holds a lease on it."""
        now = time.monotonic()
        if any(True for _ in self._runs()):
            self._idle_since = None
        else:
            since = self._idle_since = self._idle_since or now
            if self._link.is_vacated or now - since >= _VACANT_TIMEOUT:
                self._finish()
                return
            self._link.beat()
        self._loop.call_later(_IDLE_CHECK_INTERVAL, self._end_when_idle)
