"""A model of what an engine costs: CPU of workers, clients, broker and collector by load, fitted to measurements, and its predictions. Pure.

Chunks cost CPU in two ways: each chunk costs something, and each wake-up of a process does. A chunk that comes alone wakes its worker
and its client. Chunks that come within a *window* of each other on one connection share a wake-up: a worker under load looks at its sockets
every 2 ms, and a busy process finds more that has arrived. So with ``rate`` chunks a second there are
``rate / (1 + rate * window)`` wake-ups a second, and the cost of a chunk falls as the load grows. The window is the one that fits best.

Rates are per second. Costs are seconds of CPU. Shares are of one processor: 0.7 is 0.7 s of CPU in each second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

WINDOWS = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008)
"""Seconds in which chunks share a wake-up: these are tried."""
FULL = 0.7
"""The share of a processor that a process may use so that what arrives does not wait long."""
_SMALLEST_SHARE = 1e-4
"""Differences are weighed by the measured share, and at least by this."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is asked to do, by how many processes: ``chunk_rate`` chunks and ``run_rate`` new runs a second, all together."""

    workers: int
    clients: int
    chunk_rate: float
    run_rate: float = 0.0


class Shares(msgspec.Struct, frozen=True):
    """The shares of a processor that the processes use: of all workers together, of all clients together, broker and collector."""

    workers: float
    client: float
    broker: float
    collector: float

    @property
    def total(self) -> float:
        """Processors that all of them need."""
        return self.workers + self.client + self.broker + self.collector


class LoadPoint(msgspec.Struct, frozen=True):
    """One measurement: a load, and what the processes used."""

    load: Load
    shares: Shares


class ProcessCosts(msgspec.Struct, frozen=True):
    """What the workers cost, or the clients."""

    idle: float
    """Share of a processor of each process without work."""
    wake_up: float
    """Seconds for a wake-up: of a worker, by what it reads; of a client, by a frame."""
    frame: float
    """Seconds for a frame to a client. Workers only."""
    chunk: float
    """Seconds for a chunk."""
    run: float
    """Seconds for a run without its chunks."""


class EngineCosts(msgspec.Struct, frozen=True):
    """The costs of all processes of one engine."""

    worker: ProcessCosts
    client: ProcessCosts
    broker_run: float
    """Seconds of the broker for a run, with few workers."""
    broker_run_per_worker: float
    """Further seconds for each worker, because the broker compares the workers."""
    broker_worker: float
    """Share of a processor for each connected worker: its heartbeats."""
    collector_run: float
    """Seconds of the collector for a run: its span."""
    broker_idle: float = 0.0
    collector_idle: float = 0.0
    window: float = 0.001
    """Seconds in which chunks on one connection share a wake-up."""


def wake_ups(rate: float, window: float) -> float:
    """Return how many wake-ups a second ``rate`` arrivals a second cause."""
    return rate / (1.0 + rate * window)


def predicted(costs: EngineCosts, load: Load) -> Shares:
    """Return what the processes use under a load."""
    worker, client = costs.worker, costs.client
    _, reads, frames, chunks, runs = _counts(load, costs.window)
    workers = (
        worker.idle * load.workers
        + worker.wake_up * reads
        + worker.frame * frames
        + worker.chunk * chunks
        + worker.run * runs
    )
    clients = client.idle * load.clients + client.wake_up * frames + client.chunk * chunks + client.run * runs
    broker_run = costs.broker_run + costs.broker_run_per_worker * load.workers
    broker = costs.broker_idle + costs.broker_worker * load.workers + broker_run * runs
    return Shares(workers, clients, broker, costs.collector_idle + costs.collector_run * runs)


def _counts(load: Load, window: float) -> tuple[float, float, float, float, float]:
    """Return processes, wake-ups by the provider, frames, chunks and runs: of all workers together."""
    pairs = load.workers * load.clients
    reads = load.workers * wake_ups(load.chunk_rate / load.workers, window)
    frames = pairs * wake_ups(load.chunk_rate / pairs, window)
    return load.workers, reads, frames, load.chunk_rate, load.run_rate


