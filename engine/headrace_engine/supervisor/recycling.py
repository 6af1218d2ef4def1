"""Decides when a healthy worker is replaced: it is old, uses much memory, or somebody asked for new workers. Pure.

Rules of this file:

1. A worker is told to leave only when its replacement serves. If the replacement fails, the worker stays.
2. One replacement starts at a time, and never are more workers leaving than serving.
3. A worker that leaves finishes its runs, up to a timeout. Then it is told to end its runs. At last it is killed.
"""

from __future__ import annotations

import msgspec

START_TIMEOUT = 30.0
"""Seconds within which a replacement must serve."""
END_GRACE = 2.0
"""Seconds that a worker has to end its runs before it is killed."""
SETTLING = 5.0
"""Seconds after a worker's start in which its memory is not checked.

With a limit below what an idle worker needs, workers would be replaced in a loop.
"""
MAX_FAILURES = 3
"""Failed replacements in a row after which a restart that was asked for is given up."""
FIRST_RETRY = 5.0
MAX_RETRY = 300.0
_SPREAD = 0.2
"""Each worker has its own age limit, up to this share below ``max_age``, so that not all are replaced at once."""


class RecyclingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of workers.

    ``max_age`` and ``drain_timeout`` are in seconds, ``max_memory`` in bytes; 0: no limit of age or memory.
    """

    max_age: float = 0.0
    max_memory: int = 0
    drain_timeout: float = 30.0


class Replace(msgspec.Struct, frozen=True):
    """Start a replacement beside this worker, and call :meth:`Recycler.started` for it."""

    epoch: int
    reason: str


class Retire(msgspec.Struct, frozen=True):
    """Tell a worker to take no new runs, and to end after its last run."""

    epoch: int


class EndRuns(msgspec.Struct, frozen=True):
    """Tell a worker to end its runs, and then itself."""

    epoch: int


class Kill(msgspec.Struct, frozen=True):
    """Kill a worker."""

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
        # Whether somebody asked for a replacement.
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
        """A worker was started.

        ``share`` is a random number from 0 to 1: how far below ``max_age`` its own age limit is.
        """
        age_limit = self._limits.max_age * (1 - _SPREAD * share)
        self._workers[epoch] = _Worker(now, age_limit, replaces)

    def joined(self, epoch: int) -> None:
        """A worker serves."""
        if (worker := self._workers.get(epoch)) is not None:
            worker.is_joined = True

    def measured(self, epoch: int, memory: int) -> None:
        """A worker uses ``memory`` bytes of memory."""
        if (worker := self._workers.get(epoch)) is not None:
            worker.memory = memory

    def asked(self) -> bool:
        """All workers that run now are to be replaced, one after another.

        Return whether any of them was not to be replaced before.
        """
        self._failures = 0
        self._not_before = 0.0
        meant = [worker for worker in self._workers.values() if worker.retired_at is None]
        is_news = not all(worker.wish for worker in meant)
        for worker in self._workers.values():
            worker.wish = worker.retired_at is None
        return is_news

    def exited(self, epoch: int, now: float) -> bool:
        """A worker ended. Return whether it must be started again."""
        worker = self._workers.pop(epoch, None)
        if worker is None:
            return True
        if worker.retired_at is not None:
            return False
        if worker.replaces in self._workers:
            self._failed(now)
            return False
        return not any(other.replaces == epoch for other in self._workers.values())

    @property
    def is_busy(self) -> bool:
        """Whether a worker is being replaced, or is to be. Then :meth:`due` is to be called often."""
        return any(
            worker.wish or worker.replaces is not None or worker.retired_at is not None
            for worker in self._workers.values()
        )

    def due(self, now: float) -> list[Action]:
        """Return what is to be done now. To be called when time has passed or something has happened."""
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
        """Look at a replacement. When it serves, the worker that it replaces is retired."""
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
        """A replacement ended before it served."""
        self._failures += 1
        self._not_before = now + min(FIRST_RETRY * 2 ** (self._failures - 1), MAX_RETRY)
        if self._failures >= MAX_FAILURES:
            for worker in self._workers.values():
                worker.wish = False
