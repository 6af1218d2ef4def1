"""A batch job whose key is refused: it stops if no row ends in another way, and else its refused rows have failed."""

from __future__ import annotations

from typing import Any

import pytest

from headrace import AuthenticationError, HeadraceError, RunLocalResult
from headrace.batch.driver.job import BatchJob
from headrace.batch.driver.options import BatchOptions
from headrace.batch.row import FinishedRow, Row
from tests.client.batch.driver.fake_runs import FakeRuns, answer_to, chat_rows


def refused(row: Row) -> HeadraceError:
    return AuthenticationError(f"sp_{row.number}", "refused", "", "openai", 401)


def job_of(runs: FakeRuns, count: int) -> BatchJob:
    return BatchJob(runs, chat_rows(count), None, BatchOptions(stops_without_key=True))


def ended_well(finished: Any) -> bool:
    return isinstance(finished, FinishedRow) and isinstance(finished.result, RunLocalResult)


@pytest.mark.parametrize("count", [1, 64, 1000])
def test_it_stops_after_the_first_rows_and_none_of_them_counts_as_failed(count: int) -> None:
    runs = FakeRuns(refused)
    job = job_of(runs, count)

    with pytest.raises(AuthenticationError):
        next(job.run())

    progress = job.progress()
    assert (progress.done, progress.failed, progress.stop_reason) == (0, 0, "key")
    assert len(runs.started) <= 64


def test_if_another_row_ends_well_the_refused_rows_have_failed_and_the_job_goes_on() -> None:
    def answering(row: Row) -> RunLocalResult[Any] | HeadraceError:
        return answer_to(row) if row.number == 60 or row.number > 900 else refused(row)

    # The row that ends well is the last one of the first group.
    runs = FakeRuns(answering, turn=lambda rows: rows[:1] if rows[0].number != 60 or len(rows) == 1 else rows[1:2])

    ended = [*job_of(runs, 1000).run()]

    assert sorted(row.finished.row.number for row in ended if isinstance(row.finished, FinishedRow)) == [
        *range(1, 1001)
    ]
    assert sum(ended_well(row.finished) for row in ended) == 101
