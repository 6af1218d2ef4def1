"""Whatever becomes of the broker, running streams do not notice; new ones wait, and then start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from headrace import EngineUnavailableError
from headrace.testing import SimulatedProvider
from headrace_engine.supervisor.restart_policy import SHORT_LIFE
from tests.faults.harness import FaultyEngine, faulty_engine
from tests.faults.load import BEYOND_A_WINDOW
from tests.repetition import only_long, times
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.timeout(300)

FEW_AND_MANY = times(3, 20)
PAUSES = (3.0, 0.2) * 3 + only_long(*[0.2] * 13, 30.0)
"""Seconds for which the broker stands still."""


def all_are_well(engine: FaultyEngine) -> bool:
    """Return whether every run came to the end that its caller wanted."""
    return {outcome.kind for outcome in engine.outcomes()} <= {"done", "aborted"}


def let_it_live(engine: FaultyEngine) -> None:
    """Let the broker live for long enough that its successor is started at once."""
    engine.wait_ready(2)
    threading.Event().wait(SHORT_LIFE + 0.1)


@FEW_AND_MANY
def test_a_killed_broker_disturbs_no_stream_and_loses_no_question(provider: SimulatedProvider, times: int) -> None:
    with faulty_engine(provider, workers=2) as engine:
        engine.load(streams=17, abort_share=0.15).wait_for(10)
        engine.load(streams=3, **BEYOND_A_WINDOW).wait_for(3)

        for number in engine.moments(times, 0.1, 0.8):
            if number % 3 == 0:  # not always one that has only just begun, or the next is started later each time
                let_it_live(engine)
            engine.signal("broker", signal.SIGKILL)

    assert all_are_well(engine)


@FEW_AND_MANY
def test_a_broker_killed_between_question_and_run_leaves_no_run_behind(provider: SimulatedProvider, times: int) -> None:
    with faulty_engine(provider, workers=2) as engine:
        client = engine.client()
        for number in range(times):
            if number % 3 == 0:
                let_it_live(engine)
            streams = [engine.stream(client, repeat=3) for _ in range(30)]
            threading.Event().wait(engine.random.uniform(0.0, 0.02))
            engine.signal("broker", signal.SIGKILL)

            texts = {stream.result.result(30 * busyness()).text for stream in streams}

            assert texts == {"0 1 2 "}, number


@pytest.mark.slow
def test_without_a_broker_streams_go_on_and_new_ones_wait_for_so_long_as_they_are_told_to(
    provider: SimulatedProvider,
) -> None:
    with faulty_engine(provider, workers=2) as engine:
        load = engine.load(streams=10, runs=10, chunks=(60, 120), pace=0.05)
        load.wait_for(10)
        engine.signal("supervisor", signal.SIGSTOP)  # nobody starts another
        engine.signal("broker", signal.SIGKILL)
        hasty = engine.client(connect_timeout=1.0)

        began = time.monotonic()
        with pytest.raises(EngineUnavailableError, match="nothing answered within 1 s"):
            list(engine.stream(hasty, repeat=3))
        waited = time.monotonic() - began
        patient = engine.load(streams=3, runs=3, connect_timeout=60.0)
        patient.wait_for(3, "begin")
        wait_until(lambda: len(load.outcomes()) == 10, 30.0, "the end of all streams")

        assert 0.9 < waited < 5 * busyness()
        assert not patient.outcomes()
        engine.signal("supervisor", signal.SIGCONT)
        patient.join(30)

    assert all_are_well(engine)


@pytest.mark.slow
@pytest.mark.tries(len(PAUSES))
def test_a_broker_that_stands_still_gives_no_lease_twice(provider: SimulatedProvider) -> None:
    with faulty_engine(provider, workers=2) as engine:
        load = engine.load(streams=20, chunks=(2, 60), pace=0.05, abort_share=0.2)
        load.wait_for(10)
        for number in engine.moments(len(PAUSES), 0.1, 0.6):
            broker = engine.pid("broker")
            engine.signal(broker, signal.SIGSTOP)
            threading.Event().wait(PAUSES[number])
            engine.signal(broker, signal.SIGCONT)
            # Whichever broker it is by now, it serves.
            engine.wait_ready(2)

    assert all_are_well(engine)


@FEW_AND_MANY
def test_a_second_engine_on_a_directory_ends_with_a_clear_message(provider: SimulatedProvider, times: int) -> None:
    with faulty_engine(provider, workers=1) as engine:
        load = engine.load(streams=5)
        load.wait_for(5)
        command = [sys.executable, "-m", "headrace_engine", "--directory", str(engine.directory), "--workers", "1"]
        environment = {**os.environ, **provider.environment}

        for _ in range(0, times, 2):  # two at a time, which meet each other too
            others = [
                subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                for _ in range(2)
            ]
            for other in others:
                _, said = other.communicate(timeout=20 * busyness())
                assert other.returncode != 0
                assert f"an engine runs in {engine.directory} already" in said

    assert all_are_well(engine)
