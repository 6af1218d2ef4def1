"""Chooses the worker for a waiting run, or says what the run waits for and until when. Pure.

A run goes to the worker with the fewest leases, but never to a worker that it avoids: its client may know that this
worker is dead before the broker does. To avoid a worker and to be a retry are different things: a retry may go to any
other worker.
"""

from __future__ import annotations

from headrace_engine.broker.client_shares import ClientShares
from headrace_engine.broker.connected_workers import ConnectedWorker, ConnectedWorkers
from headrace_engine.broker.waiting_run import Owner, Wait, WaitCause, WaitingRun

NO_WORKERS_TIMEOUT = 10.0
"""Seconds that a run waits while no worker is connected, or while it avoids every worker that is."""


def choose(run: WaitingRun, workers: ConnectedWorkers, shares: ClientShares) -> ConnectedWorker | Wait:
    """Return the worker that ``run`` goes to now, or what it waits for."""
    best: ConnectedWorker | None = None
    cause = WaitCause.NO_WORKER
    avoid, owner = run.question.avoid, run.owner
    for worker in workers:
        # First what is cheap: with a thousand workers, nearly all of them are left out here.
        if (best is not None and len(worker.spans) >= len(best.spans)) or worker.is_leaving:
            continue
        if worker.epoch in avoid:
            cause = max(cause, WaitCause.ALL_AVOIDED)
        elif not worker.has_room:
            cause = max(cause, WaitCause.WORKERS_FULL)
        elif not shares.has_room(worker.epoch, owner, worker.max_runs):
            cause = WaitCause.CLIENT_SHARE
        else:
            best = worker
    return best if best is not None else Wait(cause, _until(cause, run, workers, shares))


def choose_many(count: int, owner: Owner, workers: ConnectedWorkers, shares: ClientShares) -> list[ConnectedWorker]:
    """Return the workers that ``count`` runs of a client go to, as :func:`choose` would choose for one after another.

    The runs avoid no worker. The list is shorter if not all of them find a place.
    """
    free = [worker for worker in workers if worker.has_room]
    runs = [len(worker.spans) for worker in free]
    bounds = [
        min(worker.max_runs, taken + shares.room(worker.epoch, owner, worker.max_runs))
        for worker, taken in zip(free, runs, strict=True)
    ]
    chosen: list[ConnectedWorker] = []
    while len(chosen) < count:
        best = -1
        for index, taken in enumerate(runs):
            if taken < bounds[index] and (best < 0 or taken < runs[best]):
                best = index
        if best < 0:
            break
        runs[best] += 1
        chosen.append(free[best])
    return chosen


def _until(cause: WaitCause, run: WaitingRun, workers: ConnectedWorkers, shares: ClientShares) -> float | None:
    match cause:
        case WaitCause.NO_WORKER:
            absent_since = workers.absent_since
            return None if absent_since is None else max(run.since, absent_since) + NO_WORKERS_TIMEOUT
        case WaitCause.ALL_AVOIDED:
            return run.since + NO_WORKERS_TIMEOUT
        case WaitCause.WORKERS_FULL | WaitCause.GATE:
            return None
        case WaitCause.CLIENT_SHARE:
            return shares.recovers_at(run.owner)
