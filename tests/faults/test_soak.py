"""Under mixed load and random faults nothing grows with what has been done: memory, descriptors, threads."""

from __future__ import annotations

import pytest

from headrace.testing import SimulatedProvider
from tests.faults.harness import faulty_engine
from tests.faults.process_figures import MIB, Figures, figures
from tests.faults.process_watch import CACHES, MORE_DESCRIPTORS, MORE_THREADS
from tests.faults.soak import soak
from tests.repetition import long_test

SECONDS = 120.0
ROUNDS = 3
RUNS = 200
"""In each round, and before the first one."""
MORE_MEMORY = 4.0
"""MiB that the rounds may add to a process: the least that its allocator takes at a time, some times over."""


@pytest.mark.slow
@pytest.mark.tries(ROUNDS)
@pytest.mark.timeout(180)
def test_rounds_of_runs_leave_no_descriptor_no_thread_and_no_memory_in_any_process(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=2) as engine:
        load = engine.load(streams=10, chunks=(1, 10), pace=0.001, abort_share=0.2, other_share=0.2)
        rounds: list[dict[str, Figures]] = []
        for _ in range(ROUNDS + 1):
            load.wait_for(len(load.events("saw")) + RUNS, "saw")
            pids = {name: engine.pid(name) for name in ("supervisor", "broker", "collector", "w1", "w2")}
            rounds.append({name: figures(pid) for name, pid in {**pids, "client": load.pid}.items()})

    grown = {name: (rounds[0][name], rounds[-1][name]) for name in rounds[0]}
    for name, (before, after) in grown.items():
        more = (after.memory - before.memory) / MIB
        print(f"{name}: {more:+.1f} MiB, {before.descriptors} → {after.descriptors} descriptors")
        assert after.descriptors <= before.descriptors + MORE_DESCRIPTORS, name
        assert after.threads <= before.threads + MORE_THREADS, name
        assert more <= CACHES.get(name, MORE_MEMORY), name


@long_test
@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 180)
def test_nothing_grows_while_everything_dies_now_and_then(provider: SimulatedProvider) -> None:
    """Two minutes of what ``scripts/soak`` does for ten; every run is checked, and nothing is left at the end."""
    report = soak(provider, SECONDS)

    print(report.text())
    assert report.violations() == []
    assert {series.name for series in report.series} >= {"supervisor", "w1", "client"}
