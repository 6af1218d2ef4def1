"""The broker acts at the next deadline that it knows.

An idle broker does nothing, and a deadline is acted upon at its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from headrace.transport.link import HEARTBEAT_INTERVAL
from headrace.wire.messages import Silent
from headrace_engine.liveness import HUNG_AFTER, SUSPECT_AFTER
from tests.simulation.edges import Stage, enter
from tests.simulation.plans import Plan
from tests.simulation.processes import SimEngine, admission_of, reactor_of
from tests.simulation.schedule_search import simulating
from tests.simulation.world import World


class LoneEngine:
    """An engine without clients, in virtual time."""

    def __init__(self, workers: int) -> None:
        self.world = World(1)
        stage = Stage(self.world)
        enter(stage)
        plan = Plan(
            seed=1,
            workers=workers,
            clients=0,
            max_runs=4,
            max_waiting=4,
            latency=0.0005,
            is_embedded=False,
            orders=[],
            faults=[],
        )
        self.hung: list[Silent] = []
        self.engine = SimEngine(stage, plan)
        self.engine.on_worker_end = lambda _host, _epoch: None
        self.engine.start(plan, None)
        self.engine.shell.on_hung = self.hung.append
        self.run(5.0)

    def run(self, seconds: float) -> None:
        self.world.run(lambda: False, self.world.now + seconds)

    def counted(self, owner: object, method: str) -> list[float]:
        """Return a list that gets the time of each call of a method of the broker from now on."""
        times: list[float] = []
        original: Callable[..., object] = getattr(owner, method)

        def count(*arguments: object) -> object:
            times.append(self.world.now)
            return original(*arguments)

        setattr(owner, method, count)
        return times


@pytest.fixture
def stage() -> Iterator[None]:
    with simulating():
        yield


@pytest.mark.usefixtures("stage")
def test_a_broker_that_hears_nothing_takes_no_turns() -> None:
    lone = LoneEngine(workers=0)
    assert lone.engine.broker is not None
    turns = lone.counted(reactor_of(lone.engine.serving(lone.engine.broker)), "turn")

    lone.engine.supervisor.stop()
    lone.run(HEARTBEAT_INTERVAL)
    turns.clear()
    lone.run(10_000.0)

    assert turns == []


@pytest.mark.usefixtures("stage")
def test_a_broker_with_idle_workers_looks_at_them_as_often_as_a_silence_takes() -> None:
    lone = LoneEngine(workers=2)
    assert lone.engine.broker is not None
    looks = lone.counted(admission_of(lone.engine.serving(lone.engine.broker)), "due")

    lone.run(100.0)

    assert len(looks) <= 100.0 / (SUSPECT_AFTER - HEARTBEAT_INTERVAL) + 1


@pytest.mark.usefixtures("stage")
def test_a_hung_worker_is_found_at_the_end_of_its_time_and_not_later() -> None:
    lone = LoneEngine(workers=2)
    first = next(iter(lone.engine.workers.values()))

    first.stop()
    lone.run(HUNG_AFTER + 0.1)

    assert [silent.silence for silent in lone.hung] == [pytest.approx(HUNG_AFTER, abs=0.001)]
