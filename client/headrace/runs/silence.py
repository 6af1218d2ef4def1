"""Decides when a silent run's worker is asked whether it has the run, and when the worker is treated as lost. Pure."""

from __future__ import annotations

from typing import Literal

QUERY_AFTER = 15.0
"""Seconds without any event of a run, after which its worker is asked whether it has the run. Asked again as often."""
QUERY_TIMEOUT = 10.0
"""Seconds that the worker has for its answer. A worker with a stuck loop is found sooner, by its missing
heartbeats."""


class Silence:
    """How long nothing has come from the worker of one run. Each attempt of the run has its own."""

    __slots__ = ("_asked_at", "_event_count", "_since")

    def __init__(self) -> None:
        self._event_count = 0
        self._since: float | None = None
        self._asked_at: float | None = None

    def answered(self) -> None:
        """The worker has the run: the silence counts from the question on."""
        self._since, self._asked_at = self._asked_at, None

    def check(self, event_count: int, now: float) -> Literal["ask", "lost"] | None:
        """Return what to do now. ``event_count``: how many events of the run have arrived."""
        if self._since is None or event_count != self._event_count:
            self._event_count, self._since, self._asked_at = event_count, now, None
        elif self._asked_at is not None:
            if now >= self._asked_at + QUERY_TIMEOUT:
                return "lost"
        elif now >= self._since + QUERY_AFTER:
            self._asked_at = now
            return "ask"
        return None