def fitted(
    points: Sequence[LoadPoint], worker_run: float, client_run: float
) -> tuple[ProcessCosts, ProcessCosts, float]:
    """Return the costs of workers and clients, and the window, that fit the measurements best. The costs of a run were measured apart."""

    def with_window(window: float) -> tuple[float, ProcessCosts, ProcessCosts, float]:
        worker, client = _fitted_worker(points, worker_run, window), _fitted_client(points, client_run, window)
        costs = EngineCosts(worker, client, 0.0, 0.0, 0.0, 0.0, window=window)
        error = 0.0
        for point in points:
            found, real = predicted(costs, point.load), point.shares
            for one, other in ((found.workers, real.workers), (found.client, real.client)):
                error += ((one - other) / max(other, _SMALLEST_SHARE)) ** 2
        return error, worker, client, window

    _, worker, client, window = min(map(with_window, WINDOWS), key=lambda found: found[0])
    return worker, client, window


def _fitted_worker(points: Sequence[LoadPoint], run: float, window: float) -> ProcessCosts:
    rows = [_counts(point.load, window)[:4] for point in points]
    rest = [point.shares.workers - run * point.load.run_rate for point in points]
    idle, wake_up, frame, chunk = least_squares(rows, rest, _weights(rest))
    return ProcessCosts(idle, wake_up, frame, chunk, run)


def _fitted_client(points: Sequence[LoadPoint], run: float, window: float) -> ProcessCosts:
    rows = []
    for point in points:
        _, _, frames, chunks, _ = _counts(point.load, window)
        rows.append((point.load.clients, frames, chunks))
    rest = [point.shares.client - run * point.load.run_rate for point in points]
    idle, wake_up, chunk = least_squares(rows, rest, _weights(rest))
    return ProcessCosts(idle, wake_up, 0.0, chunk, run)


def _weights(shares: Iterable[float]) -> list[float]:
    """Return weights with which relative differences count."""
    return [1.0 / max(share, _SMALLEST_SHARE) for share in shares]


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the value at 0 and the slope of the line through points of (x, y), neither below 0. Relative differences count."""
    rows = [(1.0, x) for x, _ in points]
    values = [y for _, y in points]
    start, slope = least_squares(rows, values, [1.0 / max(value, 1e-12) for value in values])
    return start, slope


def least_squares(rows: Sequence[Sequence[float]], values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the factors, none below 0, with which the sums of ``rows`` come nearest to ``values``.

    Factors that would be below 0 are 0, one after another, the lowest first. Raises ValueError if there are fewer rows than factors.
    """
    width = len(rows[0]) if rows else 0
    if not width or len(rows) < width:
        raise ValueError(f"{len(rows)} measurements are too few for {width or 'any'} factors")
    used = list(range(width))
    while used:
        found = _solved(
            [[row[column] * weight for column in used] for row, weight in zip(rows, weights, strict=True)],
            [value * weight for value, weight in zip(values, weights, strict=True)],
        )
        lowest = min(range(len(used)), key=found.__getitem__)
        if found[lowest] >= 0.0:
            factors = [0.0] * width
            for column, factor in zip(used, found, strict=True):
                factors[column] = factor
            return factors
        del used[lowest]
    return [0.0] * width


