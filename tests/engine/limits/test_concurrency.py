"""The number of runs at once: cut by overload, grown by successes, forgotten after a quiet minute."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace_engine.limits.concurrency import CUT_INTERVAL, FEW, FORGET_AFTER, Concurrency


def test_nothing_is_limited_before_anything_is_known() -> None:
    concurrency = Concurrency()
    for _ in range(10_000):
        assert concurrency.has_room("batch", 0.0)
        concurrency.enter()


def test_an_overload_leaves_seven_tenths_of_the_runs_and_its_further_signs_change_nothing() -> None:
    concurrency = Concurrency()
    for _ in range(100):
        concurrency.enter()
    for _ in range(30):
        concurrency.overloaded(1.0)
        concurrency.leave(1.0)
    assert concurrency.limit == 70


def test_as_many_successes_as_the_limit_make_room_for_one_more_while_the_limit_is_used() -> None:
    concurrency = Concurrency()
    for _ in range(20):
        concurrency.enter()
    concurrency.overloaded(0.0)
    for _ in range(6):
        concurrency.leave(0.0)
    assert concurrency.limit == 14

    for _ in range(14):
        concurrency.leave(1.0, is_success=True)
        concurrency.enter()
    assert concurrency.limit == 15


def test_an_overload_while_few_runs_go_teaches_no_limit() -> None:
    concurrency = Concurrency()
    for _ in range(FEW - 1):
        concurrency.enter()
    concurrency.overloaded(0.0)
    assert concurrency.limit is None


def test_successes_far_below_the_limit_do_not_raise_it() -> None:
    concurrency = Concurrency()
    for _ in range(20):
        concurrency.enter()
    concurrency.overloaded(0.0)
    for _ in range(18):
        concurrency.leave(0.0)
    for _ in range(100):
        concurrency.enter()
        concurrency.leave(1.0, is_success=True)
    assert concurrency.limit == 14


def test_a_tenth_is_kept_for_interactive_runs() -> None:
    concurrency = Concurrency(20)
    for _ in range(18):
        assert concurrency.has_room("batch", 0.0)
        concurrency.enter()
    assert not concurrency.has_room("batch", 0.0)
    assert concurrency.has_room("interactive", 0.0)


def test_batch_runs_have_room_where_the_limit_is_one() -> None:
    assert Concurrency(1).has_room("batch", 0.0)


class ConcurrencyMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.running = 0
        self.cut_at = float("-inf")
        self.concurrency = Concurrency()

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 40), priority=st.sampled_from(["interactive", "batch"]))
    def runs_come(self, count: int, priority: str) -> None:
        for _ in range(count):
            if not self.concurrency.has_room(priority, self.now):  # type: ignore[arg-type]
                break
            limit = self.concurrency.limit
            assert limit is None or self.running < limit
            self.concurrency.enter()
            self.running += 1

    @rule(count=st.integers(1, 40), is_success=st.booleans())
    def runs_end(self, count: int, is_success: bool) -> None:
        before = self.concurrency.limit
        ended = min(count, self.running)
        for _ in range(ended):
            self.concurrency.leave(self.now, is_success=is_success)
        self.running -= ended
        after = self.concurrency.limit
        if before is not None:
            assert after is not None
            assert before <= after <= before + (ended if is_success else 0)

    @rule()
    def overload(self) -> None:
        before = self.concurrency.limit
        self.concurrency.overloaded(self.now)
        after = self.concurrency.limit
        if self.now - self.cut_at < CUT_INTERVAL or self.running < FEW:
            assert after == before
        else:
            assert after is not None
            assert after <= 0.7 * self.running
            self.cut_at = self.now

    @rule()
    def all_end_and_a_quiet_minute_passes(self) -> None:
        for _ in range(self.running):
            self.concurrency.leave(self.now)
        self.running = 0
        self.concurrency.enter()
        self.concurrency.leave(self.now)
        until = self.concurrency.forgotten_at()
        self.now = self.now + FORGET_AFTER if until is None else max(self.now, until)
        assert self.concurrency.has_room("batch", self.now)
        assert self.concurrency.limit is None
        assert self.concurrency.is_at_rest(self.now)

    @rule()
    def new_broker(self) -> None:
        new = Concurrency()
        new.restore(self.concurrency.state(), self.now)
        for _ in range(self.running):
            new.enter()
        assert new.limit == self.concurrency.limit
        self.concurrency = new

    @invariant()
    def one_run_may_always_go(self) -> None:
        assert self.running > 0 or self.concurrency.has_room("batch", self.now)
        assert self.concurrency.running == self.running


ConcurrencyMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestConcurrency = ConcurrencyMachine.TestCase
