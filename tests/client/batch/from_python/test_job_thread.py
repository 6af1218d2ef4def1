"""The thread of a batch job from Python heeds what the program asks for, also before the first row."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from headrace.batch.driver.options import BatchOptions
from headrace.batch.from_python.async_batch_results import AsyncBatchResults, AsyncItems
from headrace.batch.from_python.job_request import job_request
from headrace.batch.from_python.job_thread import JobThread
from headrace.batch.journal.journal import Journal
from tests.client.batch.driver.fake_runs import FakeRuns


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
