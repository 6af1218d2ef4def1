"""What is promised to a call without a stream: its result or its error, and an abort where it waits no longer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.runs.call_result import await_result, wait_for_result
from headrace.runs.task_alarm import TasksToWake
from headrace.types import RunLocalResult
from tests.client.runs.deliveries import FakeRun
from tests.waiting import wait_until


def close_client(run: FakeRun) -> None:
    run.delivery.abandon()
    run.delivery.arrived(TasksToWake())


ACTS: dict[str, Callable[[FakeRun], object]] = {
    "end": FakeRun.ends,
    "given up": lambda run: run.delivery.give_up(EngineUnavailableError("nowhere", "gone")),
    "client closed": close_client,
}
OUTCOMES = {"end": RunLocalResult, "given up": EngineUnavailableError, "client closed": EngineUnavailableError}


def outcome_of(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except HeadraceError as error:
        return error


@pytest.mark.parametrize("what", ACTS)
def test_a_thread_gets_the_result_or_the_error_before_and_after_the_end(what: str) -> None:
    run = FakeRun(streams=False)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(outcome_of, lambda: wait_for_result(run.delivery))
        wait_until(lambda: run.delivery._waiter, 5.0, "a thread that waits")
        ACTS[what](run)

        assert type(waiting.result(60)) is OUTCOMES[what]
    assert outcome_of(lambda: wait_for_result(run.delivery)) is waiting.result()


@pytest.mark.parametrize("what", ["end", "given up"])
def test_a_task_gets_the_result_or_the_error_before_and_after_the_end(what: str) -> None:
    run = FakeRun(streams=False)

    async def outcome() -> Any:
        try:
            return await await_result(run.delivery, asyncio.get_running_loop())
        except HeadraceError as error:
            return error

    async def main() -> list[Any]:
        waiting = asyncio.create_task(outcome())
        await asyncio.sleep(0)
        ACTS[what](run)
        return [await waiting, await outcome()]

    first, second = asyncio.run(main())
    assert type(first) is OUTCOMES[what]
    assert second is first


def test_a_task_that_is_cancelled_aborts_its_run() -> None:
    run = FakeRun(streams=False)

    async def main() -> None:
        task = asyncio.create_task(await_result(run.delivery, asyncio.get_running_loop()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (run.delivery.outcome.is_aborted, run.connection.aborts) == (True, 1)


def test_a_task_whose_loop_is_gone_aborts_its_run() -> None:
    run, loop = FakeRun(streams=False), asyncio.new_event_loop()
    waiting = await_result(run.delivery, loop)
    waiting.send(None)
    waiting.close()
    loop.close()

    assert (run.delivery.outcome.is_aborted, run.connection.aborts) == (True, 1)


def test_events_of_a_run_without_a_stream_do_not_make_its_caller_spin() -> None:
    run = FakeRun(streams=False)
    thread = threading.Thread(target=wait_for_result, args=[run.delivery])
    thread.start()
    for count in range(1, 4):
        run.says("x")
        wait_until(lambda: run.delivery.credit.taken == count, 5.0, "an event that was taken")  # noqa: B023
    wait_until(lambda: run.delivery._waiter, 5.0, "a thread that waits again")
    run.ends()
    thread.join(60)

    assert not thread.is_alive()
