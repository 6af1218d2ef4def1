"""The thread of a batch job from Python heeds what the program asks for, also before the first row."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.batch.driver.options import BatchOptions
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
