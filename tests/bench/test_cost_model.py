"""The model of cost: it finds the costs that measurements were made with, and its predictions keep to the limits of each process."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from bench.cost_model import (
    FULL,
    Demand,
    EngineCosts,
    Load,
    LoadPoint,
    ProcessCosts,
    Shares,
    capacity,
    fitted,
    least_squares,
    line,
    needed_engines,
    predicted,
    wake_ups,
)

COSTS = EngineCosts(
    worker=ProcessCosts(idle=0.001, wake_up=20e-6, frame=30e-6, chunk=15e-6, run=150e-6),
    client=ProcessCosts(idle=0.002, wake_up=60e-6, frame=0.0, chunk=10e-6, run=160e-6),
    broker_run=25e-6,
    broker_run_per_worker=0.1e-6,
    broker_worker=1e-5,
    collector_run=40e-6,
)
LOADS = [
    Load(workers=1, clients=clients, chunk_rate=rate)
    for clients, rate in itertools.product((1, 10, 200), (1.0, 100.0, 1000.0, 5000.0, 25_000.0))
]
CHAT = Demand("chat", 50.0, 500.0)
CALL = Demand("call", 1.0, 1.0)


def test_chunks_that_come_alone_each_wake_a_process_and_many_share_a_wake_up() -> None:
    assert wake_ups(1.0, 0.001) == pytest.approx(1.0, rel=0.01)
    assert wake_ups(1000.0, 0.001) == 500.0
    assert wake_ups(1e9, 0.001) == pytest.approx(1000.0, rel=0.01)


@pytest.mark.parametrize("window", [0.001, 0.004])
def test_the_costs_and_the_window_are_found_that_measurements_were_made_with(window: float) -> None:
    costs = msgspec.structs.replace(COSTS, window=window)
    points = [LoadPoint(load, predicted(costs, load)) for load in LOADS]

    worker, client, found = fitted(points, 150e-6, 160e-6)

    assert found == window
    for name in ("idle", "wake_up", "frame", "chunk"):
        assert getattr(worker, name) == pytest.approx(getattr(COSTS.worker, name), rel=1e-6)
    for name in ("idle", "wake_up", "chunk"):
        assert getattr(client, name) == pytest.approx(getattr(COSTS.client, name), rel=1e-6)


def test_runs_that_were_measured_apart_do_not_count_as_chunks() -> None:
    with_runs = [Load(workers=1, clients=one.clients, chunk_rate=one.chunk_rate, run_rate=100.0) for one in LOADS]

    points = [LoadPoint(load, predicted(COSTS, load)) for load in with_runs]
    _, client, _ = fitted(points, COSTS.worker.run, COSTS.client.run)

    assert client.chunk == pytest.approx(COSTS.client.chunk, rel=1e-6)


def test_no_cost_is_below_zero() -> None:
    assert least_squares([(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)], [3.0, 2.0, 1.0], [1.0] * 3) == [pytest.approx(2.0), 0.0]
    assert least_squares([(1.0,), (2.0,)], [-1.0, -2.0], [1.0, 1.0]) == [0.0]


def test_a_factor_that_no_measurement_says_anything_of_is_zero() -> None:
    assert least_squares([(1.0, 0.0), (2.0, 0.0)], [3.0, 6.0], [1.0, 1.0]) == [pytest.approx(3.0), 0.0]


def test_a_line_has_its_start_and_its_slope() -> None:
    start, slope = line([(1.0, 12.0), (4.0, 18.0), (10.0, 30.0)])

    assert start == pytest.approx(10.0)
    assert slope == pytest.approx(2.0)


def test_too_few_measurements_are_an_error() -> None:
    with pytest.raises(ValueError, match="1 measurements are too few for 2 factors"):
        line([(1.0, 1.0)])
    with pytest.raises(ValueError, match="0 measurements"):
        least_squares([], [], [])


def used(one: Load) -> Shares:
    return predicted(COSTS, one)


@pytest.mark.parametrize("demand", [CHAT, CALL])
@pytest.mark.parametrize("cores", [2, 10, 100])
def test_no_process_of_a_prediction_is_fuller_than_it_may_be(demand: Demand, cores: int) -> None:
    found = capacity(COSTS, demand, cores)

    shares = used(
        Load(workers=found.workers, clients=found.clients, chunk_rate=found.chunk_rate, run_rate=found.run_rate)
    )
    assert 0.0 < shares.total <= FULL * cores
    assert shares.workers / found.workers <= FULL
    assert shares.client / found.clients <= FULL
    assert shares.broker <= FULL
    assert shares.collector <= FULL
    assert found.streams == found.chunk_rate / demand.pace


def test_more_cores_hold_more_until_broker_or_collector_is_the_limit() -> None:
    few, many, most = (capacity(COSTS, CALL, cores) for cores in (2, 100, 1000))

    assert few.run_rate < many.run_rate
    assert most.collector == pytest.approx(FULL, rel=0.01)
    assert most.run_rate <= FULL / COSTS.collector_run


def test_as_many_engines_are_needed_as_it_takes_so_that_no_collector_is_the_limit() -> None:
    needed = needed_engines(COSTS, CALL, 100)

    one, several = capacity(COSTS, CALL, 100), capacity(COSTS, CALL, 100, needed)
    assert needed > 1
    assert several.run_rate > 1.5 * one.run_rate
    assert several.collector < FULL * needed
    assert needed_engines(COSTS, CHAT, 10) == 1
