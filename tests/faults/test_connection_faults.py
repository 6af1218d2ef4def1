"""Connections that are cut in the middle of a frame, carry a byte at a time, or come back again and again."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from headrace.testing import SimulatedProvider
from tests.faults.harness import FaultyEngine, faulty_engine
from tests.faults.load import BEYOND_A_WINDOW
from tests.faults.proxy import SocketProxy, proxied
from tests.repetition import repeated
from tests.waiting import wait_until

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]

TIMES = repeated(5, 20)


def worker_socket(engine: FaultyEngine, name: str = "w1") -> Path:
    return next(path for path in engine.directory.glob(f"{name}-*") if path.is_socket())


def kinds(engine: FaultyEngine) -> set[str]:
    return {outcome.kind for outcome in engine.outcomes()}


@pytest.mark.tries(TIMES)
def test_a_byte_at_a_time_loses_nothing(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=1) as engine:
        broker, worker = engine.directory / "broker", worker_socket(engine)
        with proxied(broker, engine.random, engine.cut) as slow, proxied(worker, engine.random, engine.cut) as slow_too:
            slow.piece = slow_too.piece = 1
            loads = [engine.load(streams=5, runs=5, chunks=(5, 40), pace=0.02) for _ in range(TIMES // 5)]
            wait_until(lambda: len(engine.outcomes()) == TIMES, 60.0, "the end of all")
            for load in loads:
                load.join(30)

    assert kinds(engine) == {"done"}


def cut_under_load(engine: FaultyEngine, proxy: SocketProxy, longest: float) -> None:
    """Cut all connections again and again, at most so many seconds apart; who had one must come back."""
    loads = [engine.load(streams=5, **BEYOND_A_WINDOW), engine.load(streams=10, abort_share=0.2)]
    for load in loads:
        load.wait_for(5)
    for number in engine.moments(TIMES, 0.1, longest):
        proxy.cut()
        wait_until(lambda: proxy.cuts > number, 30.0, "a cut")  # noqa: B023

    for load in loads:
        load.stop()
    for load in loads:
        load.join(30)

    assert proxy.connections > TIMES / 2, "they came back"


@pytest.mark.tries(TIMES)
def test_a_connection_to_a_worker_cut_in_mid_frame_is_a_lost_worker_or_nothing(provider: SimulatedProvider) -> None:
    with (
        faulty_engine(provider, workers=2) as engine,
        proxied(worker_socket(engine), engine.random, engine.cut) as proxy,
    ):
        cut_under_load(engine, proxy, 0.5)

    assert kinds(engine) <= {"done", "aborted", "WorkerLostError", "PoisonRunError"}
    assert engine.outcomes("done")


@pytest.mark.tries(TIMES)
def test_a_connection_to_the_broker_cut_in_mid_frame_disturbs_no_stream(provider: SimulatedProvider) -> None:
    with (
        faulty_engine(provider, workers=2) as engine,
        proxied(engine.directory / "broker", engine.random, engine.cut) as proxy,
    ):
        cut_under_load(engine, proxy, 0.4)

    assert kinds(engine) <= {"done", "aborted"}


@pytest.mark.tries(TIMES)
def test_clients_that_come_and_go_in_a_storm_hold_nobody_up(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=2) as engine:
        steady = engine.load(streams=10)
        steady.wait_for(5)
        for _ in range(TIMES // 5):
            storm = [engine.load(streams=2, chunks=(8, 17)) for _ in range(5)]
            for load in storm:
                load.wait_for(1)
            threading.Event().wait(engine.random.uniform(0.0, 0.3))
            for load in storm:
                engine.signal(load, signal.SIGKILL)

        steady.join(30)
        assert {outcome.kind for outcome in steady.outcomes()} == {"done"}
        wait_until(lambda: engine.status().leases == 0, 10.0, "all leases back")
