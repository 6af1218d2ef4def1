"""A client that goes, however it goes, leaves nothing behind: provider connections are closed and leases returned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import pytest

from headrace.process.history import VARIABLE, HistoryEvent
from headrace.testing import SimulatedProvider
from tests.cases import case
from tests.conftest import engine_processes, processes
from tests.faults.harness import FaultyEngine, Load, faulty_engine, percentile
from tests.history.facts import Limits
from tests.history.model import ProviderCall, read_histories
from tests.repetition import only_long, repeated
from tests.waiting import busyness, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLOSED_WITHIN = 0.5
"""Seconds from a client's death to its closed provider connections and returned leases, p99."""
ENDED_WITHIN = 2.0
"""Seconds that a program with open streams takes to end, once it wants to."""
BUSY = 4
"""By how much the worst may be slower on any machine: on an idle one it is a tenth of what is promised."""
KILLS = repeated(6, 60)
AT_A_TIME = 3
MAX_RUNS = 12
"""For each of two workers: fewer than the clients want."""
STREAMS = 8
LIMITS = Limits(max_runs_per_worker=MAX_RUNS, overshoot=2 * STREAMS)
"""A dead client's leases may be another's a moment before its worker, too, has seen the death."""


@pytest.mark.tries(KILLS)
def test_a_killed_client_frees_what_it_held_and_no_other_notices(provider: SimulatedProvider) -> None:
    """At any moment: while it waits for leases, before the first chunk, in mid-stream."""
    config = f"[engine]\nmax_runs_per_worker = {MAX_RUNS}\n"
    killed: dict[int, float] = {}
    with faulty_engine(provider, workers=2, config=config, limits=LIMITS) as engine:
        survivor = engine.load(streams=10, chunks=(4, 17), abort_share=0.1)
        victims = [victim(engine) for _ in range(AT_A_TIME)]
        for number in engine.moments(KILLS, 0.0, 0.3):
            load = victims.pop(0)
            wait_for_moment(engine, load, number)
            killed[load.pid] = engine.signal(load, signal.SIGKILL)
            if number < KILLS - AT_A_TIME:
                victims.append(victim(engine))
        for load in victims:
            load.stop()
        survivor.wait_for(len(survivor.outcomes()) + 10, "saw")
        engine.settle()
        histories = {history.pid: history.events for history in read_histories(engine.history)}
        broker = histories[engine.pid("broker")]
        calls = engine.calls()
        closed = [delay for pid, at in killed.items() for delay in closing_delays(calls, histories.get(pid, []), at)]
        returned = [delay for pid, at in killed.items() for delay in leaving_delays(broker, pid, at)]
        waited = sum(waits_for_a_lease(histories.get(pid, [])) for pid in killed)

    report("provider connections closed", closed)
    report("leases returned", returned)
    print(f"{waited} of {len(killed)} clients had runs that waited for a lease")
    for delays in (closed, returned):
        assert percentile(delays, 0.5) < CLOSED_WITHIN * busyness()
        # A client's connections close together: one client that met a busy machine is all of the last percent.
        assert percentile(delays, 0.99) < BUSY * CLOSED_WITHIN * busyness()
    assert {outcome.kind for outcome in survivor.outcomes()} <= {"done", "aborted"}


def wait_for_moment(engine: FaultyEngine, load: Load, number: int) -> None:
    """Wait until some of a client's runs have been asked for, or have begun to arrive, and for a moment more."""
    if number % 2:
        load.wait_for(1, "begin")
        threading.Event().wait(engine.random.uniform(0.0, 0.5))
    else:
        load.wait_for(4, "first")
        threading.Event().wait(engine.random.uniform(0.0, 0.1))


def victim(engine: FaultyEngine) -> Load:
    return engine.load(streams=STREAMS, chunks=(8, 66), first_delay=(0.0, 1.0))


def closing_delays(calls: list[ProviderCall], events: list[HistoryEvent], killed_at: float) -> Iterator[float]:
    """Yield how long after its client's death each provider call ended that was open, or came yet."""
    spans = {event.span_id for event in events if event.event == "submit"}
    for call in calls:
        if call.span_id in spans and call.ended_at is not None and call.ended_at > killed_at:
            yield call.ended_at - max(killed_at, call.arrived_at)


def leaving_delays(broker: list[HistoryEvent], pid: int, killed_at: float) -> Iterator[float]:
    """Yield how long after a client's death its broker let it go, and its leases with it."""
    peers = {event.peer for event in broker if event.event == "received hello" and event.pid == pid}
    for event in broker:
        if event.event == "left" and event.peer in peers and event.at > killed_at:
            yield event.at - killed_at


def waits_for_a_lease(events: list[HistoryEvent]) -> bool:
    """Return whether a client has died before all its questions were answered."""
    asked = {event.span_id for event in events if event.event == "sent acquire"}
    return bool(asked - {event.span_id for event in events if event.event == "received grant"})


