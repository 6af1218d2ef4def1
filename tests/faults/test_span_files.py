"""Files that a crash or a disk has spoiled.

The next engine starts and serves, has all that is whole, and says what is not.
"""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from random import Random

import pytest

from headrace import Client
from headrace.cli.status_command import engine_status
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO
from tests.faults.commands import headrace_here
from tests.faults.harness import FaultyEngine, Load, faulty_engine
from tests.faults.span_flow import Flow, shown_status, span_engine
from tests.faults.span_injuries import (
    Left,
    best,
    cut_journal,
    databases,
    journals,
    ranks_of,
    seeded,
    spoil_database,
    spoil_spool,
    spools,
)
from tests.faults.span_sets import Admitted, admitted, check_texts, span_status, stored, wait_for_all
from tests.repetition import only_long, repeated
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROUNDS = repeated(2, 4)
WORKERS = repeated(2, 3)
"""Each worker leaves a spool. Each round spoils all spools and one journal."""
STREAMS = 6
DAMAGES = ["head", "cut", "noise", *only_long("zeros")]


@pytest.mark.tries((WORKERS + 1) * ROUNDS)
def test_what_is_whole_in_spoiled_spools_and_journals_the_next_engine_has_once(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    runs, left, injuries = Admitted(), list[Left](), 0
    with seeded() as random:
        for number in range(ROUNDS + 1):
            seed = random.getrandbits(32)
            with faulty_engine(provider, workers=WORKERS, data=data, is_young=True, seed=seed) as engine:
                check_is_well(engine, data, left)
                if number < ROUNDS:
                    die_under_load(engine)
                engine.settle()
                runs = runs.and_those(admitted(engine))
            if number < ROUNDS:
                left = spoil(data, random)
                injuries += len(left)

    rows = stored(data)
    print(f"{injuries} injuries: {len(rows)} spans of {len(runs.must)} runs are left, each there once")
    assert rows.keys() <= runs.may
    check_texts({name: row for name, row in rows.items() if row.span.rank.name == "WORKER"}, runs)


def die_under_load(engine: FaultyEngine) -> None:
    """Kill everything, while the spools hold spans that the database has not."""
    load = engine.load(streams=STREAMS, chunks=(1, 6), abort_share=0.2)
    load.wait_for(4 * STREAMS)
    engine.signal("collector", signal.SIGSTOP)
    seen = len(load.events("saw"))
    load.wait_for(seen + 4 * STREAMS, "saw")
    names = ["supervisor", "broker", "collector", *(f"w{number + 1}" for number in range(WORKERS))]
    pids: list[int | Load] = [*(engine.pid(name) for name in names), load]
    engine.is_gone = True
    for pid in pids:
        engine.signal(pid, signal.SIGKILL)


def spoil(data: Path, random: Random) -> list[Left]:
    """Spoil each spool and each journal; return what is left."""
    left = [spoil_spool(path, random) for path in spools(data)]
    left += [cut_journal(path, random) for path in journals(data)]
    assert len(left) > WORKERS
    return left


def check_is_well(engine: FaultyEngine, data: Path, left: list[Left]) -> None:
    """Check that an engine has what was left, says what was not, and serves."""
    ranks, torn = best(*(one.ranks for one in left)), sum(one.is_torn for one in left)
    print(
        f"{len(left)} injuries, {sum(one.lost for one in left)} records and rows behind them: {len(ranks)} spans left"
    )
    wait_for_all(data, ranks)
    client = engine.client()
    streams = [engine.stream(client, repeat=3) for _ in range(WORKERS)]
    assert [stream.result.result(60).text for stream in streams] == ["0 1 2 "] * WORKERS
    new = [stream.span_id for stream in streams]
    client.flush(30.0)  # which waits for the spools too

    rows = stored(data)
    assert {name for name, rank in ranks.items() if rows[name].span.rank < rank} == set()
    assert set(new) <= set(listed(data))
    wait_until(lambda: span_status(engine).dropped == ({"torn": torn} if torn else {}), 10.0, f"{torn} torn spools")
    assert {process.restarts for process in engine.status().processes} == {0}


def listed(data: Path, *options: str) -> list[str]:
    """Return the ids that ``headrace spans list`` shows."""
    return [
        json.loads(line)["span_id"]
        for line in headrace_here("spans", "list", "--data", data, *options).stdout.split("\n")[:-1]
    ]


@pytest.mark.tries(len(DAMAGES))
def test_a_spoiled_database_is_moved_aside_and_named_or_takes_spans_as_before(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    with span_engine(provider, whole) as address, Flow(address, characters=10) as flow:
        flow.wait_for(150)
        flow.stop()
        wait_for_all(whole, flow.ids())
    with seeded() as random:
        for number, what in enumerate(DAMAGES):
            data = tmp_path / str(number) / "data"
            shutil.copytree(whole, data)
            (path,) = databases(data)
            assert not path.with_name(f"{path.name}-wal").exists()
            done = spoil_database(path, random, what)
            fate = check_outlives(provider, data, path, set(flow.ids()))
            print(f"{done}: {fate}")


def check_outlives(provider: SimulatedProvider, data: Path, path: Path, old: set[str]) -> str:
    """Check that an engine with a spoiled database serves and stores; return in words what became of the file."""
    with span_engine(provider, data) as address, Client(address) as client:
        new = [client.run_local(model="gpt-4o", messages=HELLO).span_id for _ in range(3)]
        wait_until(lambda: stored_count(address) == len(new), 30.0, "the new spans")
        listing = headrace_here("spans", "list", "--data", data, "--limit", "0")
        status, shown = engine_status(address, 10.0), shown_status(address)
    assert all(name in listing.stdout for name in new)
    spans, aside = status.spans, path.with_name(f"{path.name}.corrupt")
    assert spans is not None
    assert (spans.state, spans.waiting, spans.dropped) == ("ok", 0, {})
    assert {process.restarts for process in status.processes} == {0}
    if aside.exists():
        assert f"ok: damaged and moved aside: {aside.name}" in shown
        assert ranks_of(path).keys() == set(new)
        return "moved aside"
    assert "moved aside" not in shown
    is_complete = all(name in listing.stdout for name in old)
    assert is_complete or f"{path} is left out: " in listing.stderr
    return "in use, and whole" if is_complete else "in use; what cannot be read is named by who reads it"


def stored_count(address: str) -> int:
    """Return how many spans an engine has stored since its start."""
    spans = engine_status(address, 10.0).spans
    return 0 if spans is None else spans.stored
