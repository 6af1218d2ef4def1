"""Recycling: a worker leaves only when its replacement serves, and workers are replaced one after another."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace_engine.supervisor import recycling
from headrace_engine.supervisor.recycling import (
    FIRST_RETRY,
    MAX_FAILURES,
    SETTLING,
    START_TIMEOUT,
    Action,
    EndRuns,
    Kill,
    Recycler,
    RecyclingLimits,
    Replace,
    Retire,
)
from tests.repetition import repeated

ASKED = "a restart was asked for"
BY_AGE = RecyclingLimits(max_age=100.0, drain_timeout=30.0)


def engine(limits: RecyclingLimits | None = None, workers: int = 1, now: float = 0.0) -> Recycler:
    """Return a recycler with the workers 1, 2, … that serve."""
    recycler = Recycler(limits or RecyclingLimits())
    for epoch in range(1, workers + 1):
        recycler.started(epoch, now, 0.0)
        recycler.joined(epoch)
    return recycler


def replaced(recycler: Recycler, old: int, new: int, now: float) -> list[Action]:
    """Start ``new`` as the replacement of ``old``. Return what is to be done when it serves."""
    recycler.started(new, now, 0.0, replaces=old)
    assert recycler.due(now) == []
    recycler.joined(new)
    return recycler.due(now)


def test_without_limits_nothing_is_replaced() -> None:
    assert engine(workers=3).due(1e9) == []


def test_a_recycler_is_busy_from_the_wish_to_the_end_of_the_replaced_worker() -> None:
    recycler = engine()
    assert not recycler.is_busy

    recycler.asked()
    assert recycler.is_busy
    assert recycler.due(1.0) == [Replace(1, ASKED)]
    replaced(recycler, 1, 2, 1.0)
    assert recycler.is_busy
    recycler.exited(1, 2.0)
    assert not recycler.is_busy


def test_an_old_worker_leaves_once_its_replacement_serves() -> None:
    recycler = engine(BY_AGE)
    assert recycler.due(99.9) == []
    assert recycler.due(100.0) == [Replace(1, "it is 100 s old")]

    assert replaced(recycler, 1, 2, 100.0) == [Retire(1)]
    assert recycler.due(101.0) == []
    assert recycler.exited(1, 102.0) is False
    assert recycler.due(199.9) == []
    assert recycler.due(200.0) == [Replace(2, "it is 100 s old")]


def test_workers_that_started_together_leave_at_different_ages() -> None:
    recycler = Recycler(BY_AGE)
    for epoch, share in ((1, 0.0), (2, 1.0)):
        recycler.started(epoch, 0.0, share)
        recycler.joined(epoch)

    assert recycler.due(79.9) == []
    assert [action.epoch for action in recycler.due(80.0)] == [2]


def test_a_worker_that_uses_too_much_memory_is_replaced_but_not_at_its_start() -> None:
    recycler = engine(RecyclingLimits(max_memory=1000))
    recycler.measured(1, 1001)
    assert recycler.due(SETTLING - 0.1) == []
    assert recycler.due(SETTLING) == [Replace(1, "it takes 1001 bytes of memory")]

    recycler = engine(RecyclingLimits(max_memory=1000))
    recycler.measured(1, 1000)
    assert recycler.due(1e6) == []


def test_a_restart_replaces_all_one_after_another() -> None:
    recycler = engine(workers=3)
    recycler.asked()

    for old, new in ((1, 11), (2, 12), (3, 13)):
        assert recycler.due(0.0) == [Replace(old, ASKED)]
        recycler.started(new, 0.0, 0.0, replaces=old)
        assert recycler.due(0.0) == [], "one starts at a time"
        recycler.joined(new)
        retire, *further = recycler.due(0.0)
        assert retire == Retire(old)
        assert len(further) == (1 if old < 3 else 0), "the next may start while this one finishes its runs"
        assert recycler.exited(old, 0.0) is False

    assert recycler.due(1e6) == []


def test_never_are_more_workers_leaving_than_serving() -> None:
    recycler = engine(RecyclingLimits(drain_timeout=1e6))
    recycler.asked()
    assert recycler.due(0.0) == [Replace(1, ASKED)]
    assert replaced(recycler, 1, 2, 0.0) == [Retire(1)]

    recycler.asked()
    assert recycler.due(1.0) == []
    recycler.exited(1, 2.0)
    assert recycler.due(2.0) == [Replace(2, ASKED)]


def test_a_worker_that_does_not_finish_is_told_to_end_its_runs_and_at_last_killed() -> None:
    recycler = engine(BY_AGE)
    recycler.due(100.0)
    replaced(recycler, 1, 2, 100.0)

    assert recycler.due(129.9) == []
    assert recycler.due(130.0) == [EndRuns(1)]
    assert recycler.due(131.9) == []
    assert recycler.due(132.0) == [Kill(1)]


# What goes wrong.


def test_if_a_replacement_ends_the_old_worker_stays() -> None:
    recycler = engine()
    recycler.asked()
    recycler.due(0.0)
    recycler.started(2, 0.0, 0.0, replaces=1)

    assert recycler.exited(2, 1.0) is False
    assert recycler.due(1.0 + FIRST_RETRY - 0.1) == []
    assert recycler.due(1.0 + FIRST_RETRY) == [Replace(1, ASKED)]


def test_a_restart_is_given_up_when_replacements_fail() -> None:
    recycler = engine(workers=2)
    recycler.asked()
    now = 0.0
    for number in range(MAX_FAILURES):
        now += 1000.0
        assert recycler.due(now) == [Replace(1, ASKED)]
        recycler.started(10 + number, now, 0.0, replaces=1)
        recycler.exited(10 + number, now)

    assert recycler.due(now + 1e6) == []
    recycler.asked()
    assert recycler.due(now) == [Replace(1, ASKED)]


def test_a_replacement_that_never_serves_is_killed() -> None:
    recycler = engine()
    recycler.asked()
    recycler.due(0.0)
    recycler.started(2, 0.0, 0.0, replaces=1)

    assert recycler.due(START_TIMEOUT - 0.1) == []
    assert recycler.due(START_TIMEOUT) == [Kill(2)]


def test_a_worker_that_dies_while_its_replacement_starts_is_not_started_again() -> None:
    recycler = engine()
    recycler.asked()
    recycler.due(0.0)
    recycler.started(2, 0.0, 0.0, replaces=1)

    assert recycler.exited(1, 1.0) is False
    assert recycler.exited(2, 2.0) is True, "nobody else is there"


@pytest.mark.parametrize("epoch", [1, 99])
def test_a_worker_that_dies_is_started_again(epoch: int) -> None:
    assert engine().exited(epoch, 1.0) is True


class RecyclingMachine(RuleBasedStateMachine):
    """Workers start, serve, grow old and die at any time. The shell carries out each action."""

    WORKERS = 3

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.epochs = 0
        self.recycler = Recycler(RecyclingLimits(max_age=60.0, drain_timeout=20.0))
        self.starting: dict[int, int | None] = {}
        self.serving: set[int] = set()
        self.leaving: set[int] = set()
        for _ in range(self.WORKERS):
            self.start(None)

    def start(self, replaces: int | None) -> None:
        self.epochs += 1
        self.starting[self.epochs] = replaces
        self.recycler.started(self.epochs, self.now, (self.epochs % 7) / 7, replaces)

    @rule(seconds=st.sampled_from([0.0, 1.0, 10.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for action in self.recycler.due(self.now):
            match action:
                case Replace():
                    assert action.epoch in self.serving
                    assert not any(old is not None for old in self.starting.values())
                    self.start(action.epoch)
                case Retire():
                    assert action.epoch in self.serving
                    self.serving.remove(action.epoch)
                    self.leaving.add(action.epoch)
                    assert self.serving, "somebody serves"
                case EndRuns():
                    assert action.epoch in self.leaving
                case Kill():
                    assert action.epoch in self.leaving | set(self.starting)
                    self.end(action.epoch)

    @rule()
    def new_ones_are_asked_for(self) -> None:
        self.recycler.asked()

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def one_serves(self, data: st.DataObject) -> None:
        epoch = data.draw(st.sampled_from(sorted(self.starting)))
        del self.starting[epoch]
        self.serving.add(epoch)
        self.recycler.joined(epoch)

    @rule(data=st.data())
    def one_ends(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(sorted({*self.starting, *self.serving, *self.leaving}))))

    def end(self, epoch: int) -> None:
        self.starting.pop(epoch, None)
        for group in (self.serving, self.leaving):
            group.discard(epoch)
        if self.recycler.exited(epoch, self.now):
            self.start(None)

    @invariant()
    def there_are_as_many_workers_as_there_should_be(self) -> None:
        replacing = len(self.starting) + len(self.serving) - self.WORKERS
        assert replacing in (0, 1)

    @invariant()
    def those_who_leave_do_not_outnumber_the_others(self) -> None:
        assert len(self.leaving) <= self.WORKERS + 1


TestRecyclingMachine = RecyclingMachine.TestCase
TestRecyclingMachine.settings = settings(max_examples=repeated(30, 150), stateful_step_count=60, deadline=None)


def test_the_figures_are_those_of_the_documentation() -> None:
    figures = (recycling.START_TIMEOUT, recycling.END_GRACE, recycling.SETTLING, recycling.MAX_FAILURES)

    assert figures == (30.0, 2.0, 5.0, 3)
    assert (recycling.FIRST_RETRY, recycling.MAX_RETRY) == (5.0, 300.0)
    assert RecyclingLimits() == RecyclingLimits(max_age=0.0, max_memory=0, drain_timeout=30.0)
