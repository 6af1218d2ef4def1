"""An engine that is told to end lets its runs finish, says so to new ones, and leaves nothing behind, however it ends."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from headrace import EngineUnavailableError, LocalStream
from headrace.testing import SimulatedProvider
from tests.conftest import processes
from tests.faults.harness import FaultyEngine, faulty_engine
from tests.repetition import repeated
from tests.waiting import busyness, wait_until

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]

TIMES = repeated(3, 10)
WORKERS = repeated(1, 2)


def wait_for_the_end(engine: FaultyEngine, timeout: float) -> float:
    """Wait until no process of the engine is left; return how long that took."""
    began = time.monotonic()
    marker = f"--directory {engine.directory} "
    wait_until(lambda: not any(marker in f"{line} " for _, _, line in processes()), timeout, "the engine's end")
    return time.monotonic() - began


def is_refused(stream: LocalStream) -> bool:
    try:
        list(stream)
    except EngineUnavailableError:
        return True
    return False


def kinds(engine: FaultyEngine) -> set[str]:
    return {outcome.kind for outcome in engine.outcomes()}


@pytest.mark.parametrize("number", range(TIMES))
def test_sigterm_under_load_lets_every_running_stream_finish(provider: SimulatedProvider, number: int) -> None:
    with faulty_engine(provider, workers=2, is_young=True) as engine:
        running = engine.load(streams=10, runs=10, chunks=(8, 25))
        running.wait_for(10)
        engine.is_gone = True
        threading.Event().wait(engine.random.uniform(0.0, 0.2))
        engine.signal("supervisor", signal.SIGTERM)
        late = engine.client(connect_timeout=1.0)

        # The supervisor may take a moment to hear the signal.
        wait_until(lambda: is_refused(engine.stream(late, repeat=3)), 10.0, "a refusal")
        running.join(30)
        wait_for_the_end(engine, 20.0)

    assert kinds(engine) == {"done"}, number


@pytest.mark.parametrize("number", range(TIMES))
def test_told_twice_an_engine_ends_now_and_every_caller_is_told(provider: SimulatedProvider, number: int) -> None:
    with faulty_engine(provider, workers=WORKERS, is_young=True) as engine:
        load = engine.load(streams=10, runs=10, chunks=(300, 500))
        load.wait_for(10)
        engine.is_gone = True
        engine.signal("supervisor", signal.SIGTERM)
        threading.Event().wait(engine.random.uniform(0.0, 0.5))
        engine.signal("supervisor", signal.SIGTERM)

        assert wait_for_the_end(engine, 10.0) < 5 * busyness()
        load.join(30)

    assert kinds(engine) <= {"WorkerLostError", "EngineUnavailableError"}, number
    lost = engine.outcomes("WorkerLostError")
    assert all(outcome.text for outcome in lost if outcome.first_at is not None), "what had arrived is kept"


@pytest.mark.parametrize("number", range(TIMES))
def test_no_process_outlives_a_killed_supervisor(provider: SimulatedProvider, number: int) -> None:
    with faulty_engine(provider, workers=WORKERS, is_young=True) as engine:
        load = engine.load(streams=10, runs=10, chunks=(80, 500))
        load.wait_for(10)
        engine.is_gone = True
        threading.Event().wait(engine.random.uniform(0.0, 0.3))
        engine.signal("supervisor", signal.SIGKILL)

        assert wait_for_the_end(engine, 10.0) < 3 * busyness()
        load.join(30)

    assert kinds(engine) <= {"done", "WorkerLostError", "EngineUnavailableError", "PoisonRunError"}, number