def report(what: str, delays: list[float]) -> None:
    p50, p99 = percentile(delays, 0.5) * 1000, percentile(delays, 0.99) * 1000
    print(f"{what} after p50 {p50:.0f} ms, p99 {p99:.0f} ms, most {max(delays) * 1000:.0f} ms ({len(delays)})")


# Programs that end, or are interrupted, with streams open.

PROGRAM = """
import asyncio, os, random, sys, threading, time
from headrace import Client

way, address, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
client = Client(address or None)


def arguments():
    span_id = f"sp_{random.getrandbits(64):016x}"
    return {
        "model": "gpt-4o", "messages": [{"role": "user", "content": span_id}], "span_id": span_id, "stream": True,
        "custom_options": {"simulate": {"repeat": 100000, "pace": 0.02}},
    }


def sync():
    iterators = [iter(client.run_local(**arguments())) for _ in range(10)]
    for iterator in iterators:
        next(iterator)
    print("begun", flush=True)
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        for iterator in iterators:
            next(iterator)


def threads():
    has_read = threading.Semaphore(0)

    def read():
        for _ in client.run_local(**arguments()):
            has_read.release()

    for _ in range(10):
        threading.Thread(target=read, daemon=True).start()
    for _ in range(10):
        has_read.acquire()
    print("begun", flush=True)
    time.sleep(seconds)


async def tasks():
    async def read(stream):
        async for _ in stream:
            has_read.set()

    has_read = asyncio.Event()
    streams = [await client.arun_local(**arguments()) for _ in range(10)]
    readers = [asyncio.create_task(read(stream)) for stream in streams[:5]]  # nobody reads the others
    await has_read.wait()
    print("begun", flush=True)
    await asyncio.sleep(seconds)


kept = {"sync": sync, "threads": threads, "async": lambda: asyncio.run(tasks())}[way]()
print(time.monotonic(), flush=True)
"""
FOR_EVER = 600.0


class Ending(NamedTuple):
    """How a program reads its streams, whose engine it uses, and what ends it."""

    way: str
    is_embedded: bool
    is_interrupted: bool


WAYS = ("sync", "threads", "async")
PAIRS = [
    Ending("sync", is_embedded=False, is_interrupted=False),
    Ending("sync", is_embedded=True, is_interrupted=True),
    Ending("threads", is_embedded=True, is_interrupted=False),
    Ending("threads", is_embedded=False, is_interrupted=True),
    Ending("async", is_embedded=True, is_interrupted=False),
    Ending("async", is_embedded=False, is_interrupted=True),
]
"""Each value of one field comes with each value of every other."""
ALL = [Ending(*values) for values in product(WAYS, (False, True), (False, True))]
ENDINGS = [*PAIRS, *only_long(*2 * ALL, *5 * [ending for ending in ALL if not ending.is_embedded])]


@pytest.mark.tries(len(ENDINGS))
def test_a_program_with_open_streams_ends_within_two_seconds(provider: SimulatedProvider) -> None:
    took: dict[Ending, list[float]] = {}
    with faulty_engine(provider, workers=2) as engine:
        for ending in ENDINGS:
            with case(*ending):
                took.setdefault(ending, []).append(end_one(engine, ending, engine.random.uniform(0.0, 0.3)))
                # Nobody is left, and nothing.
                closed = "no open provider call"
                wait_until(lambda: all(call.ended_at is not None for call in engine.calls()), 2.0, closed)

    for is_embedded in (False, True):
        seconds = sorted(one for ending, some in took.items() if ending.is_embedded == is_embedded for one in some)
        engines = "own" if is_embedded else "shared"
        print(f"with {engines} engines ended after {', '.join(f'{one:.2f}' for one in seconds)} s")
        assert percentile(seconds, 0.5) < ENDED_WITHIN * busyness()
        # Of a few, the worst has met whatever else the machine was at.
        assert max(seconds) < BUSY * ENDED_WITHIN * busyness()


def end_one(engine: FaultyEngine, ending: Ending, seconds: float) -> float:
    """Run a program; return how long it took to end, from its own end or the signal on."""
    given = str(FOR_EVER if ending.is_interrupted else seconds)
    address = "" if ending.is_embedded else engine.address
    environment = {**os.environ, **engine.provider.environment}
    if ending.is_embedded:
        # Its engine is ended with it, in the midst of everything: there would be no end in the histories.
        del environment[VARIABLE]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, ending.way, address, given],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        if program.stdout.readline() != b"begun\n":
            raise AssertionError(f"status {program.wait()}: {program.stderr.read().decode()}")
        own = engine_processes(program.pid)
        assert bool(own) == ending.is_embedded
        if ending.is_interrupted:
            threading.Event().wait(seconds)
            wanted_at = time.monotonic()
            # As a terminal does it: the engine's processes, too, if they can be reached.
            os.killpg(program.pid, signal.SIGINT)
        else:
            wanted_at = float(program.stdout.readline())
        program.wait(30 * busyness())
        took = time.monotonic() - wanted_at
    assert program.returncode in ((-signal.SIGINT, 1, 130) if ending.is_interrupted else (0,))
    wait_until(lambda: not [line for _, _, line in processes() if line in own], 5.0, "no process of its engine")
    return took
