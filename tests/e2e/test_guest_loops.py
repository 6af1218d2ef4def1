"""Programs whose event loop reads the sockets itself: when it is blocked, interrupted, replaced or shared, other streams and aborts go on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
import uvloop

from headrace import AsyncLocalStream, Client
from headrace.connections.client_process import current_process
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, simulate
from tests.waiting import busyness

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
FAST = simulate(repeat=1_000_000, pace=0.005)
STREAMS = 4
LONG = 20.0


async def start(client: Client) -> AsyncLocalStream:
    return await client.arun_local(model="gpt-4o", messages=HELLO, stream=True, custom_options=FAST)


async def become_guest(client: Client) -> list[asyncio.Task[None]]:
    """Read fast streams until this loop reads the client's sockets itself. Return the tasks that read on."""
    tasks = [asyncio.create_task(read(await start(client))) for _ in range(STREAMS)]
    reactor = current_process()._running_reactor()
    until = time.monotonic() + LONG
    while not is_guest(reactor):
        assert time.monotonic() < until, "the loop has not become the guest"
        await asyncio.sleep(0.005)
    return tasks


def is_guest(reactor: object) -> bool:
    guest = reactor._guest  # type: ignore[attr-defined]
    return guest is not None and guest._thread == threading.get_ident()


async def read(stream: AsyncLocalStream) -> None:
    numbers = iter(range(1_000_000))
    async for text in stream:
        for word in text.split():
            assert int(word) == next(numbers)


async def cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results


@pytest.mark.parametrize("new_loop", LOOPS)
def test_while_the_loop_is_blocked_other_threads_read_and_abort(
    client: Client, provider: SimulatedProvider, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    gaps: list[float] = []
    closed_after: list[float] = []
    has_begun, is_blocked, is_done = threading.Event(), threading.Event(), threading.Event()

    def read_in_thread() -> None:
        stream = client.run_local(model="gpt-4o", messages=HELLO, stream=True, custom_options=FAST)
        last = 0.0
        for _ in stream:
            now = time.monotonic()
            if is_blocked.is_set():
                gaps.append(now - last)
            last = now
            has_begun.set()
            if len(gaps) == 100:
                break
        asked = time.monotonic()
        stream.abort()
        provider.wait_until(
            lambda records: any(record.outcome == "closed_by_client" for record in records), timeout=LONG
        )
        closed_after.append(time.monotonic() - asked)
        is_done.set()

    thread = threading.Thread(target=read_in_thread)

    async def block() -> None:
        tasks = await become_guest(client)
        thread.start()
        while not has_begun.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.005)
        is_blocked.set()
        assert is_done.wait(LONG)  # blocks the loop
        await cancel(tasks)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(block())
    thread.join()
    assert max(gaps[1:]) < 0.5 + busyness()
    assert closed_after[0] < 0.5 + busyness()


def test_an_abort_of_the_blocked_loop_itself_does_not_wait_for_it(client: Client, provider: SimulatedProvider) -> None:
    async def block() -> None:
        tasks = await become_guest(client)
        stream = await start(client)
        async for _ in stream:
            break
        asked = time.monotonic()
        stream.abort()
        provider.wait_until(  # blocks the loop
            lambda records: any(record.outcome == "closed_by_client" for record in records), timeout=LONG
        )
        assert time.monotonic() - asked < 0.5 + busyness()
        await cancel(tasks)

    asyncio.run(block())


def test_streams_of_a_blocked_loop_are_complete(client: Client) -> None:
    """Credit holds the worker back while nobody reads. Nothing is lost, and nothing overtakes."""

    async def block() -> None:
        tasks = await become_guest(client)
        for _ in range(5):
            time.sleep(0.15)  # noqa: ASYNC251 - a program that blocks its loop
            await asyncio.sleep(0.1)
        await cancel(tasks)

    asyncio.run(block())


@pytest.mark.parametrize("new_loop", LOOPS)
def test_an_interrupt_reaches_the_program_and_later_runs_work(
    client: Client, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Signals that come at any moment, many of them while the loop reads: the handler's exception is never lost."""

    class Interrupted(KeyboardInterrupt):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    async def stream_on() -> None:
        await asyncio.gather(*await become_guest(client))

    def run_until_interrupted(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
        loop.run_until_complete(task)
        threading.Event().wait(10)  # the streams have ended before the signal came

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        for count in range(5):
            loop = new_loop()
            task = loop.create_task(stream_on())
            timer = threading.Timer(0.2 + 0.01 * count, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            with pytest.raises(Interrupted):
                run_until_interrupted(loop, task)
            timer.join()
            for each in asyncio.all_tasks(loop):
                each.cancel()
            loop.run_until_complete(asyncio.sleep(0.01))
            loop.close()
            assert client.run_local(model="gpt-4o", messages=HELLO).text
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_two_loops_in_two_threads_both_get_everything(client: Client) -> None:
    async def stream_some() -> None:
        streams = [
            await client.arun_local(
                model="gpt-4o", messages=HELLO, stream=True, custom_options=simulate(repeat=200, pace=0.002)
            )
            for _ in range(STREAMS)
        ]
        for result in await asyncio.gather(*(stream.result for stream in streams)):
            assert [int(word) for word in result.text.split()] == list(range(200))

    threads = [threading.Thread(target=asyncio.run, args=(stream_some(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_a_new_loop_for_each_call_works(client: Client) -> None:
    """As ``async_to_sync`` does in Django: each call has a loop of its own, which is closed after it."""

    async def call() -> str:
        tasks = await become_guest(client)
        await cancel(tasks)
        return (await client.arun_local(model="gpt-4o", messages=HELLO)).text

    for _ in range(5):
        assert asyncio.run(call())
