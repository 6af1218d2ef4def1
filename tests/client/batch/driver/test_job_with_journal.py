"""A batch job with its journal: kills lose nothing, a full disk stops it in good order, and rows may be left to a provider."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import ConfigurationError, HeadraceError, RateLimitError, RecordWriteError, RunLocalResult
from headrace.batch.driver.engine_patience import EnginePatience
from headrace.batch.driver.job import BatchJob
from headrace.batch.driver.options import BatchOptions
from headrace.batch.journal.job_files import job_directory, job_files
from headrace.batch.journal.job_records import ChosenRows, JobStatus, RowRecord
from headrace.batch.journal.journal import Journal
from headrace.batch.journal.status import read_status
from headrace.batch.records.record_lines import failure_line
from headrace.batch.row import BadRow, FinishedRow, Row
from headrace.batch.row_runs import RowRuns, RowRunsState
from tests.client.batch.driver.fake_runs import FakeRuns, answer_to, chat_row, chat_rows
from tests.repetition import repeated


def scanned(folder: Path, rows: Sequence[Row | BadRow], kind: type[Journal] = Journal, **options: Any) -> Journal:
    """Return the journal of a job, which knows the rows."""
    journal = kind.open(job_files(folder / "out.jsonl"), **options)
    journal.scan(rows, failure_line)
    return journal


def job_of(runs: RowRuns, rows: Sequence[Row | BadRow], journal: Journal, **options: Any) -> BatchJob:
    return BatchJob(runs, rows, journal, BatchOptions(**options), patience=EnginePatience(first_pause=0.0))


def records(folder: Path, name: str = "out.jsonl") -> list[str]:
    """Return the ids in a file of records."""
    path = folder / name
    return [json.loads(line)["id"] for line in path.read_text().splitlines()] if path.exists() else []


@settings(max_examples=repeated(10, 100))
@given(count=st.integers(1, 200), seed=st.integers(0, 2**32), dedupe=st.booleans())
def test_each_row_has_one_record_whenever_the_job_is_left_and_started_again(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int, dedupe: bool
) -> None:
    folder = tmp_path_factory.mktemp("job")
    random = Random(seed)
    rows: list[Row | BadRow] = [
        BadRow(number, f"row-{number}", "is no JSON")
        if random.random() < 0.05
        else chat_row(number, f"prompt {random.randrange(2 * count)}")
        for number in range(1, count + 1)
    ]

    def answering(row: Row) -> RunLocalResult[Any] | HeadraceError:
        return RateLimitError("sp_0", "busy", "", "openai", 429) if row.number % 7 == 0 else answer_to(row)

    done = False
    while not done:
        before = {*records(folder), *records(folder, "out.errors.jsonl")}
        runs = FakeRuns(answering, lambda flying: random.sample(flying, random.randint(0, len(flying))))
        with scanned(folder, rows) as journal:
            running = job_of(runs, rows, journal, dedupe=dedupe, concurrency=random.randint(1, 100)).run()
            done = True
            for _ in running:
                if random.random() < 0.02:
                    done = False
                    break
            running.close()  # type: ignore[attr-defined]
        assert not before & {row.id for row in runs.started}

    ids = [*records(folder), *records(folder, "out.errors.jsonl")]
    assert sorted(ids) == sorted(row.id for row in rows)


def test_a_limit_counts_rows_and_no_lines(tmp_path: Path) -> None:
    rows: list[Row | BadRow] = [chat_row(number) for number in range(5, 500, 5)]  # blank lines are between them
    runs = FakeRuns()
    with scanned(tmp_path, rows) as journal:
        job = job_of(runs, rows, journal, limit=10)
        assert len([*job.run()]) == 10
    assert runs.numbers == [*range(5, 55, 5)]
    ended = read_status(job_directory(tmp_path / "out.jsonl"))
    assert (ended.rows_to_run, ended.ended, ended.waiting, ended.totals.rows) == (10, 10, 0, 99)

    more = FakeRuns()
    with scanned(tmp_path, rows) as journal:
        job = job_of(more, rows, journal, limit=12)
        assert job.progress().done_before == 10
        assert len([*job.run()]) == 2
    assert more.numbers == [55, 60]

    def left_with(**options: int) -> JobStatus:
        with scanned(tmp_path, rows) as journal:
            job_of(FakeRuns(), rows, journal, **options)  # and the process is killed
        return read_status(job_directory(tmp_path / "out.jsonl"))

    assert left_with(limit=11).chosen == ChosenRows(limit=11, rows=11, others_ended=1)
    assert left_with(limit=11).waiting == 0
    drawn = left_with(limit=12, sample=3)
    assert (drawn.rows_to_run, drawn.ended, drawn.chosen) == (
        3,
        3,
        ChosenRows(limit=12, sample=3, rows=3, others_ended=9),
    )
    assert (left_with().chosen, left_with().waiting) == (None, 87)


def test_the_bound_of_the_cost_is_for_all_starts(tmp_path: Path) -> None:
    rows = chat_rows(1000)
    with scanned(tmp_path, rows) as journal:
        assert 49 <= len([*job_of(FakeRuns(), rows, journal, max_cost=0.5).run()]) <= 50
    with scanned(tmp_path, rows) as journal:
        job = job_of(FakeRuns(), rows, journal, max_cost=0.5)
        assert len([*job.run()]) <= 1
        assert job.progress().stop_reason == "max_cost"


def test_equal_rows_share_what_an_earlier_start_has_recorded(tmp_path: Path) -> None:
    rows: list[Row | BadRow] = [chat_row(number, f"prompt {number % 10}") for number in range(1, 201)]
    with scanned(tmp_path, rows) as journal:
        [*job_of(FakeRuns(), rows, journal, limit=10, dedupe=True).run()]
    runs = FakeRuns()
    with scanned(tmp_path, rows) as journal:
        job = job_of(runs, rows, journal, dedupe=True)
        texts = {row.finished.result.text for row in job.run()}  # type: ignore[union-attr]
    assert runs.started == []
    assert job.progress().shared == 190
    assert texts == {f"answer {number}" for number in range(1, 11)}


class FullDisk(Journal):
    """A journal whose disk is full for some calls."""

    full = 0

    def record(self, records: Sequence[RowRecord]) -> None:
        if self.full:
            self.full -= 1
            raise RecordWriteError("out.jsonl", "No space left on device", len(records), 100)
        super().record(records)


def test_a_full_disk_stops_the_job_and_what_ran_is_recorded_when_there_is_room(tmp_path: Path) -> None:
    rows = chat_rows(1000)
    runs = FakeRuns(turn=lambda flying: flying[:16])
    with scanned(tmp_path, rows, FullDisk) as journal:
        assert isinstance(journal, FullDisk)
        journal.full = 1
        job = job_of(runs, rows, journal)
        with pytest.raises(RecordWriteError):
            [*job.run()]
    assert job.progress().stop_reason == "disk"
    assert len(runs.started) < 1000
    assert sorted(records(tmp_path)) == sorted(row.id for row in runs.started)


def test_a_disk_that_stays_full_costs_only_what_was_not_recorded(tmp_path: Path) -> None:
    rows = chat_rows(1000)
    with scanned(tmp_path, rows, FullDisk) as journal:
        assert isinstance(journal, FullDisk)
        journal.full = 1000
        with pytest.raises(RecordWriteError):
            [*job_of(FakeRuns(), rows, journal).run()]
    with scanned(tmp_path, rows) as journal:
        assert len([*job_of(FakeRuns(), rows, journal).run()]) == 1000
    assert len(records(tmp_path)) == 1000


class FakeProvider:
    """Rows with a provider, for several starts of a job: it ends them in parts, in any order."""

    def __init__(self) -> None:
        self.sent: list[Row] = []
        self.kept: dict[int, Row] = {}
        self.has_all = False
        self.handed_out = 0
        self.recorded_numbers: list[int] = []
        self.is_closed = False

    def start(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.number not in self.kept:
                self.kept[row.number] = row
                self.sent.append(row)

    def end_input(self) -> None:
        self.has_all = True

    def take(self, timeout: float) -> list[FinishedRow]:  # noqa: ARG002 - it never waits
        if not self.has_all or self.handed_out > len(self.recorded_numbers):
            return []
        ended = [*self.kept.values()][::-1][:250]
        self.handed_out += len(ended)
        for row in ended:
            del self.kept[row.number]
        return [FinishedRow(row, answer_to(row)) for row in ended]

    @property
    def state(self) -> RowRunsState:
        return RowRunsState(running=len(self.kept))

    def recorded(self, numbers: Sequence[int]) -> None:
        self.recorded_numbers += numbers

    def cancel(self) -> None:
        self.kept.clear()

    def close(self) -> None:
        self.is_closed = True

    def cost_estimate(self, row: Row) -> float | None:  # noqa: ARG002 - no test asks
        return None

    def withdraw(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        self.close()


def test_rows_that_are_left_to_a_provider_are_started_at_once_and_found_again(tmp_path: Path) -> None:
    rows = chat_rows(500)
    provider = FakeProvider()

    def start() -> Iterator[int]:
        provider.has_all = False
        with scanned(tmp_path, rows) as journal:
            job = job_of(provider, rows, journal)
            for _ in job.run():
                yield 1
                if len(provider.recorded_numbers) >= 100 and not provider.is_closed:
                    job.interrupt()

    first = sum(start())
    assert len(provider.sent) == 500
    assert provider.is_closed
    assert 100 <= first < 500
    assert first + sum(start()) == 500
    assert len(provider.sent) == 500
    assert sorted(provider.recorded_numbers) == [*range(1, 501)]
    assert len(records(tmp_path)) == 500


class EagerProvider(FakeProvider):
    """A provider that ends rows before the job has started all of them again."""

    def take(self, timeout: float) -> list[FinishedRow]:
        self.has_all = True
        return super().take(timeout)


def test_a_row_that_ends_before_the_job_has_come_to_it_again_is_not_sent_twice(tmp_path: Path) -> None:
    rows = chat_rows(500)
    provider = EagerProvider()
    provider.start([row for row in rows if isinstance(row, Row)])
    with scanned(tmp_path, rows) as journal:
        assert len([*job_of(provider, rows, journal).run()]) == 500
    assert len(provider.sent) == 500


@pytest.mark.parametrize("options", [{"is_ordered": True}, {"dedupe": True}])
def test_any_number_of_rows_can_wait_for_others_at_a_provider(options: dict[str, Any]) -> None:
    rows = [chat_row(number, "the same" if "dedupe" in options else "") for number in range(1, 10_001)]
    job = BatchJob(FakeProvider(), rows, None, BatchOptions(**options))
    ended = [row.number for row in job.run()]
    assert ended == [row.number for row in rows]


def test_a_provider_is_told_of_ended_rows_also_without_a_journal() -> None:
    provider = FakeProvider()
    rows = chat_rows(600)
    assert len([*BatchJob(provider, rows, None, BatchOptions()).run()]) == 600
    assert sorted(provider.recorded_numbers) == [*range(1, 601)]


def test_a_row_at_a_provider_that_got_the_answer_of_an_equal_row_has_one_record(tmp_path: Path) -> None:
    rows = [chat_row(number, "the same") for number in range(1, 11)]
    provider = FakeProvider()
    provider.start(rows)
    with scanned(tmp_path, rows) as journal:
        assert len([*job_of(provider, rows, journal, dedupe=True).run()]) == 10
    assert sorted(records(tmp_path)) == sorted(row.id for row in rows)


class UnforgettingProvider(FakeProvider):
    """A provider whose batches cannot be forgotten, because the disk is full."""

    def recorded(self, numbers: Sequence[int]) -> None:
        super().recorded(numbers)
        raise RecordWriteError("journal.sqlite", "No space left on device")


def test_rows_are_recorded_once_if_the_disk_is_full_just_after_their_records(tmp_path: Path) -> None:
    rows = chat_rows(500)
    with scanned(tmp_path, rows) as journal:
        job = job_of(UnforgettingProvider(), rows, journal)
        with pytest.raises(RecordWriteError):
            [*job.run()]
    assert job.progress().stop_reason == "disk"
    assert sorted(records(tmp_path)) == sorted(row.id for row in rows)


def test_a_cache_that_breaks_ends_the_job_and_loses_no_answer(tmp_path: Path) -> None:
    cache = tmp_path / "answers"

    def answering(row: Row) -> RunLocalResult[Any]:
        if row.number == 40:
            with closing(sqlite3.connect(cache)) as database:
                database.execute("DROP TABLE answers")
        return answer_to(row)

    rows = chat_rows(1000)
    runs = FakeRuns(answering, turn=lambda flying: flying[:16])
    with scanned(tmp_path, rows) as journal:
        job = job_of(runs, rows, journal, cache=cache)
        with pytest.raises(ConfigurationError):
            [*job.run()]
    assert len(runs.started) < 1000
    assert sorted(records(tmp_path)) == sorted(row.id for row in runs.started)
