"""The model of ``bench/cost_model.py`` with the figures of kept results: its costs, how far it is from what was measured, and predictions. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

import msgspec

from bench.cost_model import (
    Capacity,
    Demand,
    EngineCosts,
    Load,
    LoadPoint,
    Shares,
    capacity,
    fitted,
    line,
    needed_engines,
    predicted,
)
from bench.scale.figures import HeldStreams, ScaleResults

DEMANDS = [
    Demand("slow streams: 1 chunk/s, 60 chunks", 1.0, 60.0),
    Demand("chats: 50 chunks/s, 500 chunks", 50.0, 500.0),
    Demand("short answers: 50 chunks/s, 20 chunks", 50.0, 20.0),
    Demand("calls without a stream", 1.0, 1.0),
]
"""What is predicted. A call without a stream counts as one chunk that comes after a second."""
CORES = (10, 100, 1000)


class PointError(msgspec.Struct, frozen=True):
    """How far the model is from one measurement, as a share of it: 0.1 is 10 % too much."""

    held: HeldStreams
    measured: Shares
    predicted: Shares

    @property
    def worker(self) -> float:
        """Of the workers."""
        return self.predicted.workers / self.measured.workers - 1.0

    @property
    def client(self) -> float:
        """Of the clients."""
        return self.predicted.client / self.measured.client - 1.0

    @property
    def total(self) -> float:
        """Of all processes."""
        return self.predicted.total / self.measured.total - 1.0


def load_point(held: HeldStreams) -> LoadPoint:
    """Return a measurement as the model takes it."""
    cpu = held.cpu
    shares = Shares(
        *(cpu.get(role, 0.0) for role in ("workers", "client", "broker", "collector")),
    )
    return LoadPoint(Load(workers=held.workers, clients=held.clients, chunk_rate=held.rate), shares)


def engine_costs(results: ScaleResults) -> EngineCosts:
    """Return the costs that fit the measurements with one worker. Raises ValueError if there are too few of them."""
    points = [load_point(held) for held in results.growth if held.workers == 1]
    calls = {one.workers: one.cpu for one in results.calls}
    if 1 not in calls:
        raise ValueError("calls with one worker were not measured")
    per_run = calls[1]
    _, slope = line([(one.workers, one.seconds) for one in results.broker])
    idle = [(held.workers, held.idle.get("broker", 0.0)) for held in results.growth if held.clients == 1]
    broker_idle, broker_worker = line(idle)
    worker, client, window = fitted(points, per_run["workers"], per_run["client"])
    return EngineCosts(
        worker=worker,
        client=client,
        window=window,
        broker_run=per_run["broker"],
        broker_run_per_worker=slope,
        broker_worker=broker_worker,
        collector_run=per_run["collector"],
        broker_idle=broker_idle,
        collector_idle=median(held.idle.get("collector", 0.0) for held in results.growth),
    )


def errors(costs: EngineCosts, held: Sequence[HeldStreams]) -> Iterator[PointError]:
    """Compare the model with measurements."""
    for one in held:
        point = load_point(one)
        yield PointError(one, point.shares, predicted(costs, point.load))


def capacities(costs: EngineCosts) -> Iterator[tuple[Demand, Capacity, Capacity]]:
    """Predict for each demand and machine: with one engine, and with as many engines as it takes."""
    for demand in DEMANDS:
        for cores in CORES:
            engines = needed_engines(costs, demand, cores)
            yield demand, capacity(costs, demand, cores), capacity(costs, demand, cores, engines)
