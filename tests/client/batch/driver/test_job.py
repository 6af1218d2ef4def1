"""A batch job on a fake engine: each row ends once, failures end only their own row, and the job stops in good order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import (
    BudgetExceededError,
    EngineUnavailableError,
    HeadraceError,
    OutputValidationError,
    PoisonRunError,
    QueueFullError,
    RateLimitError,
    RunLocalResult,
)
from headrace.batch.driver.engine_patience import EnginePatience
from headrace.batch.driver.job import BatchJob
from headrace.batch.driver.options import BatchOptions
from headrace.batch.driver.recorder import EndedRow
from headrace.batch.row import BadRow, FinishedRow, Row
from tests.client.batch.driver.fake_runs import FakeRuns, answer_to, chat_row, chat_rows


def job_of(runs: FakeRuns, rows: Any, **options: Any) -> BatchJob:
    return BatchJob(runs, rows, None, BatchOptions(**options), patience=EnginePatience(first_pause=0.0))


def outcome(row: EndedRow) -> tuple[int, str]:
    """Return the number of a row, and its text or the name of its error."""
    finished = row.finished
    if isinstance(finished, BadRow):
        return finished.number, "BadRow"
    result = finished.result
    text = result.text if isinstance(result, RunLocalResult) else type(result).__name__
    return finished.row.number, text


def outcomes(rows: Iterator[EndedRow]) -> dict[int, str]:
    """Return the outcome of each row, and check that each has one."""
    pairs = [outcome(row) for row in rows]
    assert len({number for number, _ in pairs}) == len(pairs)
    return dict(pairs)


def take_all(job: BatchJob, seen: list[EndedRow]) -> None:
    """Add the rows of a job to ``seen``, as far as it comes."""
    seen.extend(job.run())


def cost_of(row: EndedRow) -> float:
    """Return the cost of a row with a result."""
    assert isinstance(row.finished, FinishedRow)
    assert isinstance(row.finished.result, RunLocalResult)
    return row.finished.result.cost or 0.0


def answers(count: int) -> dict[int, str]:
    return {number: f"answer {number}" for number in range(1, count + 1)}


@given(
    count=st.integers(0, 300),
    concurrency=st.integers(1, 200),
    seed=st.integers(0, 2**32),
    dedupe=st.booleans(),
    keys=st.integers(1, 50),
)
def test_each_row_ends_once_in_whichever_order(
    count: int, concurrency: int, seed: int, dedupe: bool, keys: int
) -> None:
    random = Random(seed)
    rows = [chat_row(number, f"prompt {random.randrange(keys)}") for number in range(1, count + 1)]
    failing = {row.hash for row in rows if random.random() < 0.1}

    def answering(row: Row) -> RunLocalResult[Any] | HeadraceError:
        return RateLimitError("sp_0", "busy", "", "openai", 429) if row.hash in failing else answer_to(row)

    runs = FakeRuns(answering, lambda flying: random.sample(flying, random.randint(0, len(flying))))
    job = job_of(runs, rows, concurrency=concurrency, dedupe=dedupe)
    found = outcomes(job.run())

    assert found.keys() == {row.number for row in rows}
    assert {number for number, said in found.items() if said == "RateLimitError"} == {
        row.number for row in rows if row.hash in failing
    }
    assert runs.most_in_flight <= concurrency
    if dedupe:
        answered = [row.hash for row in runs.started if row.hash not in failing]
        assert len(set(answered)) == len(answered)
    else:
        assert sorted(runs.numbers) == [row.number for row in rows]
    progress = job.progress()
    assert (progress.phase, progress.total) == ("ended", count)
    assert progress.done + progress.failed == count


def test_rows_are_started_in_groups_while_the_window_is_full() -> None:
    runs = FakeRuns(turn=lambda flying: flying[:1])
    assert outcomes(job_of(runs, chat_rows(500), concurrency=64).run()) == answers(500)

    assert max(runs.groups) == 64
    assert min(runs.groups[:-1]) >= 16


def test_the_input_is_read_only_as_far_as_rows_are_taken() -> None:
    read: list[int] = []

    def rows() -> Iterator[Row]:
        for number in range(1, 100_001):
            read.append(number)
            yield chat_row(number)

    running = job_of(FakeRuns(), rows(), concurrency=32).run()
    for _ in range(10):
        next(running)

    assert len(read) <= 10 + 32
    running.close()  # type: ignore[attr-defined]


def test_a_bad_row_fails_alone() -> None:
    rows = [*chat_rows(2), BadRow(3, "line-3", "it is no JSON"), chat_row(4)]
    job = job_of(FakeRuns(), rows)

    assert outcomes(job.run()) == {1: "answer 1", 2: "answer 2", 3: "BadRow", 4: "answer 4"}
    assert job.progress().failed == 1


def test_an_input_that_breaks_off_loses_nothing_that_was_started() -> None:
    def rows() -> Iterator[Row]:
        yield from (chat_row(number) for number in range(1, 11))
        raise OSError("the disk is gone")

    job = job_of(FakeRuns(), rows())
    seen: list[EndedRow] = []
    with pytest.raises(OSError, match="the disk is gone"):
        take_all(job, seen)

    assert len(seen) <= 10
    assert job.progress().stop_reason == "input"


# Rows that run again.


def test_an_answer_that_does_not_fit_is_asked_for_again_and_all_answers_are_paid() -> None:
    tries: dict[int, int] = {}

    def answering(row: Row) -> RunLocalResult[Any] | HeadraceError:
        tries[row.number] = tries.get(row.number, 0) + 1
        needed = {1: 1, 2: 3, 3: 9}[row.number]
        if tries[row.number] < needed:
            return OutputValidationError("sp_0", "no number", "x", "$.price", answer_to(row).usage, 0.01)
        return answer_to(row)

    job = job_of(FakeRuns(answering), chat_rows(3), schema_retries=2)
    found = {row.finished.row.number: row.finished for row in job.run() if isinstance(row.finished, FinishedRow)}

    assert tries == {1: 1, 2: 3, 3: 3}
    assert cost_of(EndedRow(found[2])) == pytest.approx(0.03)
    assert isinstance(found[3].result, OutputValidationError)
    assert job.progress().cost == pytest.approx(0.07)


def test_a_row_that_is_refused_because_too_many_wait_runs_later() -> None:
    refused: set[int] = set()

    def answering(row: Row) -> RunLocalResult[Any] | HeadraceError:
        if row.number % 3 == 0 and row.number not in refused:
            refused.add(row.number)
            return QueueFullError("sp_0", "too many runs wait")
        return answer_to(row)

    assert outcomes(job_of(FakeRuns(answering), chat_rows(30)).run()) == answers(30)


def test_an_engine_that_comes_back_gets_the_rows_again() -> None:
    gone = iter([True] * (64 + 3))

    def answering(row: Row) -> RunLocalResult[Any] | HeadraceError:
        return EngineUnavailableError("embedded", "it went away") if next(gone, False) else answer_to(row)

    assert outcomes(job_of(FakeRuns(answering), chat_rows(100)).run()) == answers(100)


def test_without_an_engine_the_job_ends_with_the_error_and_no_row_fails() -> None:
    runs = FakeRuns(lambda _: EngineUnavailableError("embedded", "it cannot be started"))
    job = job_of(runs, chat_rows(100))
    seen: list[EndedRow] = []
    with pytest.raises(EngineUnavailableError):
        take_all(job, seen)

    assert seen == []
    assert job.progress().stop_reason == "engine"
    assert len(runs.started) <= 64 + 6


def test_a_reached_spending_limit_of_the_settings_ends_the_job() -> None:
    def answering(row: Row) -> RunLocalResult[Any] | HeadraceError:
        return answer_to(row) if row.number <= 5 else BudgetExceededError("sp_0", "10 USD a day are spent")

    job = job_of(FakeRuns(answering), chat_rows(1000))
    seen: list[EndedRow] = []
    with pytest.raises(BudgetExceededError):
        take_all(job, seen)

    assert [outcome(row) for row in seen] == [*answers(5).items()]


def test_a_row_that_was_on_workers_that_died_is_run_alone_before_it_counts_as_poison() -> None:
    guilty = {7, 8}
    alone: list[int] = []
    runs = FakeRuns()

    def answering(row: Row) -> RunLocalResult[Any] | HeadraceError:
        is_retry = runs.numbers.count(row.number) == 2
        if is_retry:
            alone.append(len(runs.in_flight))
        if row.number in guilty or (row.number in {6, 9} and not is_retry):
            return PoisonRunError("sp_0", "two workers died")
        return answer_to(row)

    runs._answering = answering
    found = outcomes(job_of(runs, chat_rows(20)).run())

    assert found == answers(20) | {7: "PoisonRunError", 8: "PoisonRunError"}
    assert alone == [0] * 4


def test_after_ten_guilty_rows_the_others_are_not_tried_alone() -> None:
    runs = FakeRuns(lambda _: PoisonRunError("sp_0", "two workers died"))
    assert len(outcomes(job_of(runs, chat_rows(40)).run())) == 40
    assert len(runs.started) == 50


# Ends before the last row.


def test_an_interrupt_finishes_what_runs_and_a_second_one_aborts_it() -> None:
    runs = FakeRuns(turn=lambda flying: flying[:1])
    job = job_of(runs, chat_rows(1000), concurrency=16)
    running = job.run()
    seen = [outcome(next(running))]
    job.interrupt()
    seen += [outcome(row) for row in running]

    assert dict(seen) == answers(len(seen))
    assert len(seen) == len(runs.started) <= 32
    assert not runs.was_aborted
    assert job.progress().stop_reason == "interrupted"

    runs = FakeRuns(turn=lambda flying: flying[:1])
    job = job_of(runs, chat_rows(1000), concurrency=16)
    running = job.run()
    next(running)
    job.interrupt()
    job.interrupt()

    assert [*running] == []
    assert runs.was_aborted


def test_an_interrupt_gives_back_the_rows_that_are_on_no_worker() -> None:
    runs = FakeRuns(turn=lambda flying: flying[:1])
    job = job_of(runs, chat_rows(1000), concurrency=64)
    running = job.run()
    seen = [outcome(next(running))]
    job.interrupt()
    runs.waiting = len(runs.in_flight) - 4
    seen += [outcome(row) for row in running]

    # Those on workers have their result, and one more that ended before the job looked.
    assert 5 <= len(seen) <= 6
    assert dict(seen) == answers(len(seen))
    assert not runs.in_flight
    assert job.progress().stop_reason == "interrupted"
    assert job.progress().failed == 0


def test_a_program_that_takes_no_more_results_aborts_what_runs() -> None:
    runs = FakeRuns(turn=lambda flying: flying[:1])
    running = job_of(runs, chat_rows(1000)).run()
    next(running)
    running.close()  # type: ignore[attr-defined]

    assert runs.was_aborted
    assert not runs.in_flight


def test_the_bound_of_the_cost_holds_with_the_rows_that_run() -> None:
    random = Random(1)
    runs = FakeRuns(turn=lambda flying: random.sample(flying, min(3, len(flying))))
    job = job_of(runs, chat_rows(1000), max_cost=1.0)
    found = outcomes(job.run())

    assert 98 <= len(found) <= 100
    assert job.progress().stop_reason == "max_cost"
    assert job.progress().cost <= 1.0 + 1e-9


@pytest.mark.parametrize(("max_cost", "most"), [(0.005, 0), (0.035, 3)])
def test_a_small_bound_of_the_cost_holds_from_the_first_row_on(max_cost: float, most: int) -> None:
    runs = FakeRuns()
    job = job_of(runs, chat_rows(100), max_cost=max_cost)

    assert len(outcomes(job.run())) == most
    assert job.progress().stop_reason == "max_cost"


def test_without_a_price_no_bound_can_hold_and_the_job_stops() -> None:
    job = job_of(FakeRuns(lambda row: answer_to(row, cost=None)), chat_rows(1000), max_cost=1.0)

    assert len(outcomes(job.run())) <= 16
    assert job.progress().stop_reason == "no_price"


# Answers that are there already.


def test_equal_rows_cost_one_call() -> None:
    rows = [chat_row(number, f"prompt {number % 7}") for number in range(1, 501)]
    runs = FakeRuns()
    job = job_of(runs, rows, dedupe=True)
    found = [*job.run()]

    assert len(runs.started) == 7
    assert sum(cost_of(row) for row in found) == pytest.approx(0.07)
    assert job.progress().shared == 493


def test_rows_that_wait_for_an_equal_row_fail_with_it_and_later_ones_run() -> None:
    failed: list[int] = []

    def answering(row: Row) -> RunLocalResult[Any] | HeadraceError:
        if not failed:
            failed.append(row.number)
            return RateLimitError("sp_0", "busy", "", "openai", 429)
        return answer_to(row, text="later")

    rows = [chat_row(number, "same") for number in range(1, 4)]

    def later() -> Iterator[Row]:
        yield from rows
        number = 100
        while not failed:
            yield chat_row(number)
            number += 1
        yield chat_row(1000, "same")

    runs = FakeRuns(answering)
    found = outcomes(job_of(runs, later(), dedupe=True, concurrency=4).run())

    assert [found[number] for number in (1, 2, 3)] == ["RateLimitError"] * 3
    assert found[1000] == "later"


@pytest.mark.parametrize(
    "error",
    [
        PoisonRunError("sp_0", "two workers died"),
        OutputValidationError("sp_0", "no number"),
        QueueFullError("sp_0", ""),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_row_for_which_many_equal_rows_wait_runs_again(error: HeadraceError) -> None:
    runs = FakeRuns()

    def answering(row: Row) -> RunLocalResult[Any] | HeadraceError:
        return error if len(runs.started) == 1 else answer_to(row, text="later")

    runs._answering = answering
    job = job_of(runs, [chat_row(number, "same") for number in range(1, 20_001)], dedupe=True)

    assert {*outcomes(job.run()).values()} == {"later"}
    assert len(runs.started) == 2
    assert job.progress().done == 20_000


@pytest.mark.parametrize(
    "error", [PoisonRunError("sp_0", ""), QueueFullError("sp_0", "")], ids=lambda error: type(error).__name__
)
def test_in_order_a_row_that_runs_again_holds_back_the_others_and_memory_is_bounded(error: HeadraceError) -> None:
    runs = FakeRuns()

    def answering(row: Row) -> RunLocalResult[Any] | HeadraceError:
        return error if row.number == 1 and runs.numbers.count(1) == 1 else answer_to(row)

    runs._answering = answering
    numbers = [outcome(row)[0] for row in job_of(runs, chat_rows(10_000), is_ordered=True).run()]

    assert numbers == [*range(1, 10_001)]
    assert runs.numbers.index(1, 1) <= 4096 + 1024


def test_a_file_of_answers_serves_later_jobs(tmp_path: Path) -> None:
    cache = tmp_path / "answers"
    first = FakeRuns()
    assert outcomes(job_of(first, chat_rows(300), cache=cache).run()) == answers(300)
    second = FakeRuns()
    job = job_of(second, chat_rows(310), cache=cache)
    assert outcomes(job.run()) == answers(310)

    assert second.numbers == [*range(301, 311)]
    assert job.progress().cached == 300
    assert job.progress().cost == pytest.approx(0.1)


def test_failures_are_not_kept_in_the_file_of_answers(tmp_path: Path) -> None:
    def refuse(_: Row) -> HeadraceError:
        return RateLimitError("sp_0", "busy", "", "openai", 429)

    outcomes(job_of(FakeRuns(refuse), chat_rows(3), cache=tmp_path / "answers").run())
    later = FakeRuns()
    assert outcomes(job_of(later, chat_rows(3), cache=tmp_path / "answers").run()) == answers(3)


def test_a_sample_is_the_same_each_time_and_a_limit_takes_the_first_rows() -> None:
    def chosen(**options: Any) -> list[int]:
        runs = FakeRuns()
        outcomes(job_of(runs, chat_rows(1000), **options).run())
        return runs.numbers

    assert chosen(limit=10) == [*range(1, 11)]
    assert len(chosen(sample=10)) == 10
    assert chosen(sample=10) == chosen(sample=10)
    assert max(chosen(limit=50, sample=10)) <= 50
