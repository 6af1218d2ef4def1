"""What streams and results promise, without an engine.

One reader, callbacks on their own threads, results that resolve.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import Future, wait

import pytest

from headrace.async_streams import AsyncLocalStream
from headrace.errors import EngineUnavailableError, ForkedStreamError, StreamConsumedError
from headrace.process.own_process import own_process
from headrace.runs.task_alarm import TasksToWake
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
        to_wake = TasksToWake()
        run.delivery.arrived(to_wake)
        to_wake.futures[asyncio.get_running_loop()][0].set_result(None)
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


def test_an_async_result_that_is_asked_for_too_early_says_to_await_it() -> None:
    async def main() -> None:
        run = FakeRun()
        future = AsyncLocalStream(run.delivery).result
        with pytest.raises(asyncio.InvalidStateError, match=r"`await stream\.result` waits"):
            future.result()
        with pytest.raises(asyncio.InvalidStateError, match=r"`await stream\.result` waits"):
            future.exception()
        run.ends()
        assert (await future).text == future.result().text
        assert future.exception() is None

    asyncio.run(main())


# Who keeps a run going.


def test_a_result_keeps_its_run_going_without_the_stream_and_its_last_reference_ends_it() -> None:
    run = FakeRun()
    stream = LocalStream(run.delivery)
    future = stream.result
    del stream
    assert run.connection.aborts == 0

    del future
    assert run.connection.aborts == 1


def test_an_iterator_keeps_its_run_going_without_the_stream() -> None:
    run = FakeRun()
    run.says("a", "b")
    iterator = iter(LocalStream(run.delivery))

    assert next(iterator) == "a"
    assert run.connection.aborts == 0
    del iterator
    assert run.connection.aborts == 1


def test_a_callback_keeps_its_run_going_though_nobody_holds_the_result() -> None:
    run = FakeRun()
    called = threading.Event()
    LocalStream(run.delivery).result.add_done_callback(lambda _: called.set())
    gc.collect()
    assert run.connection.aborts == 0

    run.ends()
    assert called.wait(10)


def test_a_task_that_awaits_a_result_keeps_its_run_going() -> None:
    async def main() -> None:
        run = FakeRun()

        async def wait() -> StreamResult:
            return await AsyncLocalStream(run.delivery).result

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        gc.collect()
        assert run.connection.aborts == 0
        run.says("a")
        run.ends()
        assert (await asyncio.wait_for(task, 5)).text == "a"

    asyncio.run(main())


def test_cancelling_a_task_that_awaits_a_result_aborts() -> None:
    async def main() -> None:
        run = FakeRun()
        task = asyncio.ensure_future(asyncio.wait_for(AsyncLocalStream(run.delivery).result, None))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert run.connection.aborts == 1

    asyncio.run(main())


# Asking for the result.


def test_asking_for_the_result_reads_the_stream_to_its_end() -> None:
    """From then on credit is given as events arrive."""
    run = FakeRun()
    stream = LocalStream(run.delivery)
    assert (run.delivery.credit.reads_all, run.connection.credits) == (False, 0)
    _ = stream.result
    _ = stream.result

    assert (run.delivery.credit.reads_all, run.connection.credits) == (True, 1)


def test_the_result_and_the_iteration_raise_the_same_error() -> None:
    run = FakeRun()
    stream = LocalStream(run.delivery)
    run.delivery.give_up(EngineUnavailableError("nowhere", "gone"))

    with pytest.raises(EngineUnavailableError) as iterated:
        list(stream)
    assert stream.result.exception(0) is iterated.value


def test_a_result_that_is_asked_for_after_the_end_is_there_at_once() -> None:
    run = FakeRun()
    run.says("a")
    run.ends()

    assert LocalStream(run.delivery).result.result(0).text == "a"


def test_each_event_loop_has_a_result_of_its_own() -> None:
    run = FakeRun()
    stream = AsyncLocalStream(run.delivery)

    async def ask() -> str:
        assert stream.result is stream.result
        run.ends()
        return (await asyncio.wait_for(stream.result, 5)).text

    assert [asyncio.run(ask()), asyncio.run(ask())] == ["", ""]


def test_a_result_of_a_closed_event_loop_holds_up_no_other() -> None:
    run = FakeRun()
    stream = AsyncLocalStream(run.delivery)

    async def ask() -> asyncio.Future[StreamResult]:
        return stream.result

    closed = asyncio.run(ask())
    threaded = LocalStream(run.delivery).result
    run.ends()

    assert not closed.done()
    assert threaded.result(0).text == ""


# Abort.


def test_after_an_abort_iteration_ends_without_an_error_and_without_buffered_text() -> None:
    run = FakeRun()
    run.says("a", "b", "c")
    stream = LocalStream(run.delivery)
    iterator = iter(stream)
    assert next(iterator) == "a"
    stream.abort()

    assert list(iterator) == []
    run.ends()
    assert (stream.result.result(0).text, stream.result.result(0).aborted) == ("abc", True)


def test_an_abort_after_iteration_came_to_its_end_changes_nothing() -> None:
    run = FakeRun()
    run.says("a")
    run.ends()
    with LocalStream(run.delivery) as stream:
        assert list(stream) == ["a"]

    assert not stream.result.result(0).aborted
    assert run.connection.aborts == 0


def test_leaving_an_async_with_block_aborts_and_so_does_closing_an_async_iterator() -> None:
    async def main() -> None:
        left, closed = FakeRun(), FakeRun()
        async with AsyncLocalStream(left.delivery):
            pass
        iterator = aiter(AsyncLocalStream(closed.delivery))
        await iterator.aclose()  # type: ignore[attr-defined]
        assert (left.connection.aborts, closed.connection.aborts) == (1, 1)
        assert [text async for text in iterator] == []

    asyncio.run(main())


# Where streams must not be used.


def test_in_a_forked_child_each_use_raises_and_nothing_is_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    run = FakeRun()
    stream = LocalStream(run.delivery)
    with monkeypatch.context() as patch:
        patch.setattr(own_process, "pid", -1)
        with pytest.raises(ForkedStreamError):
            _ = stream.result
        for use in (stream.__iter__, stream.events, stream.abort):
            with pytest.raises(ForkedStreamError):
                use()
        del use, stream
        gc.collect()

    assert run.connection.aborts == 0


def test_a_second_iteration_raises() -> None:
    run = FakeRun()
    stream = LocalStream(run.delivery)
    iter(stream)

    with pytest.raises(StreamConsumedError):
        iter(stream)
    with pytest.raises(StreamConsumedError):
        stream.events()
