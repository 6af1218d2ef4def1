"""What streams and results promise, without an engine: one reader, callbacks elsewhere, results that resolve."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, wait

import pytest

from headrace.async_streams import AsyncLocalStream
from headrace.errors import EngineUnavailableError, StreamConsumedError
from headrace.streams import LocalStream
from headrace.types import ReasoningDelta, StreamResult, TextDelta
from tests.client.runs.deliveries import FakeRun
from tests.waiting import wait_until


def test_iteration_yields_text_only() -> None:
    run = FakeRun()
    run.says("a", ReasoningDelta("I think."), "b")
    run.ends()

    assert list(LocalStream(run.delivery)) == ["a", "b"]


def test_events_are_typed() -> None:
    run = FakeRun()
    run.says("a")
    run.ends()

    assert list(LocalStream(run.delivery).events()) == [TextDelta("a")]


def test_text_that_had_arrived_is_yielded_before_the_error() -> None:
    run = FakeRun()
    run.says("a")
    run.delivery.give_up(EngineUnavailableError("nowhere", "gone"))
    iterator = iter(LocalStream(run.delivery))

    assert next(iterator) == "a"
    with pytest.raises(EngineUnavailableError):
        next(iterator)


def test_leaving_the_with_block_aborts_and_so_does_closing_an_iterator() -> None:
    left, closed = FakeRun(), FakeRun()
    with LocalStream(left.delivery):
        pass
    iterator = iter(LocalStream(closed.delivery))
    iterator.close()  # type: ignore[attr-defined]

    assert (left.connection.aborts, closed.connection.aborts) == (1, 1)
    assert list(iterator) == []


def test_a_break_without_with_leaves_the_run_going_while_the_stream_has_a_name() -> None:
    run = FakeRun()
    run.says("a", "b")
    stream = LocalStream(run.delivery)
    for _ in stream:
        break

    assert run.connection.aborts == 0
    del stream
    assert run.connection.aborts == 1


def test_a_second_reader_raises_at_once_and_the_first_goes_on() -> None:
    run = FakeRun()
    iterator = iter(LocalStream(run.delivery))
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.extend(iterator))
    reader.start()
    wait_until(lambda: run.delivery._waiter is not None, 5.0, "a reader that waits")

    with pytest.raises(StreamConsumedError, match="by another thread or task"):
        next(iterator)
    run.says("a")
    run.ends()
    reader.join(60)

    assert texts == ["a"]


def test_one_iterator_may_be_handed_from_thread_to_thread() -> None:
    run = FakeRun()
    run.says("a")
    iterator = iter(LocalStream(run.delivery))
    assert next(iterator) == "a"
    run.says("b")
    run.ends()
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.extend(iterator))
    reader.start()
    reader.join(60)

    assert texts == ["b"]


def test_only_one_of_many_threads_that_begin_at_once_can_iterate() -> None:
    for _ in range(50):
        run = FakeRun()
        run.says("a")
        run.ends()
        stream, barrier = LocalStream(run.delivery), threading.Barrier(4)
        texts: list[list[str]] = []
        refused: list[StreamConsumedError] = []

        def read(
            stream: LocalStream = stream,
            barrier: threading.Barrier = barrier,
            texts: list[list[str]] = texts,
            refused: list[StreamConsumedError] = refused,
        ) -> None:
            barrier.wait()
            try:
                texts.append(list(stream))
            except StreamConsumedError as error:
                refused.append(error)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (texts, len(refused)) == ([["a"]], 3)


def test_callbacks_run_in_order_on_a_callback_thread() -> None:
    run = FakeRun()
    future = LocalStream(run.delivery).result
    called: list[tuple[int, str]] = []
    done = threading.Event()

    def remember(number: int) -> None:
        called.append((number, threading.current_thread().name))
        if number == 2:
            done.set()

    def raising(_: Future[StreamResult]) -> None:
        remember(1)
        raise SystemExit

    future.add_done_callback(lambda _: remember(0))
    future.add_done_callback(raising)
    future.add_done_callback(lambda _: remember(2))
    run.ends()

    assert done.wait(60)
    assert called == [(number, "headrace-callbacks") for number in range(3)]


def test_a_callback_that_is_added_after_the_end_is_called_at_once() -> None:
    run = FakeRun()
    future = LocalStream(run.delivery).result
    run.ends()
    called: list[str] = []
    future.add_done_callback(lambda _: called.append(threading.current_thread().name))

    assert called == [threading.current_thread().name]


def test_waiting_too_short_for_a_result_is_a_timeout_error_and_the_run_goes_on() -> None:
    run = FakeRun()
    future = LocalStream(run.delivery).result
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TimeoutError):
        future.exception(0)
    run.says("a")
    run.ends()

    assert future.result(0).text == "a"
    assert wait([future], 1).not_done == set()
    assert run.connection.aborts == 0


def test_cancelling_a_result_aborts_and_the_result_still_resolves() -> None:
    run = FakeRun()
    future = LocalStream(run.delivery).result
    assert future.cancel() is False
    run.ends()

    assert future.result(60).aborted


def test_a_second_task_raises_at_once_and_the_first_goes_on() -> None:
    async def main() -> None:
        run = FakeRun()
        iterator = aiter(AsyncLocalStream(run.delivery))
        first = asyncio.ensure_future(anext(iterator))
        await asyncio.sleep(0)
        with pytest.raises(StreamConsumedError):
            await anext(iterator)
        run.delivery.session.events.append("a")
        to_wake: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        run.delivery.arrived(to_wake)
        to_wake[asyncio.get_running_loop()][0].set_result(None)
        assert await asyncio.wait_for(first, 5) == "a"

    asyncio.run(main())


def test_cancelling_a_task_that_iterates_aborts_and_lets_another_task_read() -> None:
    async def main() -> None:
        run = FakeRun()
        iterator = aiter(AsyncLocalStream(run.delivery))
        reading = asyncio.ensure_future(anext(iterator))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert run.connection.aborts == 1
        with pytest.raises(StopAsyncIteration):
            await anext(iterator)

    asyncio.run(main())


def test_an_async_result_resolves_in_its_own_loop() -> None:
    async def main() -> str:
        run = FakeRun()
        future = AsyncLocalStream(run.delivery).result
        run.says("a")
        threading.Thread(target=run.ends).start()
        return (await asyncio.wait_for(future, 5)).text

    assert asyncio.run(main()) == "a"
