"""Whoever dies, and whenever: every run that was admitted has one span, with what its caller saw."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from headrace.errors import HeadraceError
from headrace.testing import SimulatedProvider
from tests.faults.harness import FaultyEngine, Load, faulty_engine
from tests.faults.span_sets import Admitted, admitted, check_set, check_texts, kinds, stored, wait_for_all
from tests.repetition import repeated
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FEW_KILLS = {"worker": 3, "collector": 3, "broker": 3, "client": 3}
MANY_KILLS = {"worker": 40, "collector": 25, "broker": 15, "client": 15}
KILLS = repeated(FEW_KILLS, MANY_KILLS)
DEATHS_OF_ALL = repeated(3, 5)
STREAMS = 8


def start_load(engine: FaultyEngine, streams: int = STREAMS) -> Load:
    return engine.load(streams=streams, chunks=(1, 16), pace=0.05, abort_share=0.2)


@pytest.mark.tries(sum(KILLS.values()))
def test_whoever_dies_every_admitted_run_has_one_span(provider: SimulatedProvider, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with faulty_engine(provider, workers=3, data=data) as engine:
        loads = [start_load(engine) for _ in range(3)]
        for load in loads:
            load.wait_for(4)
        targets = [name for name, count in KILLS.items() for _ in range(count)]
        engine.random.shuffle(targets)
        for number in engine.moments(len(targets), 0.1, 0.4):
            kill(engine, targets[number], loads)
        # What clients alone know is with the collector before the engine ends.
        wait_until(partial(all_run, engine), 30.0, "all processes")
        engine.client().flush(30.0)
        for load in loads:
            load.wait_for(len(load.events("saw")) + 2 * STREAMS, "saw")
        engine.settle()

        runs = admitted(engine)
        wait_for_all(data, runs.must)

    rows = stored(data)
    report(f"{KILLS}", rows, runs)
    check_set(rows, runs)
    check_texts(rows, runs)


def all_run(engine: FaultyEngine) -> bool:
    """Return whether there is every process that is to be."""
    with contextlib.suppress(HeadraceError):  # the broker too may be a moment from its start
        return {process.state for process in engine.status(1.0).processes} == {"running"}
    return False


def kill(engine: FaultyEngine, target: str, loads: list[Load]) -> None:
    """Kill one of a kind; another load takes the place of a client."""
    if target == "client":
        load = loads.pop(engine.random.randrange(len(loads)))
        load.wait_for(STREAMS // 2)
        engine.signal(load, signal.SIGKILL)
        loads.append(start_load(engine))
    else:
        engine.signal(engine.random.choice(["w1", "w2", "w3"]) if target == "worker" else target, signal.SIGKILL)


def report(what: str, rows: object, runs: Admitted) -> None:
    assert isinstance(rows, dict)
    seen = dict(Counter(event.kind for event in runs.told.values()))
    print(f"{what}: {len(runs.must)} runs, {len(rows)} spans: {kinds(rows)}; callers saw {seen}")


@pytest.mark.tries(DEATHS_OF_ALL)
def test_what_everything_left_when_it_died_the_next_engine_finds(provider: SimulatedProvider, tmp_path: Path) -> None:
    data = tmp_path / "data"
    runs = Admitted()
    for _ in range(DEATHS_OF_ALL):
        with faulty_engine(provider, workers=2, data=data, is_young=True) as engine:
            load = start_load(engine, 2 * STREAMS)
            load.wait_for(2 * STREAMS)
            for _ in engine.moments(1, 0.1, 1.0):
                kill_everything(engine, load)
            engine.settle()
            runs = runs.and_those(admitted(engine))

    with faulty_engine(provider, workers=1, data=data, is_young=True) as engine:
        wait_for_all(data, runs.must)
        engine.client().flush(30.0)

    rows = stored(data)
    report(f"{DEATHS_OF_ALL} deaths of everything", rows, runs)
    check_set(rows, runs)
    check_texts(rows, runs)


def kill_everything(engine: FaultyEngine, load: Load) -> None:
    names = ["supervisor", "broker", "collector", "w1", "w2"]
    pids: list[int | Load] = [*(engine.pid(name) for name in names), load]
    engine.random.shuffle(pids)
    engine.is_gone = True
    for pid in pids:
        engine.signal(pid, signal.SIGKILL)
