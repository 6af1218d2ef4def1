"""A worker that dies: its callers learn of it soon, others never notice, and it is replaced."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from headrace import EngineUnavailableError, LocalStream, PoisonRunError
from headrace.testing import SimulatedProvider
from tests.faults.harness import FaultyEngine, SeenOutcome, faulty_engine, percentile
from tests.faults.load import BEYOND_A_WINDOW
from tests.faults.worker_losses import LOST_WITHIN, check_others, report
from tests.repetition import repeated, times
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.timeout(300)

FEW_AND_MANY = times(3, 20)
CRASHES = repeated(3, 20)
LEAST_RESTARTS = 3


# Deaths.


@FEW_AND_MANY
def test_a_run_whose_worker_dies_before_its_first_chunk_runs_again_unseen(
    provider: SimulatedProvider, times: int
) -> None:
    with faulty_engine(provider, workers=3) as engine:
        client = engine.client()
        for number in engine.moments(times, 0.0, 0.5):
            engine.wait_ready(2)
            # Later than the kill, however busy the machine is.
            delay = busyness()
            streams = [engine.stream(client, repeat=5, first_token_delay=delay) for _ in range(6)]
            spans = [stream.span_id for stream in streams]
            wait_until(lambda: {call.span_id for call in engine.calls()} >= set(spans), 10.0, "all runs' calls")  # noqa: B023
            threading.Event().wait(engine.random.uniform(0.0, 0.3))
            engine.signal(engine.worker_of(spans[0]), signal.SIGKILL)

            results = [stream.result.result(30 * busyness()) for stream in streams]

            assert {result.text for result in results} == {"0 1 2 3 4 "}, number
            assert results[0].attempts == 2
            assert {result.attempts for result in results} <= {1, 2}


def lost_after(kills: list[float], outcomes: list[SeenOutcome]) -> list[float]:
    """Return how long after the kill before it each error came."""
    return [outcome.ended_at - max(at for at in kills if at <= outcome.ended_at) for outcome in outcomes]


@FEW_AND_MANY
def test_callers_learn_of_a_killed_worker_with_the_partial_text(provider: SimulatedProvider, times: int) -> None:
    with faulty_engine(provider, workers=3) as engine:
        # Slow ones: what is measured is not how busy the machine is.
        engine.load(streams=27, pace=0.1, abort_share=0.1).wait_for(10)
        engine.load(streams=3, **BEYOND_A_WINDOW).wait_for(3)

        kills = [engine.signal(engine.some_worker(), signal.SIGKILL) for _ in engine.moments(times, 0.3, 1.2)]

    lost = engine.outcomes("WorkerLostError")
    delays = lost_after(kills, lost)
    report("SIGKILL of a worker to its callers' errors", delays, engine)
    assert delays
    assert percentile(delays, 0.99) < LOST_WITHIN * busyness()
    assert all(outcome.text for outcome in lost), "of what had no text yet, there was a second attempt"
    check_others(engine)


@pytest.mark.slow
@pytest.mark.tries(2 * CRASHES)
def test_a_worker_that_crashes_is_as_one_that_is_killed(provider: SimulatedProvider) -> None:
    orders = ["abort", "segfault"] * CRASHES
    with faulty_engine(provider, workers=3, has_orders=True) as engine:
        engine.load(streams=27, pace=0.1).wait_for(15)
        engine.load(streams=3, **BEYOND_A_WINDOW).wait_for(3)

        crashes = [
            engine.order(engine.some_worker(), orders[number]) for number in engine.moments(len(orders), 0.3, 1.2)
        ]

    delays = lost_after(crashes, engine.outcomes("WorkerLostError"))
    report("crash of a worker to its callers' errors", delays, engine)
    assert percentile(delays, 0.99) < 2 * LOST_WITHIN * busyness()  # a core may be written first
    check_others(engine)


@contextmanager
def memory_limit(figure: int) -> Iterator[Path]:
    """Make a group of processes that the kernel ends when they take more memory than this, in bytes; yield its folder."""
    group = Path(f"/sys/fs/cgroup/memory/headrace-test-{figure}-{time.monotonic_ns()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(figure))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error.strerror}")
    try:
        yield group
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), 10.0, "an empty group")
        group.rmdir()


@pytest.mark.slow
@pytest.mark.tries(CRASHES)
def test_a_worker_without_memory_is_as_one_that_is_killed(provider: SimulatedProvider) -> None:
    with (
        memory_limit(300 * 1024 * 1024) as group,
        faulty_engine(provider, workers=3, has_orders=True) as engine,
    ):
        load = engine.load(streams=20)
        load.wait_for(10)
        for _ in engine.moments(CRASHES, 0.3, 1.0):
            worker = engine.some_worker()
            with suppress(ProcessLookupError):  # one that joins while another fills the group may be ended at once
                (group / "cgroup.procs").write_text(str(worker))
                engine.order(worker, "memory")
        # The last ones take a moment to fill what they may have.
        wait_until(lambda: not (group / "cgroup.procs").read_text(), 30.0, "the end of all that took memory")

    assert engine.outcomes("WorkerLostError")
    check_others(engine)


@contextmanager
def killing_each(engine: FaultyEngine, name: str) -> Iterator[None]:
    """Kill every process that gets this name."""
    is_over = threading.Event()

    def kill_each() -> None:
        killed: set[int | None] = {None}
        while not is_over.wait(0.02):
            for process in engine.status().processes:
                if process.name == name and process.pid not in killed:
                    killed.add(process.pid)
                    engine.signal(process.pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill_each)
    killer.start()
    try:
        yield
    finally:
        is_over.set()
        killer.join()


@pytest.mark.slow
@pytest.mark.tries(LEAST_RESTARTS)
def test_a_worker_that_always_dies_is_started_ever_more_rarely_and_runs_are_told(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=1) as engine:
        client = engine.client()
        with killing_each(engine, "w1"):
            until = time.monotonic() + 20.0
            errors: list[Exception] = []
            while time.monotonic() < until:
                with pytest.raises((PoisonRunError, EngineUnavailableError)) as error:
                    engine.stream(client, repeat=5, first_token_delay=5.0).result.result(40 * busyness())
                errors.append(error.value)
            restarts = next(process.restarts for process in engine.status().processes if process.name == "w1")

        print(f"{restarts} restarts; {Counter(type(error).__name__ for error in errors)}")
        assert all("worker" in str(error) for error in errors)
        assert LEAST_RESTARTS <= restarts < 12
        wait_until(lambda: any(worker.state == "ok" for worker in engine.status().workers), 15.0, "a worker again")
        assert engine.stream(client, repeat=5).result.result(30 * busyness()).text == "0 1 2 3 4 "


# Runs that kill.


@FEW_AND_MANY
def test_a_run_that_was_present_at_two_deaths_is_refused_and_others_recover(
    provider: SimulatedProvider, times: int
) -> None:
    with faulty_engine(provider, workers=4) as engine:
        load = engine.load(streams=10, chunks=(4, 8), first_delay=(0.0, 0.0))
        load.wait_for(5)
        client = engine.client()
        for _ in range(times):
            engine.wait_ready(3)
            poison = engine.stream(client, first_token_delay=60)
            for attempt in (1, 2):
                wait_until(lambda: calls_of(engine, poison) == attempt, 20.0, "its call")  # noqa: B023
                engine.signal(engine.worker_of(poison.span_id), signal.SIGKILL)

            with pytest.raises(PoisonRunError, match="present at 2 worker deaths"):
                poison.result.result(10 * busyness())
            assert engine.stream(client, repeat=5).result.result(30 * busyness()).text == "0 1 2 3 4 "

    check_others(engine)
    kinds = Counter(outcome.kind for outcome in engine.outcomes())
    assert kinds["done"] > kinds["PoisonRunError"]


def calls_of(engine: FaultyEngine, stream: LocalStream) -> int:
    return sum(call.span_id == stream.span_id for call in engine.calls())
