"""When a worker that is well is replaced: it is old, it has grown, or somebody asked for new ones. Pure.

Rules of this file:

1. A worker is told to leave only once its replacement serves; a replacement that does not come leaves everything as it was.
2. One replacement starts at a time, and never are more workers on their way out than there are workers.
3. A worker that leaves finishes its runs, up to a timeout; then it is told to end them, and at last it is ended.
"""

from __future__ import annotations

import msgspec

START_TIMEOUT = 30.0
"""Seconds within which a replacement must serve."""
END_GRACE = 2.0
"""Seconds from telling a worker to end its runs until it is killed."""
SETTLING = 5.0
"""Seconds during which a worker's memory is not looked at: a limit below what an idle one needs must not make a loop."""
MAX_FAILURES = 3
"""Replacements that fail in a row, after which a restart that was asked for is called off."""
FIRST_RETRY = 5.0
MAX_RETRY = 300.0
_SPREAD = 0.2
"""Workers that started together end apart: each at an age of its own within this share of the limit."""


class RecyclingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """``max_age`` and ``drain_timeout`` in seconds, ``max_memory`` in bytes; 0 for no limit of age or memory."""

    max_age: float = 0.0
    max_memory: int = 0
    drain_timeout: float = 30.0


class Replace(msgspec.Struct, frozen=True):
    """Start another worker beside this one, and tell of it by :meth:`Recycler.started`."""

    epoch: int
    reason: str


class Retire(msgspec.Struct, frozen=True):
    """Have a worker take no new runs, and end with the last that it has."""

    epoch: int


class EndRuns(msgspec.Struct, frozen=True):
    """Have a worker end the runs that it still has, and itself."""

    epoch: int


class Kill(msgspec.Struct, frozen=True):
    """End a worker at once."""

    epoch: int


Action = Replace | Retire | EndRuns | Kill


class _Worker:
    __slots__ = (
        "age_limit",
        "ends_at",
        "is_ending",
        "is_joined",
        "memory",
        "replaces",
        "retired_at",
        "started_at",
        "wish",
    )

    def __init__(self, now: float, age_limit: float, replaces: int | None) -> None:
        self.started_at = now
        self.age_limit = age_limit
        self.replaces = replaces
        self.is_joined = False
        self.memory = 0
        # Whether somebody asked for another in its place.
        self.wish = False
        self.retired_at: float | None = None
        self.is_ending = False
        self.ends_at = 0.0


class Recycler:
    """The workers of one engine, by epoch."""

    def __init__(self, limits: RecyclingLimits) -> None:
        self._limits = limits
        self._workers: dict[int, _Worker] = {}
        self._failures = 0
        self._not_before = 0.0

    def started(self, epoch: int, now: float, share: float, replaces: int | None = None) -> None:
        """A worker was started. ``share``, from 0 to 1, is its place in the spread of ages."""
        age_limit = self._limits.max_age * (1 - _SPREAD * share)
        self._workers[epoch] = _Worker(now, age_limit, replaces)

    def joined(self, epoch: int) -> None:
        """A worker serves."""
        if (worker := self._workers.get(epoch)) is not None:
            worker.is_joined = True

    def measured(self, epoch: int, memory: int) -> None:
        """A worker takes so many bytes of memory."""
        if (worker := self._workers.get(epoch)) is not None:
            worker.memory = memory

    def asked(self) -> bool:
        """All workers that there are now are to be replaced, one after another; return whether that is news of any."""
        self._failures = 0
        self._not_before = 0.0
        meant = [worker for worker in self._workers.values() if worker.retired_at is None]
        is_news = not all(worker.wish for worker in meant)
        for worker in self._workers.values():
            worker.wish = worker.retired_at is None
        return is_news

    def exited(self, epoch: int, now: float) -> bool:
        """A worker ended; return whether another has to be started for it."""
        worker = self._workers.pop(epoch, None)
        if worker is None:
            return True
        if worker.retired_at is not None:
            return False
        if worker.replaces in self._workers:
            self._failed(now)
            return False
        return not any(other.replaces == epoch for other in self._workers.values())

    def due(self, now: float) -> list[Action]:
        """Time has passed, or something has happened."""
        actions: list[Action] = []
        for epoch, worker in self._workers.items():
            if worker.retired_at is not None:
                actions += self._overdue(epoch, worker, now)
            elif worker.replaces is not None:
                actions += self._beginning(epoch, worker, now)
        if not any(worker.replaces is not None for worker in self._workers.values()) and now >= self._not_before:
            actions += self._next(now)
        return actions

    def _overdue(self, epoch: int, worker: _Worker, now: float) -> list[Action]:
        if worker.is_ending:
            return [Kill(epoch)] if now >= worker.ends_at else []
        if now < (worker.retired_at or 0.0) + self._limits.drain_timeout:
            return []
        worker.is_ending = True
        worker.ends_at = now + END_GRACE
        return [EndRuns(epoch)]

    def _beginning(self, epoch: int, worker: _Worker, now: float) -> list[Action]:
        """Look at a replacement: once it serves, the other one goes."""
        if not worker.is_joined:
            return [Kill(epoch)] if now >= worker.started_at + START_TIMEOUT else []
        before = self._workers.get(worker.replaces or 0)
        old, worker.replaces = worker.replaces or 0, None
        self._failures = 0
        if before is None:
            return []
        before.retired_at = now
        return [Retire(old)]

    def _next(self, now: float) -> list[Action]:
        serving = {epoch: worker for epoch, worker in self._workers.items() if worker.retired_at is None}
        if len(self._workers) - len(serving) >= len(serving):
            return []
        for epoch, worker in serving.items():
            if worker.is_joined and (reason := self._reason(worker, now)):
                return [Replace(epoch, reason)]
        return []

    def _reason(self, worker: _Worker, now: float) -> str:
        limits = self._limits
        if worker.wish:
            return "a restart was asked for"
        if limits.max_age and now - worker.started_at >= worker.age_limit:
            return f"it is {now - worker.started_at:.0f} s old"
        if limits.max_memory and worker.memory > limits.max_memory and now - worker.started_at >= SETTLING:
            return f"it takes {worker.memory} bytes of memory"
        return ""

    def _failed(self, now: float) -> None:
        """A replacement did not come to serve."""
        self._failures += 1
        self._not_before = now + min(FIRST_RETRY * 2 ** (self._failures - 1), MAX_RETRY)
        if self._failures >= MAX_FAILURES:
            for worker in self._workers.values():
                worker.wish = False
