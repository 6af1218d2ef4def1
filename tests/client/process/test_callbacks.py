"""What callback threads promise.

Jobs run elsewhere, in order, and neither sleep nor exception of one stops the others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from headrace.process.callbacks import CallbackThreads, is_io_thread, log, mark_io_thread


def test_the_jobs_of_one_call_run_in_order_even_if_they_raise(caplog: pytest.LogCaptureFixture) -> None:
    threads, called = CallbackThreads(), []

    def raising() -> None:
        raise KeyboardInterrupt

    jobs: list[Callable[[], object]] = [lambda: called.append(1), raising, lambda: called.append(2)]
    threads.submit(jobs)
    threads.drain(10)

    assert called == [1, 2]
    assert jobs == []
    assert [record.getMessage() for record in caplog.records] == ["callback failed"]


def test_a_job_that_waits_delays_no_other_until_all_threads_wait() -> None:
    threads, release, started = CallbackThreads(limit=3), threading.Event(), threading.Semaphore(0)

    def waiting() -> None:
        started.release()
        release.wait(30)

    for _ in range(2):
        threads.submit([waiting])
        assert started.acquire(timeout=60)
    third = threading.Event()
    threads.submit([third.set])
    assert third.wait(60)
    threads.submit([waiting])
    assert started.acquire(timeout=60)
    fifth = threading.Event()
    threads.submit([fifth.set])
    assert not fifth.wait(0.05)
    release.set()
    assert fifth.wait(60)


def test_jobs_run_in_drain_if_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", fail)
    threads, called = CallbackThreads(), []
    threads.submit([lambda: called.append(1)])
    threads.submit([lambda: called.append(2)])
    assert called == []

    threads.drain(1)
    assert called == [1, 2]


def test_drain_waits_no_longer_than_its_timeout() -> None:
    threads, release = CallbackThreads(), threading.Event()
    threads.submit([lambda: release.wait(30)])
    threads.drain(0.05)
    release.set()


def test_an_io_thread_logs_on_another_thread() -> None:
    logger, seen = logging.getLogger("headrace.tested"), threading.Event()
    threads: list[str] = []

    class FailureHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "it failed":
                threads.append(threading.current_thread().name)
            seen.set()

    handler = FailureHandler()
    logger.addHandler(handler)

    def work() -> None:
        mark_io_thread()
        log(logger, logging.ERROR, "it failed", error=ValueError("x"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert seen.wait(60)
    logger.removeHandler(handler)

    assert not is_io_thread()
    assert threads == ["headrace-callbacks"]
