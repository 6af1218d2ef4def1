"""Schedules that once broke a promise, told by hand."""

from __future__ import annotations

from headrace.wire.messages import Finished
from tests.simulation.plans import Fault, Order, Plan
from tests.simulation.provider_calls import ScriptedAnswer, Step
from tests.simulation.schedule import Simulation
from tests.simulation.schedule_search import simulating

SPAN = "sp_0000000000000001"
DONE = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def stream(seconds: int) -> Order:
    """Return a run that is answered with a word each second."""
    words = [
        Step(1.0, "data", b'data: {"choices":[{"index":0,"delta":{"content":"%d "}}]}\n\n' % number, f"{number} ")
        for number in range(seconds)
    ]
    steps = [Step(0.01, "head", b"sse"), *words, Step(0.1, "data", DONE), Step(0.0, "complete")]
    answer = ScriptedAnswer("whole", 0.01, steps, "".join(word.text for word in words))
    return Order(SPAN, client=0, at=0.3, streams=True, kinds=["whole"], answer=answer)


def simulate(order: Order, *faults: Fault) -> Simulation:
    plan = Plan(
        seed=1,
        workers=2,
        clients=1,
        max_runs=4,
        max_waiting=4,
        latency=0.0005,
        is_embedded=False,
        orders=[order],
        faults=list(faults),
    )
    with simulating():
        simulation = Simulation(plan)
        simulation.run()
    return simulation


def processes(simulation: Simulation) -> list[str]:
    return [host.name for host in simulation.engine.workers.values()]


def test_after_a_freeze_of_all_processes_the_workers_are_those_of_before() -> None:
    simulation = simulate(stream(3), Fault(1.0, "freeze", seconds=60.0))

    assert processes(simulation) == ["w1-0", "w2-1"]


def test_a_worker_that_hangs_while_its_broker_is_replaced_is_replaced_too() -> None:
    simulation = simulate(stream(3), Fault(5.0, "stop", "worker", 0, 40.0), Fault(8.0, "kill", "broker"))

    assert processes(simulation) == ["w1-0", "w2-1", "w1-2"]


def test_a_worker_that_leaves_finishes_its_stream_though_the_broker_is_replaced() -> None:
    drains = (Fault(1.0, "drain worker", "worker", 0), Fault(1.0, "drain worker", "worker", 1))
    simulation = simulate(stream(11), *drains, Fault(1.5, "kill", "broker"))

    caller = simulation.clients[0].callers[0]
    assert isinstance(caller.outcome, Finished)
    assert caller.starts == 1


def test_a_broker_that_comes_later_than_anybody_waits_for_it_is_told_of_the_leases() -> None:
    simulation = simulate(stream(11), Fault(1.0, "kill", "broker"), Fault(1.02, "freeze", seconds=7.0))

    assert isinstance(simulation.clients[0].callers[0].outcome, Finished)
