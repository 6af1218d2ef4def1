"""Readers that pause or are stopped lose nothing; programs that fork keep what is theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import pytest

from headrace import ForkedStreamError, LocalStream
from headrace.testing import SimulatedProvider
from tests.conftest import ROOT
from tests.faults.harness import faulty_engine
from tests.repetition import only_long, repeated
from tests.waiting import busyness, wait_until

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

TIMES = repeated(4, 20)
WAYS = ("sync", "threads", "daemon", "async")
PROGRAMS = [
    *((way, "end") for way in WAYS),
    ("async", "raise"),
    ("daemon", "wait"),
    *only_long(*((way, ending) for way in WAYS for ending in ("end", "raise", "wait") * 2)),
]
"""What has streams open, and how the program comes to its end."""


@pytest.mark.tries(TIMES)
def test_readers_that_pause_lose_nothing_and_are_not_cut_off(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=2) as engine:
        # Far more than a window, so that a reader that pauses stops its provider.
        slow = engine.load(
            streams=TIMES, runs=TIMES, chunks=(500, repeated(600, 900)), pace=0.003, pause_share=1.0, pause=(2.0, 5.0)
        )
        others = engine.load(streams=4, pause_share=0.1)
        wait_until(lambda: len(slow.outcomes()) == TIMES, 60.0, "the end of the slow ones")
        others.join(30)

    assert {outcome.kind for outcome in engine.outcomes()} == {"done"}


@pytest.mark.tries(TIMES)
def test_clients_that_are_stopped_go_on_where_they_were(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=2) as engine:
        # So fast that each of their streams fills its window while they are stopped.
        stopped = [engine.load(streams=2, chunks=(150, 300), pace=0.005) for _ in range(2)]
        others = engine.load(streams=5)
        for load in (*stopped, others):
            load.wait_for(2)
        for _ in engine.moments(TIMES, 0.0, 0.1):
            load = engine.random.choice(stopped)
            engine.signal(load, signal.SIGSTOP)
            threading.Event().wait(engine.random.uniform(0.5, 1.0))
            engine.signal(load, signal.SIGCONT)

        others.join(30)
        assert {outcome.kind for outcome in others.outcomes()} == {"done"}

    assert {outcome.kind for outcome in engine.outcomes()} == {"done"}


@pytest.mark.tries(TIMES)
def test_a_fork_in_the_middle_of_streams_leaves_them_to_the_parent(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=2) as engine:
        client = engine.client()
        for number in engine.moments(TIMES, 0.0, 0.05):
            streams = [engine.stream(client, repeat=60, pace=0.002) for _ in range(3)]
            texts = [next(iterator) for iterator in map(iter, streams)]
            threading.Event().wait(engine.random.uniform(0.0, 0.05))
            pid = os.fork()
            if pid == 0:
                # A run of its own, on the client that it has from its parent.
                os._exit(_in_child(streams, engine.stream(client, repeat=5)))

            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, number
            whole = "".join(f"{count} " for count in range(60))
            assert [stream.result.result(90).text for stream in streams] == [whole] * 3
            assert texts == ["0 "] * 3


def _in_child(inherited: list[LocalStream], own: LocalStream) -> int:
    """Return 0 when everything is as it should be in a forked child."""
    try:
        for stream in inherited:
            with pytest.raises(ForkedStreamError):
                stream.abort()
            with pytest.raises(ForkedStreamError):
                next(iter(stream))
        assert "".join(own) == "0 1 2 3 4 "
    except BaseException:  # noqa: BLE001 - whatever it is, the child must end by itself
        traceback.print_exc()
        return 1
    return 0


_PROGRAM = """
import asyncio, random, sys, threading
from headrace import Client
client = Client(sys.argv[1])
def said():
    span_id = f"sp_{random.getrandbits(64):016x}"
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": span_id}], "stream": True, "span_id": span_id,
            "custom_options": {"simulate": {"repeat": 100000, "pace": 0.02}}}
def begin():
    streams = [client.run_local(**said()) for _ in range(3)]
    firsts = [next(iter(stream)) for stream in streams]
    return streams
way = sys.argv[2]
if way == "sync":
    streams = begin()
elif way == "threads":
    kept = []
    threads = [threading.Thread(target=lambda: kept.append(begin())) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
elif way == "daemon":
    ready = threading.Event()
    def read():
        stream = client.run_local(**said())
        for chunk in stream: ready.set()
    threading.Thread(target=read, daemon=True).start()
    ready.wait()
elif way == "async":
    async def main():
        global stream
        stream = await client.arun_local(**said())
        async for chunk in stream: break
    asyncio.run(main())
print("ready", flush=True)
if sys.argv[3] == "raise": raise SystemExit(3)
if sys.argv[3] == "wait": threading.Event().wait()
"""


@pytest.mark.tries(len(PROGRAMS))
def test_a_program_ends_within_two_seconds_whatever_is_open(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=1) as engine:
        for way, ending in PROGRAMS:
            command = [sys.executable, "-c", _PROGRAM, engine.address, way, ending]
            program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n", (way, ending, program.communicate()[1])
            began = time.monotonic()
            if ending == "wait":
                program.send_signal(signal.SIGINT)
            _, said = program.communicate(timeout=90)

            assert time.monotonic() - began < 2.5 * busyness(), (way, ending)
            assert program.returncode == {"end": 0, "raise": 3, "wait": -signal.SIGINT}[ending], (way, said)
            closed = f"closed streams: {way}, {ending}"
            wait_until(lambda: all(record.outcome != "open" for record in engine.provider.requests()), 5.0, closed)
            wait_until(lambda: engine.status().leases == 0, 5.0, f"all leases back: {way}, {ending}")
