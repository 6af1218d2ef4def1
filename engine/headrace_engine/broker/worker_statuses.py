"""The workers in the engine's status: the state, the runs and the last heartbeat of each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from headrace.wire.engine_status import WorkerStatus
from headrace_engine.broker.connected_workers import ConnectedWorker


def worker_statuses(workers: Iterable[ConnectedWorker], silence: Callable[[int], float]) -> list[WorkerStatus]:
    """Return the workers by name. ``silence``: a worker's epoch → the seconds since its last heartbeat."""
    found = []
    for worker in workers:
        state = "suspect" if worker.is_suspect else "draining" if worker.is_leaving else "ok"
        found.append(WorkerStatus(worker.name, worker.pid, state, len(worker.spans), silence(worker.epoch)))
    return sorted(found, key=lambda worker: worker.name)
