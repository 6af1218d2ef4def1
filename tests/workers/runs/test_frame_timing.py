"""The pace of a worker: it rests under load, and neither without load nor when it needs all of its time."""

from __future__ import annotations

import random

import pytest

from headrace_workers.runs.frame_timing import INTERVAL, WorkerPace


class Loop:
    """A worker's loop in simulated time: chunks arrive at random, and each turn takes all that has come."""

    def __init__(self, rate: float, cost: float = 0.00002, seed: int = 0) -> None:
        self._drawn = random.Random(seed)
        self._rate = rate
        self._cost = cost
        self.pace = WorkerPace()
        self.now = 1000.0
        self.cpu = 5.0
        self._next = self.now
        self.frames = 0
        self.chunks = 0
        self.rested = 0.0
        self.worst = 0.0

    def run(self, seconds: float) -> None:
        """Serve the chunks of so many seconds."""
        until = self.now + seconds
        while self.now < until:
            self.now = max(self.now, self._next)
            count = 0
            while self._next <= self.now:
                self.worst = max(self.worst, self.now - self._next)
                self._next += self._drawn.expovariate(self._rate)
                count += 1
            self.now += count * self._cost
            self.cpu += count * self._cost
            self.chunks += count
            self.frames += 1
            rest = self.pace.rest(self.now, self.cpu)
            self.rested += rest
            self.now += rest


@pytest.mark.parametrize("rate", [1, 10, 50, 100])
def test_a_loop_without_load_never_rests(rate: float) -> None:
    loop = Loop(rate)
    loop.run(20.0)
    assert loop.rested < 0.02 * 20.0
    assert loop.frames > 0.9 * loop.chunks


@pytest.mark.parametrize("rate", [1_000, 5_000, 25_000])
def test_a_loop_under_load_takes_many_chunks_in_one_turn(rate: float) -> None:
    loop = Loop(rate)
    loop.run(1.0)
    loop.frames = loop.chunks = 0
    loop.worst = 0.0
    loop.run(5.0)
    assert loop.chunks / loop.frames > 0.8 * rate * INTERVAL
    assert loop.worst < 2 * INTERVAL


def test_a_loop_that_needs_all_of_its_time_does_not_rest() -> None:
    loop = Loop(25_000, cost=1 / 20_000)
    loop.run(2.0)
    assert loop.rested < 0.05


def test_a_few_frames_after_a_pause_do_not_wait() -> None:
    pace = WorkerPace()
    for _ in range(5):
        pace.rest(1000.0, 1.0)
    assert [pace.rest(2000.0 + count * 0.0001, 1.0) for count in range(5)] == [0.0] * 5
