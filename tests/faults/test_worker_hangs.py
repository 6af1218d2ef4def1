"""A worker that hangs is found and replaced; one that pauses goes on, and nothing is lost."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from headrace import PoisonRunError
from headrace.testing import SimulatedProvider
from tests.faults.harness import FaultyEngine, faulty_engine
from tests.faults.worker_losses import LOST_WITHIN, check_others, report
from tests.repetition import only_long, repeated
from tests.waiting import busyness, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HUNG_WITHIN = 6.0
"""Seconds from when a worker stops to its callers' errors."""
HANGING = repeated(2, 10)
"""Workers that hang at the same time."""
PAUSES = repeated(2, 7)
"""Each of two workers at the same time."""
ROUNDS = repeated(2, 5)
"""In each of them three workers are stopped."""


def hurt(engine: FaultyEngine, fault: str, worker: int) -> float:
    """Have a worker serve nobody, though it is there; return when."""
    return engine.signal(worker, signal.SIGSTOP) if fault == "SIGSTOP" else engine.order(worker, fault)


@pytest.mark.parametrize("fault", ["SIGSTOP", *only_long("hold 30", "stall 30")])
@pytest.mark.tries(2 * HANGING)
def test_a_worker_that_hangs_is_found_and_replaced(provider: SimulatedProvider, fault: str) -> None:
    """Most workers at once, two times: stopped, with the interpreter's lock held, with the loop stuck."""
    with faulty_engine(provider, workers=HANGING + 2, has_orders=fault != "SIGSTOP") as engine:
        load = engine.load(streams=4 * HANGING, chunks=(60, 100), pace=0.1)
        hurt_at: dict[int, float] = {}
        for _ in range(2):
            load.wait_for(len(load.outcomes()) + 3 * HANGING)
            workers = [engine.pid(f"w{number}") for number in engine.random.sample(range(1, HANGING + 3), HANGING)]
            for worker, _ in zip(workers, engine.moments(HANGING, 0.0, 0.1), strict=True):
                hurt_at[worker] = hurt(engine, fault, worker)
            wait_until(lambda: not alive(workers), 15.0, "the end of those that hang")  # noqa: B023
            engine.wait_ready(HANGING + 2)
        load.stop()
        load.join(30)
        workers_of = engine.workers_of_runs()

    lost = engine.outcomes("WorkerLostError")
    delays = [outcome.ended_at - hurt_at[workers_of[outcome.span_id]] for outcome in lost]
    report(f"{fault} of a worker to its callers' errors", delays, engine)
    assert len(lost) >= 2 * HANGING
    assert max(delays) < HUNG_WITHIN + LOST_WITHIN * (busyness() - 1.0)
    check_others(engine)


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("fault", ["stall", *only_long("SIGSTOP", "hold")])
@pytest.mark.tries(2 * PAUSES)
def test_a_worker_that_pauses_goes_on_and_nothing_is_lost(provider: SimulatedProvider, fault: str) -> None:
    """Pauses that are too short to be a hang. Runs that came in the meantime may go elsewhere: what is said of them late is void."""
    with faulty_engine(provider, workers=4, has_orders=fault != "SIGSTOP") as engine:
        engine.load(streams=24, chunks=(10, 40), pace=0.1).wait_for(20)
        before = [engine.pid(f"w{number}") for number in range(1, 5)]
        for _ in engine.moments(PAUSES, 0.5, 1.5):
            workers = engine.random.sample(before, 2)
            # Until 5 s after its last heartbeat, which may be a second old, or more where the machine is busy.
            pause = engine.random.uniform(3.0, 3.5)
            began = time.monotonic()
            for worker in workers:
                hurt(engine, fault if fault == "SIGSTOP" else f"{fault} {pause}", worker)
            newcomer = engine.load(streams=6, runs=6)
            threading.Event().wait(began + pause - time.monotonic())
            for worker in workers if fault == "SIGSTOP" else []:
                engine.signal(worker, signal.SIGCONT)
            newcomer.join(30)

        assert [engine.pid(f"w{number}") for number in range(1, 5)] == before

    assert {outcome.kind for outcome in engine.outcomes()} == {"done"}
    assert {outcome.attempts for outcome in engine.outcomes()} <= {1, 2}


@pytest.mark.parametrize("fault", ["spin 30", *only_long("SIGSTOP")])
def test_a_run_that_alone_made_its_worker_hang_is_not_tried_again(provider: SimulatedProvider, fault: str) -> None:
    """A run whose answer keeps its worker busy for ever would do so with the next one. A worker that stands still blames nobody."""
    with faulty_engine(provider, workers=2, has_orders=True) as engine:
        stream = engine.stream(engine.client(), first_token_delay=8.0, repeat=3)
        wait_until(engine.calls, 20.0, "its call")
        hurt(engine, fault, engine.worker_of(stream.span_id))
        if fault == "SIGSTOP":
            assert stream.result.result(60 * busyness()).text == "0 1 2 "
            return
        with pytest.raises(PoisonRunError, match="and had no other run"):
            stream.result.result(30 * busyness())
        assert len(engine.calls()) == 1


@pytest.mark.tries(3 * ROUNDS)
def test_runs_sent_to_a_worker_that_has_stopped_go_elsewhere_whatever_fills_its_socket(
    provider: SimulatedProvider,
) -> None:
    """More than a socket takes, to workers that have just stopped: their clients wait in no send, and all runs end well."""
    with faulty_engine(provider, workers=5) as engine:
        client = engine.client()
        prompt = "x" * 500_000
        for _ in range(ROUNDS):
            engine.wait_ready(5)
            stopped = [engine.pid(f"w{number}") for number in engine.random.sample(range(1, 6), 3)]
            for worker in stopped:
                engine.signal(worker, signal.SIGSTOP)
            started_at = time.monotonic()
            streams = [engine.ask(client, prompt, {"repeat": 5}) for _ in range(24)]
            took = time.monotonic() - started_at

            results = [stream.result.result(30 * busyness()) for stream in streams]

            assert took < 2.0 * busyness()
            assert {result.text for result in results} == {"0 1 2 3 4 "}
            assert max(result.attempts for result in results) == 2
            wait_until(lambda: not alive(stopped), 15.0, "the end of those that hang")  # noqa: B023
