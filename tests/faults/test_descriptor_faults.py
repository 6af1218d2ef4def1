"""With 200 descriptors for each process, what is beyond them waits or is turned away, and nothing spins, dies or is lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.testing import SimulatedProvider
from tests.faults.harness import FaultyEngine, faulty_engine
from tests.faults.process_figures import cpu_seconds, figures
from tests.repetition import repeated
from tests.waiting import busyness, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DESCRIPTORS = 200
RUNS = repeated(105, 200)
"""Runs of each program. Two programs have 100 streams each at a time, more than one worker has descriptors for."""
FEW = ("sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh")
STORMS = repeated(3, 20)


def processes_of(engine: FaultyEngine) -> dict[str, int]:
    workers = [worker.name for worker in engine.status().workers]
    return {name: engine.pid(name) for name in ("supervisor", "broker", *workers)}


@contextmanager
def connections(paths: list[Path], count: int) -> Iterator[int]:
    """Hold up to ``count`` connections, none of which says a word; yield how many there are.

    They come within a second or so. ZeroMQ ends a process for which they come faster than it can shut its door.
    """
    with contextlib.ExitStack() as held:
        made = 0
        for number in range(count):
            if number % 10 == 0:
                threading.Event().wait(0.02)
            peer = held.enter_context(socket.socket(socket.AF_UNIX))
            peer.setblocking(False)
            # A full queue, or a socket that is not there for now: that is being turned away.
            with contextlib.suppress(OSError):
                peer.connect(str(paths[number % len(paths)]))
                made += 1
        yield made


def test_runs_beyond_the_descriptors_wait_their_turn(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=1, wrapper=FEW) as engine:
        before = processes_of(engine)
        plan = {"streams": 100, "runs": RUNS, "chunks": (1, 4), "connect_timeout": 60.0}
        loads = [engine.load(**plan) for _ in range(2)]
        while not all(len(load.outcomes()) == RUNS for load in loads):
            assert all(figures(pid).descriptors < DESCRIPTORS for pid in before.values())
            threading.Event().wait(0.2)

        assert processes_of(engine) == before
        assert {outcome.kind for outcome in engine.outcomes()} == {"done"}


@pytest.mark.tries(STORMS)
def test_connections_beyond_the_descriptors_are_turned_away_and_let_in_again(provider: SimulatedProvider) -> None:
    """Storms of silent connections, to the broker and to a worker, while streams run."""
    with faulty_engine(provider, workers=2, wrapper=FEW) as engine:
        before = processes_of(engine)
        load = engine.load(streams=5)
        load.wait_for(5)
        sockets = [engine.directory / "broker", next(engine.directory.glob("w1-*"))]
        for _ in engine.moments(STORMS, 0.0, 0.3):
            with connections(sockets, engine.random.randrange(150, 600)) as made:
                assert made >= 20
                ended = len(load.outcomes())
                wait_until(lambda: len(load.outcomes()) > ended, 20.0, "streams that go on")  # noqa: B023
            # Room again, for a program that was never there before.
            newcomer = engine.load(streams=2, runs=2, chunks=(1, 3))
            newcomer.join(40)

        assert processes_of(engine) == before
        assert {outcome.kind for outcome in engine.outcomes()} == {"done"}


def test_an_engine_without_descriptors_does_not_spin(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=2, wrapper=FEW) as engine:
        sockets = [engine.directory / "broker", *engine.directory.glob("w?-*")]
        with connections(sockets, 900):
            threading.Event().wait(1.0)  # for what comes with their arrival
            before = {pid: cpu_seconds(pid) for pid in processes_of(engine).values()}
            threading.Event().wait(3.0)
            took = {pid: cpu_seconds(pid) - cpu for pid, cpu in before.items()}

        print(f"CPU seconds in 3 s: {sorted(took.values())}")
        assert max(took.values()) < 1.0
        assert engine.stream(engine.client(), repeat=5).result.result(30 * busyness()).text == "0 1 2 3 4 "
