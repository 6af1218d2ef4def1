"""The pure parts of a batch job: what it selects, shares, spends, suspects, and how fast it is."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import InvalidRequestError, PoisonRunError
from headrace.batch.driver.cost_bound import CostBound
from headrace.batch.driver.engine_patience import TRIES, EnginePatience
from headrace.batch.driver.job_counts import JobCounts
from headrace.batch.driver.rates import Rates
from headrace.batch.driver.row_feed import RowFeed
from headrace.batch.driver.selection import Selection
from headrace.batch.driver.sharing import Sharing
from headrace.batch.driver.suspects import Suspects
from headrace.batch.row import Row
from headrace.batch.row_runs import RowRunsState
from tests.client.batch.driver.fake_runs import chat_row, chat_rows

NUMBERS = st.lists(st.integers(1, 500), unique=True).map(sorted)
COUNTS = st.none() | st.integers(0, 60)


@given(NUMBERS, COUNTS, COUNTS, st.data())
def test_a_selection_is_of_the_first_rows_and_the_same_each_time(
    numbers: list[int], limit: int | None, sample: int | None, data: st.DataObject
) -> None:
    selection = Selection(limit, sample, iter(numbers))
    chosen = [*selection.among(numbers)]
    first = numbers if limit is None else numbers[:limit]

    assert set(chosen) <= set(first)
    assert len(chosen) == (len(first) if sample is None else min(sample, len(first)))
    assert [*Selection(limit, sample, iter(numbers)).among(numbers)] == chosen
    waiting = [number for number in numbers if data.draw(st.booleans())]
    if not selection.is_whole:
        assert [*selection.among(waiting)] == [number for number in waiting if number in chosen]


def test_a_sample_of_an_uncounted_input_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="sample"):
        Selection(None, 5, None)
    assert Selection(5, None, None).first == 5


@given(NUMBERS)
def test_a_feed_gives_the_rows_that_wait_and_rows_that_run_again(numbers: list[int]) -> None:
    feed = RowFeed(chat_rows(500), Selection(None, None, None), iter(numbers))
    again = set(numbers[::3])
    taken: list[int] = []
    while not feed.is_empty:
        for row in feed.take(7):
            taken.append(row.number)
            if row.number in again and isinstance(row, Row):
                again.discard(row.number)
                feed.put_back(row)

    assert sorted(taken) == sorted(numbers + numbers[::3])


def test_a_feed_gives_the_rows_before_an_error_of_the_input() -> None:
    def rows() -> Iterator[Row]:
        yield chat_row(1)
        yield chat_row(2)
        raise ValueError("torn")

    feed = RowFeed(rows(), Selection(None, None, None), None)
    assert [row.number for row in feed.take(7)] == [1, 2]
    assert not feed.is_empty
    with pytest.raises(ValueError, match="torn"):
        feed.take(7)
    assert feed.is_empty
    assert feed.take(7) == []


def test_equal_rows_wait_for_the_first_one() -> None:
    sharing = Sharing()
    first, second, third = (chat_row(number, "same") for number in (1, 2, 3))
    assert [sharing.joins(row) for row in (first, chat_row(4), second, third)] == [False, False, True, True]
    assert sharing.waiting == 2
    assert sharing.ended(first) == [second, third]
    assert sharing.waiting == 0
    assert not sharing.joins(chat_row(5, "same"))


@given(st.floats(0.001, 100), st.lists(st.floats(0, 1), max_size=50), st.integers(0, 100))
def test_a_bound_of_the_cost_lets_no_more_rows_start_than_their_mean_allows(
    most: float, costs: list[float], running: int
) -> None:
    bound = CostBound(most)
    for cost in costs:
        bound.add(cost)
    room = bound.room(running)

    assert room >= 0
    if costs and sum(costs) > 0:
        mean = sum(costs) / len(costs)
        assert room == 0 or sum(costs) + (running + room) * mean <= most * (1 + 1e-9)
    if sum(costs) >= most:
        assert room == 0


def test_what_earlier_starts_have_spent_counts() -> None:
    assert CostBound(1.0, spent=1.0).room(0) == 0
    assert CostBound(1.0).room(3) == 13


def test_a_suspect_is_tried_alone_once() -> None:
    suspects = Suspects()
    row, error = chat_row(1), PoisonRunError("sp_0", "two workers died")
    assert suspects.add(row, error)
    assert suspects.next() is row
    assert suspects.next() is None
    assert not suspects.add(row, error)
    assert suspects.convicted() == []


def test_a_job_waits_for_a_lost_engine_ever_longer_and_not_for_ever() -> None:
    patience = EnginePatience()
    for _ in range(64):
        patience.lost(10.0, was_alone=False)  # all rows that the engine had
    assert (patience.is_over, patience.next_try) == (False, 10.5)
    patience.found()
    assert not patience.is_waiting

    pauses: list[float] = []
    while not patience.is_over:
        patience.lost(0.0, was_alone=True)
        pauses.append(patience.next_try)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert len(pauses) == TRIES + 1


def test_rates_are_of_the_last_ten_seconds() -> None:
    rates = Rates(0.0, (0.0,))
    for second in range(100):
        rates.note(float(second), (float(second if second < 50 else 50 + 10 * (second - 50)),))
    assert rates.rates(99.0, (50.0 + 10 * 49,)) == (10.0,)


def test_progress_says_how_long_the_rest_takes() -> None:
    counts = JobCounts(0.0, 1000, done_before=400, failed_before=100, cost_before=2.0)
    for second in range(1, 11):
        for _ in range(10):
            counts.ended("run", "")
            counts.spent(0.001, 7, 3)
        counts.note(float(second))
    counts.ended("run", "rate_limit")
    progress = counts.progress(10.0)

    assert (progress.done, progress.failed, progress.errors) == (100, 1, {"rate_limit": 1})
    assert progress.rate == pytest.approx(10.1)
    assert progress.tokens_per_second == pytest.approx(100.0)
    assert progress.seconds_left == pytest.approx(399 / 10.1)
    assert progress.cost == pytest.approx(0.1)


def test_the_time_left_under_a_limit_leaves_out_the_first_burst() -> None:
    counts = JobCounts(0.0, 1060)
    for _ in range(60):
        counts.ended("run", "")
    counts.state = RowRunsState(waiting=64, waiting_for="limit")
    for second in range(1, 9):
        counts.note(float(second))
        assert second > 5 or counts.progress(float(second)).seconds_left is None
        counts.ended("run", "")
    assert counts.progress(9.0).seconds_left == pytest.approx(992.0)


def test_the_numbers_of_a_large_selection_are_kept_as_numbers_of_eight_bytes() -> None:
    assert isinstance(Selection(10, None, range(1, 100)).numbers, array)
