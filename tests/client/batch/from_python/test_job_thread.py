"""The thread of a batch job from Python heeds what the program asks for, also before the first row."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.batch.driver.options import BatchOptions
from headrace.batch.from_python import recorded_results
from headrace.batch.from_python.async_batch_results import AsyncBatchResults, AsyncItems
from headrace.batch.from_python.batch_results import BatchResults
from headrace.batch.from_python.job_request import job_request
from headrace.batch.from_python.job_thread import JobThread
from headrace.batch.journal.job_files import job_files
from headrace.batch.journal.journal import Journal
from headrace.batch.row import Row
from tests.client.batch.driver.fake_runs import FakeRuns
from tests.client.batch.driver.test_job_with_journal import FakeProvider
from tests.waiting import wait_until


def test_an_interrupt_before_the_first_row_is_heeded() -> None:
    runs = FakeRuns()
    has_interrupted = threading.Event()

    @contextmanager
    def make_runs(_options: BatchOptions, _journal: Journal | None) -> Iterator[FakeRuns]:
        has_interrupted.wait()
        yield runs

    job = JobThread(["Hello", "Hi"], job_request({"model": "gpt-4o"}, None, {}), make_runs, bool)
    job.interrupt()
    has_interrupted.set()
    job.wait_until_begun()
    job.join()
    assert runs.started == []


def test_async_rows_that_never_come_do_not_hold_up_the_end() -> None:
    @contextmanager
    def make_runs(_options: BatchOptions, _journal: Journal | None) -> Iterator[FakeRuns]:
        yield FakeRuns()

    async def left_early() -> None:
        is_asked = asyncio.Event()

        async def rows() -> AsyncIterator[str]:
            yield "Hello"
            is_asked.set()
            await asyncio.Event().wait()

        items = AsyncItems(rows(), asyncio.get_running_loop())
        job = JobThread(items, job_request({"model": "gpt-4o"}, None, {}), make_runs, bool)
        async with asyncio.timeout(20), AsyncBatchResults[None](job, items):
            await is_asked.wait()

    asyncio.run(left_early())


def test_rows_in_order_are_recorded_also_while_nobody_takes_earlier_results(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    records = job_files(path, is_ordered=True).results

    def results_of(runs: FakeRuns, limit: int) -> BatchResults[None]:
        @contextmanager
        def make_runs(_options: BatchOptions, _journal: Journal | None) -> Iterator[FakeRuns]:
            yield runs

        request = job_request({"model": "gpt-4o", "path": path, "ordered": True, "limit": limit}, None, {})
        return BatchResults(JobThread(["Hello"] * 2060, request, make_runs, bool))

    def lines() -> int:
        return records.read_bytes().count(b"\n") if records.exists() else 0

    def later_rows(flying: Sequence[Row]) -> Sequence[Row]:
        return [row for row in flying if row.number > 40]

    with results_of(FakeRuns(turn=later_rows), 2040):
        wait_until(lambda: lines() == 2000, 10.0, "the records of all rows but the first 40")

    def first_rows_first(flying: Sequence[Row]) -> Sequence[Row]:
        last = {2000: 40, 2040: 2050}.get(lines(), 2060)
        return [row for row in flying if row.number <= last]

    results = results_of(FakeRuns(turn=first_rows_first), 2060)
    wait_until(lambda: lines() == 2060, 10.0, "the records of all rows")
    assert [result.number for result in results] == [*range(1, 2061)]


def test_results_in_order_that_wait_for_an_earlier_row_are_in_memory_only_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_results, "MOST_KEPT", 100)
    count = 300
    arguments: Any = {"model": "gpt-4o", "path": tmp_path / "out.jsonl", "ordered": True, "via_provider": True}

    @contextmanager
    def make_runs(_options: BatchOptions, _journal: Journal | None) -> Iterator[FakeProvider]:
        yield FakeProvider()  # it ends the last row first

    job = JobThread(["Hello"] * count, job_request(arguments, None, {}), make_runs, bool)
    found = list(BatchResults[None](job))
    assert [result.text for result in found] == [f"answer {number}" for number in range(1, count + 1)]
    assert [result.origin for result in found].count("run") == 100


def test_a_job_that_is_closed_before_its_first_row_closes_its_file_of_answers(tmp_path: Path) -> None:
    is_closed = threading.Event()

    @contextmanager
    def make_runs(_options: BatchOptions, _journal: Journal | None) -> Iterator[FakeRuns]:
        is_closed.wait()
        yield FakeRuns()

    arguments: Any = {"model": "gpt-4o", "cache": tmp_path / "answers"}
    job = JobThread(["Hello"], job_request(arguments, None, {}), make_runs, bool)
    job.close()
    is_closed.set()
    job.join()
    assert (tmp_path / "answers").exists()
    assert not (tmp_path / "answers-wal").exists()  # SQLite removes it with the last connection
