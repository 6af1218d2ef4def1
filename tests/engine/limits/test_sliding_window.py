"""The sliding window and the pacing, against a plain list of what was granted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_engine.limits.pacing import Pacing
from headrace_engine.limits.sliding_window import MARGIN, WINDOW, SlidingWindow, slot_of

STEPS = st.lists(st.tuples(st.floats(0.0, 40.0), st.integers(0, 50)), max_size=60)


@given(STEPS)
def test_an_amount_counts_for_61_seconds_and_at_most_a_quarter_more(steps: list[tuple[float, int]]) -> None:
    window = SlidingWindow()
    now = 1000.0
    granted: list[tuple[float, int]] = []
    for passed, amount in steps:
        now += passed
        window.advance(slot_of(now))
        window.add(amount)
        granted.append((now, amount))

        least = sum(amount for at, amount in granted if at > now - WINDOW - MARGIN)
        most = sum(amount for at, amount in granted if at > now - WINDOW - MARGIN - 0.25)
        assert least <= window.total <= most


@given(STEPS, st.integers(1, 500))
def test_the_window_says_when_an_amount_is_free_again(steps: list[tuple[float, int]], amount: int) -> None:
    window = SlidingWindow()
    other = SlidingWindow()
    now = 1000.0
    for number, (passed, used) in enumerate(steps):
        now += passed
        for one in (window, other):
            one.advance(slot_of(now))
        (other if number % 3 == 0 else window).add(used)
    before = window.total + other.total
    amount = min(amount, before)
    until = window.freed_at(amount, other)

    for one in (window, other):
        one.advance(slot_of(until))

    assert before - window.total - other.total >= amount
    assert until - now <= WINDOW + MARGIN + 0.25


@given(STEPS, st.lists(st.tuples(st.integers(0, 60), st.integers(-60, 60)), max_size=20))
def test_changes_of_earlier_slots_leave_the_window_when_their_slots_do(
    steps: list[tuple[float, int]], changes: list[tuple[int, int]]
) -> None:
    window = SlidingWindow()
    now = 1000.0
    slots = []
    for passed, amount in steps:
        now += passed
        window.advance(slot_of(now))
        window.add(amount)
        slots.append(window.slot)
    for index, difference in changes:
        if index < len(slots):
            window.change(slots[index], difference)

    assert window.total == sum(amount for _, amount in window.slots())
    assert all(amount > 0 for _, amount in window.slots())
    window.advance(slot_of(now + WINDOW + MARGIN + 0.25))
    assert window.total == 0


def test_the_newest_is_forgotten_first() -> None:
    window = SlidingWindow()
    for second, amount in ((100.0, 5), (101.0, 7), (102.0, 9)):
        window.advance(slot_of(second))
        window.add(amount)

    assert window.remove_newest(8) == 8
    assert window.slots() == [(slot_of(100.0), 5), (slot_of(101.0), 7), (slot_of(102.0), 1)]
    assert window.remove_newest(100) == 13
    assert window.remove_newest(1) == 0


def test_a_window_goes_to_the_next_broker_but_for_what_is_old_or_in_the_future() -> None:
    window = SlidingWindow()
    window.advance(slot_of(100.0))
    window.restore(
        [(slot_of(20.0), 3), (slot_of(90.0), 4), (slot_of(100.0), 5), (slot_of(200.0), 6), (slot_of(95.0), -2)]
    )

    assert window.total == 9


@given(st.integers(1, 5000), st.lists(st.tuples(st.floats(0.0, 20.0), st.integers(1, 200)), max_size=60), st.booleans())
def test_pacing_allows_a_burst_and_the_rate_and_one_run_more(
    limit: int, steps: list[tuple[float, int]], is_batch: bool
) -> None:
    pacing = Pacing(limit, 1000.0)
    now = 1000.0
    gone = 0
    for passed, size in steps:
        amount = min(size, limit)  # a larger run counts as large as the limit
        now += passed
        now += pacing.wait(amount, now, is_batch=is_batch)
        assert pacing.wait(amount, now, is_batch=is_batch) == 0.0
        pacing.take(amount, now)
        gone += amount

        assert gone <= pacing.burst + pacing.rate * (now - 1000.0) + max(amount - pacing.burst, 0) + 0.01


def test_most_of_the_burst_is_kept_for_interactive_runs() -> None:
    pacing = Pacing(600, 1000.0)

    while not pacing.wait(1, 1000.0, is_batch=True):
        pacing.take(1, 1000.0)

    assert pacing.level(1000.0) == 108
    assert pacing.wait(1, 1000.0, is_batch=False) == 0.0
    assert pacing.wait(1, 1000.0, is_batch=True) == pytest.approx(0.1, abs=1e-3)


def test_what_a_run_reserved_and_did_not_use_may_leave_at_once() -> None:
    pacing = Pacing(6000, 1000.0)
    pacing.take(1200, 1000.0)

    pacing.take(-1100, 1000.0)

    assert pacing.wait(1100, 1000.0, is_batch=False) == 0.0
    assert pacing.wait(1101, 1000.0, is_batch=False) > 0.0


def test_a_refused_burst_is_remembered_for_ten_minutes() -> None:
    pacing = Pacing(600, 1000.0)

    pacing.refused(1000.0)
    assert pacing.level(1000.0) == 60

    pacing.take(1, 1599.0)
    assert pacing.burst == 60
    pacing.take(1, 1600.0)
    assert pacing.burst == 120


def test_a_lower_limit_takes_what_the_bucket_had_too_much() -> None:
    pacing = Pacing(6000, 1000.0)

    pacing.configure(600, 1000.0)

    assert pacing.level(1000.0) == 120
    assert pacing.rate == 10.0


def test_after_a_hold_the_burst_leaves_at_twice_the_rate() -> None:
    pacing = Pacing(600, 1000.0)
    pacing.hold(1, 1010.0, 1001.0)
    gone: list[float] = []
    now = 1010.0
    while len(gone) < 60:
        now += pacing.wait(1, now, is_batch=False)
        pacing.take(1, now)
        gone.append(now)

    assert gone[0] == 1010.0
    assert gone[1] == pytest.approx(1010.05, abs=1e-3)
    assert gone[-1] == pytest.approx(1010 + 59 / 20, abs=0.01)
