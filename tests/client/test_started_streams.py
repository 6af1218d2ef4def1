"""What ``stream.started()`` promises: it waits for the first event, consumes nothing, and raises what failed before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace.async_streams import AsyncLocalStream
from headrace.errors import ForkedStreamError, HeadraceError, InvalidRequestError, RateLimitError, StreamConsumedError
from headrace.process.own_process import own_process
from headrace.streams import LocalStream
from headrace.types import StreamResult, TextDelta
from tests.client.runs.deliveries import SPAN, FakeRun
from tests.waiting import wait_until

REFUSED = RateLimitError(SPAN, "slow down", "", "openai", 429, None, "rate_limited", 7.0)
Started = Callable[[FakeRun, float | None], None]


_kept: list[object] = []
"""The streams of a test: a stream that is dropped aborts its run."""


@pytest.fixture(autouse=True)
def _drop_streams() -> Iterator[None]:
    yield
    _kept.clear()


def started_in_thread(run: FakeRun, timeout: float | None = None) -> None:
    stream = LocalStream(run.delivery)
    _kept.append(stream)
    stream.started(timeout)


def started_in_task(run: FakeRun, timeout: float | None = None) -> None:
    stream = AsyncLocalStream(run.delivery)
    _kept.append(stream)
    asyncio.run(stream.started(timeout))


either = pytest.mark.parametrize("started", [started_in_thread, started_in_task])


def test_nothing_is_consumed_and_no_credit_is_spent() -> None:
    run = FakeRun()
    run.says("a", "b")
    stream = LocalStream(run.delivery)

    stream.started()
    stream.started()

    assert (run.delivery.credit.taken, run.connection.credits) == (0, 0)
    run.ends()
    assert list(stream.events()) == [TextDelta("a"), TextDelta("b")]
    stream.started()


@either
def test_a_run_that_failed_before_its_first_event_raises_its_error(started: Started) -> None:
    run = FakeRun()
    run.delivery.give_up(REFUSED)

    for _ in range(2):
        with pytest.raises(RateLimitError) as caught:
            started(run, None)
        assert caught.value is REFUSED


def test_iteration_and_result_raise_the_same_error_as_started() -> None:
    run = FakeRun()
    run.delivery.give_up(REFUSED)
    stream = LocalStream(run.delivery)
    errors: list[HeadraceError] = []
    for use in (stream.started, lambda: list(stream), lambda: stream.result.result(0)):
        with pytest.raises(HeadraceError) as caught:
            use()
        errors.append(caught.value)

    assert errors == [REFUSED] * 3


@either
def test_a_run_that_fails_after_its_first_event_has_started(started: Started) -> None:
    run = FakeRun()
    run.says("half")
    run.delivery.give_up(REFUSED)

    started(run, None)

    with pytest.raises(RateLimitError):
        list(LocalStream(run.delivery))


@either
@pytest.mark.parametrize("before", ["nothing", "an event", "a failure"])
def test_after_an_abort_it_returns(started: Started, before: str) -> None:
    run = FakeRun()
    if before == "an event":
        run.says("a")
    elif before == "a failure":
        run.delivery.give_up(REFUSED)
    run.delivery.abort()

    started(run, None)
    result = LocalStream(run.delivery).result
    if before != "a failure":
        run.ends()
    assert result.result(5).aborted


@either
def test_a_run_that_ends_well_without_any_event_has_started_and_may_still_be_aborted(started: Started) -> None:
    run = FakeRun()
    run.ends()

    started(run, None)
    run.delivery.abort()

    result = run.delivery.see_result()
    assert isinstance(result, StreamResult)
    assert result.aborted


@either
def test_a_timeout_ends_the_wait_and_the_run_goes_on(started: Started) -> None:
    run = FakeRun()
    for timeout in (0, 0.02):
        with pytest.raises(TimeoutError, match=SPAN):
            started(run, timeout)

    assert run.connection.aborts == 0
    run.says("a")
    started(run, 0)


@either
@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "5", True, 1e300, object()])
def test_a_timeout_that_is_no_number_of_seconds_is_an_error(started: Started, timeout: Any) -> None:
    with pytest.raises(InvalidRequestError, match="timeout"):
        started(FakeRun(), timeout)


def test_it_may_be_called_beside_a_thread_that_iterates() -> None:
    run = FakeRun()
    stream = LocalStream(run.delivery)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend(stream))
    waiting = [threading.Thread(target=stream.started) for _ in range(3)]
    for thread in (reader, *waiting):
        thread.start()
    wait_until(lambda: run.delivery._waiter and len(run.delivery._start_waiters or ()) == 3, 5.0, "threads that wait")

    run.says("a")
    for thread in waiting:
        thread.join(60)
    run.says("b")
    run.ends()
    reader.join(60)

    assert read == ["a", "b"]
    with pytest.raises(StreamConsumedError):
        iter(stream)
    stream.started()


def test_tasks_and_a_reader_in_one_loop_all_go_on() -> None:
    async def main() -> None:
        run = FakeRun()
        stream = AsyncLocalStream(run.delivery)

        async def read() -> list[str]:
            return [text async for text in stream]

        reader = asyncio.create_task(read())
        waiting = [asyncio.create_task(stream.started(limit)) for limit in (None, None, 3600)]
        await asyncio.sleep(0)
        assert len(run.delivery._start_waiters or ()) == 3

        await asyncio.to_thread(run.says, "a")
        await asyncio.wait_for(asyncio.gather(*waiting), 60)
        run.delivery.abort()
        assert await asyncio.wait_for(reader, 60) == ["a"]

    asyncio.run(main())


def test_cancelling_a_task_that_waits_aborts_the_run_as_cancelling_one_that_iterates_does() -> None:
    async def main() -> FakeRun:
        run = FakeRun()
        task = asyncio.create_task(AsyncLocalStream(run.delivery).started())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return run

    run = asyncio.run(main())
    assert run.connection.aborts == 1
    assert run.delivery._start_waiters in (None, [])


def test_a_task_in_a_forked_child_and_a_thread_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun()
    run.says("a")
    thread, task = LocalStream(run.delivery), AsyncLocalStream(run.delivery)
    with monkeypatch.context() as patch:
        patch.setattr(own_process, "pid", -1)
        with pytest.raises(ForkedStreamError):
            thread.started()
        with pytest.raises(ForkedStreamError):
            task.started().send(None)