def _solved(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Return the factors with the least sum of squares, by the normal equations and Gaussian elimination."""
    width = len(rows[0])
    # Each column is divided by its length: counts of processes and of chunks differ by a factor of 10,000.
    lengths = [math.sqrt(sum(row[column] ** 2 for row in rows)) or 1.0 for column in range(width)]
    scaled = [[cell / length for cell, length in zip(row, lengths, strict=True)] for row in rows]
    table = [
        [sum(row[i] * row[j] for row in scaled) for j in range(width)]
        + [sum(row[i] * value for row, value in zip(scaled, values, strict=True))]
        for i in range(width)
    ]
    for column in range(width):
        pivot = max(range(column, width), key=lambda index: abs(table[index][column]))
        table[column], table[pivot] = table[pivot], table[column]
        if abs(table[column][column]) < 1e-12:
            table[column][column] = 1e12  # the measurements say nothing of this factor: it is 0
        for index in range(width):
            if index != column:
                factor = table[index][column] / table[column][column]
                table[index] = [one - factor * other for one, other in zip(table[index], table[column], strict=True)]
    return [table[column][width] / table[column][column] / lengths[column] for column in range(width)]


class Demand(msgspec.Struct, frozen=True):
    """One kind of load: streams of ``pace`` chunks a second, and ``chunks`` chunks in each run. 1 chunk: a call without a stream."""

    name: str
    pace: float
    chunks: float


class Capacity(msgspec.Struct, frozen=True):
    """What a machine can hold of a demand, and which processes that takes."""

    cores: int
    streams: float
    chunk_rate: float
    run_rate: float
    workers: int
    clients: int
    engines: int
    broker: float
    """Share of a processor of all brokers together."""
    collector: float


_DIVISIONS = 40
"""Ways that are tried to divide the processors between workers and clients."""


def capacity(costs: EngineCosts, demand: Demand, cores: int, engines: int = 1) -> Capacity:
    """Return the most streams of a demand that a machine with ``cores`` processors can hold, with so many engines.

    No process uses more than :data:`FULL` of a processor, and all together no more than this share of all.
    """
    return _capacity(costs, demand, cores, engines, FULL)


def needed_engines(costs: EngineCosts, demand: Demand, cores: int) -> int:
    """Return with how many engines neither the brokers nor the collectors are the limit of a machine."""
    engines = 1
    while True:
        unlimited = _capacity(costs, demand, cores, engines, math.inf)
        fullest = max(unlimited.broker, unlimited.collector) / engines
        if fullest <= FULL or engines >= cores:
            return engines
        engines = min(cores, max(engines + 1, math.ceil(engines * fullest / FULL)))


def _capacity(costs: EngineCosts, demand: Demand, cores: int, engines: int, most: float) -> Capacity:
    """Return the capacity if broker and collector may use ``most`` of a processor."""
    divisions = {max(engines, round(cores * part / _DIVISIONS)) for part in range(1, _DIVISIONS)}
    return max(
        (_with_workers(costs, demand, cores, workers, engines, most) for workers in sorted(divisions)),
        key=lambda one: one.chunk_rate,
    )


def _with_workers(
    costs: EngineCosts, demand: Demand, cores: int, workers: int, engines: int, most_of_broker: float
) -> Capacity:
    clients = max(engines, cores - workers)

    def shares(chunk_rate: float) -> Shares:
        """Return what one engine uses for its part."""
        part = Load(
            workers=max(1, workers // engines),
            clients=max(1, clients // engines),
            chunk_rate=chunk_rate / engines,
            run_rate=chunk_rate / demand.chunks / engines,
        )
        return predicted(costs, part)

    def fits(chunk_rate: float) -> bool:
        used = shares(chunk_rate)
        return (
            used.total * engines <= FULL * cores
            and used.workers <= FULL * max(1, workers // engines)
            and used.client <= FULL * max(1, clients // engines)
            and used.broker <= most_of_broker
            and used.collector <= most_of_broker
        )

    most = _largest(fits)
    used = shares(most)
    return Capacity(
        cores=cores,
        streams=most / demand.pace,
        chunk_rate=most,
        run_rate=most / demand.chunks,
        workers=workers,
        clients=clients,
        engines=engines,
        broker=used.broker * engines,
        collector=used.collector * engines,
    )


def _largest(fits: Callable[[float], bool]) -> float:
    """Return the largest rate that fits, to 0.1 %."""
    low, high = 0.0, 1.0
    while fits(high):
        low, high = high, 2.0 * high
    while high - low > 0.001 * high and high > 1e-3:
        middle = (low + high) / 2.0
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
