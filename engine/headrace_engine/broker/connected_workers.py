"""The workers that are connected to the broker, how many runs each can take, and since when there has been no worker.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

_NONE_YET = "no worker has started yet"


class ConnectedWorker:
    """A worker, and the runs that have a lease on it."""

    __slots__ = ("endpoint", "epoch", "is_leaving", "is_suspect", "max_runs", "name", "pid", "spans")

    def __init__(self, name: str, endpoint: str, epoch: int, max_runs: int, pid: int) -> None:
        self.name = name
        self.endpoint = endpoint
        self.epoch = epoch
        self.pid = pid
        self.max_runs = max_runs
        self.is_suspect = False
        self.is_leaving = False
        self.spans: set[str] = set()

    @property
    def has_room(self) -> bool:
        """Whether the worker can be given another run."""
        return not self.is_suspect and not self.is_leaving and len(self.spans) < self.max_runs


class ConnectedWorkers:
    """The workers, by epoch. ``max_runs`` is how many runs the settings allow one worker."""

    def __init__(self, max_runs: int) -> None:
        self.max_runs = max_runs
        self.absence = _NONE_YET
        """Why no worker is connected; the last reason that is known."""
        self._workers: dict[int, ConnectedWorker] = {}
        self._is_one_starting = False
        # Since when no worker has been connected or starting; None while one is.
        self._absent_since: float | None = float("-inf")

    def __iter__(self) -> Iterator[ConnectedWorker]:
        return iter(self._workers.values())

    def __contains__(self, epoch: int) -> bool:
        return epoch in self._workers

    @property
    def has_room(self) -> bool:
        """Whether any worker can be given another run."""
        for worker in self._workers.values():  # noqa: SIM110 - any() is slower, and this is asked for each run
            if worker.has_room:
                return True
        return False

    @property
    def absent_since(self) -> float | None:
        """Since when there is no worker for new runs, and none is starting; ``None`` while there is one."""
        return None if self._is_one_there() else self._absent_since

    def find(self, epoch: int) -> ConnectedWorker | None:
        """Return the worker with this epoch."""
        return self._workers.get(epoch)

    def joined(self, name: str, endpoint: str, epoch: int, capacity: int, pid: int) -> ConnectedWorker:
        """A worker has said hello; for ``capacity`` see :meth:`told`. It may have said so before."""
        new = ConnectedWorker(name, endpoint, epoch, self._bounded(capacity), pid)
        return self._workers.setdefault(epoch, new)

    def left(self, epoch: int, reason: str) -> ConnectedWorker | None:
        """A worker's connection has ended; return the worker if it was known."""
        worker = self._workers.pop(epoch, None)
        if worker is not None:
            self.absence = f"the last worker went away: {reason}"
        return worker

    def failed(self, reason: str) -> None:
        """A worker's process ended. If no worker has ever connected, ``reason`` becomes a part of ``absence``."""
        if self.absence.startswith(_NONE_YET):
            self.absence = f"{_NONE_YET}: {reason}"

    def starting(self, *, is_so: bool) -> None:
        """Whether a worker is starting. Runs wait for it."""
        self._is_one_starting = is_so

    def told(self, epoch: int, capacity: int, is_leaving: bool) -> bool:
        """A worker tells how many runs it can have (-1: as many as the settings allow), and whether it is leaving.

        Return whether it can have more runs than before.
        """
        worker = self._workers.get(epoch)
        if worker is None:
            return False
        before, worker.max_runs = worker.max_runs, self._bounded(capacity)
        if is_leaving and not worker.is_leaving:
            worker.is_leaving = True
            self.absence = f"the last worker is leaving: {worker.name}"
        return worker.max_runs > before

    def passed(self, now: float) -> None:
        """If no worker is connected or starting any more, note ``now`` as the time since when there is none."""
        if self._is_one_there():
            self._absent_since = None
        elif self._absent_since is None:
            self._absent_since = now

    def _is_one_there(self) -> bool:
        for worker in self._workers.values():
            if not worker.is_leaving:
                return True
        return self._is_one_starting

    def _bounded(self, capacity: int) -> int:
        return self.max_runs if capacity < 0 else min(capacity, self.max_runs)
