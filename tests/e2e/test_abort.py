"""An abort closes the provider's connection, however it is said and whenever."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace import AsyncLocalStream, Client, LocalStream
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, simulate
from tests.e2e.engines import running_engine
from tests.repetition import repeated
from tests.waiting import busyness

MODEL = "gpt-4o"
ENDLESS = simulate(repeat=1_000_000, pace=0.01)
SILENT = simulate(first_token_delay=600)
TRIES = 100


def start(client: Client, options: dict[str, Any] = ENDLESS) -> LocalStream:
    return client.run_local(model=MODEL, messages=HELLO, stream=True, custom_options=options)


async def start_async(client: Client, options: dict[str, Any] = ENDLESS) -> AsyncLocalStream:
    return await client.arun_local(model=MODEL, messages=HELLO, stream=True, custom_options=options)


def wait_closed(provider: SimulatedProvider, count: int = 1) -> list[float]:
    """Wait until the provider has seen ``count`` connections closed by the client; return when."""

    def closed(records: list[Any]) -> list[float]:
        return [record.closed_at for record in records if record.outcome == "closed_by_client"]

    return closed(provider.wait_until(lambda records: len(closed(records)) >= count, timeout=10))


def wait_started(provider: SimulatedProvider, count: int = 1) -> None:
    provider.wait_until(lambda records: len(records) >= count, timeout=10)


def percentile_99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def test_abort_gives_the_partial_text(client: Client, provider: SimulatedProvider) -> None:
    running = start(client)
    seen = ""
    for chunk in running:
        seen += chunk
        if len(seen) > 20:
            running.abort()
            break

    result = running.result.result()

    assert result.aborted
    assert result.finish_reason is None
    assert result.text.startswith(seen)
    assert result.usage.source == "estimated"
    assert provider.requests()[0].sent_text.startswith(result.text)
    wait_closed(provider)


def test_an_abort_after_everything_arrived_but_before_it_was_read_counts(client: Client) -> None:
    """The specification's example must say True with a provider of any speed."""
    running = start(client, simulate(text="word " * 400))
    with_callback = iter(running)
    next(with_callback)
    probe = client.run_local(model=MODEL, messages=HELLO)  # by its end the whole stream has arrived

    running.abort()

    assert probe.text
    assert list(with_callback) == []
    assert running.result.result().aborted


def test_an_abort_after_the_end_was_seen_changes_nothing(client: Client) -> None:
    running = start(client, simulate(text="All of it."))
    assert "".join(running) == "All of it."

    running.abort()

    assert not running.result.result().aborted


def test_abort_before_the_first_chunk(client: Client, provider: SimulatedProvider) -> None:
    running = start(client, SILENT)
    wait_started(provider)

    running.abort()

    assert list(running) == []
    assert (running.result.result().aborted, running.result.result().text) == (True, "")
    wait_closed(provider)


def test_abort_at_once_and_twice(client: Client) -> None:
    running = start(client)

    running.abort()
    running.abort()

    assert running.result.result().aborted
    assert list(running) == []


def test_abort_wakes_a_reader_in_another_thread(client: Client, provider: SimulatedProvider) -> None:
    running = start(client, SILENT)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend(running))
    reader.start()
    wait_started(provider)

    running.abort()
    reader.join(60)

    assert not reader.is_alive()
    assert read == []


def test_draining_reads_the_response_to_its_end_for_exact_usage(client: Client, provider: SimulatedProvider) -> None:
    options = simulate(repeat=30, pace=0.005, usage={"prompt_tokens": 11, "completion_tokens": 30})
    running = client.run_local(model=MODEL, messages=HELLO, stream=True, custom_options=options, on_abort="drain")
    next(iter(running))

    running.abort()
    result = running.result.result()

    assert result.aborted
    assert (result.usage.input_tokens, result.usage.output_tokens, result.usage.source) == (11, 30, "provider")
    assert len(result.text) < len("".join(f"{number} " for number in range(30)))
    assert provider.requests()[0].outcome == "complete"


def test_a_break_out_of_a_with_block_aborts_and_the_result_says_so(client: Client, provider: SimulatedProvider) -> None:
    with start(client) as running:
        for _ in running:
            break

    wait_closed(provider)
    assert running.result.result().aborted


def test_an_async_break_out_of_a_with_block_aborts_too(client: Client, provider: SimulatedProvider) -> None:
    async def main() -> bool:
        async with await start_async(client) as running:
            async for _ in running:
                break
        return (await running.result).aborted

    assert asyncio.run(main())
    wait_closed(provider)


def test_a_break_alone_stops_nothing_while_the_stream_has_a_name(client: Client, provider: SimulatedProvider) -> None:
    running = start(client, simulate(repeat=30, pace=0.01))
    for _ in running:
        break

    result = running.result.result()

    assert (result.aborted, result.text) == (False, "".join(f"{number} " for number in range(30)))
    assert provider.requests()[0].outcome == "complete"


# All the ways to say it.


def by_break_without_a_name(client: Client) -> None:
    for _ in start(client):
        break


def by_with(client: Client) -> None:
    with start(client) as running:
        next(iter(running))


def by_dropping(client: Client) -> None:
    start(client)


def by_collection_of_a_cycle(client: Client) -> None:
    cycle: list[object] = [start(client)]
    cycle.append(cycle)
    del cycle
    gc.collect()


def by_closing_a_generator(client: Client) -> None:
    def generate(running: LocalStream) -> Iterator[str]:
        yield from running

    generator = generate(start(client))
    next(generator)
    generator.close()  # type: ignore[attr-defined]


def by_cancelling_the_result(client: Client) -> None:
    running = start(client)
    next(iter(running))
    running.result.cancel()
    assert running.result.result().aborted


def by_cancelling_the_reading_task(client: Client) -> None:
    async def read(running: AsyncLocalStream, started: asyncio.Event) -> None:
        async for _ in running:
            started.set()

    async def main() -> None:
        started = asyncio.Event()
        running = await start_async(client)
        task = asyncio.create_task(read(running, started))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await running.result).aborted

    asyncio.run(main())


def by_cancelling_the_task_that_awaits_the_result(client: Client) -> None:
    async def main() -> None:
        running = await start_async(client)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(running.result, 0.1)
        assert (await running.result).aborted

    asyncio.run(main())


def by_cancelling_a_call_without_stream(client: Client) -> None:
    async def main() -> None:
        call = client.arun_local(model=MODEL, messages=HELLO, custom_options=SILENT)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.2)

    asyncio.run(main())


def by_async_with(client: Client) -> None:
    async def main() -> None:
        async with await start_async(client) as running:
            await anext(aiter(running))

    asyncio.run(main())


def by_closing_an_async_iterator(client: Client) -> None:
    async def main() -> None:
        running = await start_async(client)
        iterator: Any = aiter(running)
        await anext(iterator)
        await iterator.aclose()

    asyncio.run(main())


def by_async_break(client: Client) -> None:
    async def main() -> None:
        async for _ in await start_async(client):
            break

    asyncio.run(main())


@pytest.mark.parametrize(
    "way",
    [
        by_break_without_a_name,
        by_with,
        by_dropping,
        by_collection_of_a_cycle,
        by_closing_a_generator,
        by_cancelling_the_result,
        by_cancelling_the_reading_task,
        by_cancelling_the_task_that_awaits_the_result,
        by_cancelling_a_call_without_stream,
        by_async_with,
        by_closing_an_async_iterator,
        by_async_break,
    ],
)
def test_every_way_to_abort_closes_the_connection(
    way: Callable[[Client], None], client: Client, provider: SimulatedProvider
) -> None:
    way(client)

    provider.wait_until(lambda records: all(record.outcome == "closed_by_client" for record in records), timeout=5)


def test_closing_the_client_aborts_its_runs_and_no_others(client: Client, provider: SimulatedProvider) -> None:
    kept = start(client)
    with Client() as other:
        ended = start(other)
        next(iter(ended))
        wait_started(provider, 2)

    assert ended.result.result().aborted
    assert not kept.result.done()
    wait_closed(provider, 1)
    kept.abort()
    wait_closed(provider, 2)


# How soon.


def sync_abort(client: Client, provider: SimulatedProvider, number: int) -> float:
    running = start(client)
    next(iter(running))
    aborted_at = time.monotonic()
    running.abort()
    assert running.result.result().aborted
    return aborted_at


def thread_abort(client: Client, provider: SimulatedProvider, number: int) -> float:
    running = start(client)
    next(iter(running))
    times: list[float] = []

    def abort() -> None:
        times.append(time.monotonic())
        running.abort()

    other = threading.Thread(target=abort)
    other.start()
    other.join()
    assert running.result.result().aborted
    return times[0]


def async_abort(client: Client, provider: SimulatedProvider, number: int) -> float:
    async def main() -> float:
        running = await start_async(client)
        await anext(aiter(running))
        aborted_at = time.monotonic()
        running.abort()
        assert (await running.result).aborted
        return aborted_at

    return asyncio.run(main())


def early_abort(client: Client, provider: SimulatedProvider, number: int) -> float:
    running = start(client, SILENT)
    wait_started(provider, number + 1)
    aborted_at = time.monotonic()
    running.abort()
    assert running.result.result().aborted
    return aborted_at


@pytest.mark.parametrize("abort", [sync_abort, thread_abort, async_abort, early_abort])
def test_the_connection_is_closed_within_50_ms(
    abort: Callable[[Client, SimulatedProvider, int], float], client: Client, provider: SimulatedProvider
) -> None:
    """p99 of 100 tries, from ``abort()`` to the provider's notice: both clocks are the machine's monotonic one."""
    aborted_at = [abort(client, provider, number) for number in range(TRIES)]

    delays = [closed - said for closed, said in zip(sorted(wait_closed(provider, TRIES)), aborted_at, strict=True)]

    print(f"{abort.__name__}: p50 {statistics.median(delays) * 1000:.1f} ms, p99 {percentile_99(delays) * 1000:.1f} ms")
    assert percentile_99(delays) < 0.05 * busyness()


CLIENT_PROGRAM = """
import sys, time
from headrace import Client

client = Client()
streams = [
    client.run_local(
        model="gpt-4o", messages=[{"role": "user", "content": "Hello"}], stream=True,
        custom_options={"simulate": {"repeat": 1000000, "pace": 0.02}},
    )
    for _ in range(20)
]
for stream in streams:
    next(iter(stream))
print("running", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_the_death_of_the_client_closes_its_connections_within_500_ms(provider: SimulatedProvider) -> None:
    delays = []
    for _ in range(repeated(1, 3)):
        provider.clear()
        with subprocess.Popen(
            [sys.executable, "-c", CLIENT_PROGRAM], stdout=subprocess.PIPE, env={**os.environ, **provider.environment}
        ) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == b"running\n"
            killed_at = time.monotonic()
            program.send_signal(signal.SIGKILL)
        delays += [closed - killed_at for closed in wait_closed(provider, 20)]

    assert percentile_99(delays) < 0.5 * busyness()


def test_the_death_of_a_client_of_a_shared_engine_closes_its_connections(
    provider: SimulatedProvider,
) -> None:
    """The engine lives on, and finds the client's runs for itself."""
    with running_engine(provider, "--workers", "1") as address:
        with subprocess.Popen(
            [sys.executable, "-c", CLIENT_PROGRAM],
            stdout=subprocess.PIPE,
            env={**os.environ, "HEADRACE_ENGINE": address},
        ) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == b"running\n"
            killed_at = time.monotonic()
            program.send_signal(signal.SIGKILL)
        delays = [closed - killed_at for closed in wait_closed(provider, 20)]

        assert percentile_99(delays) < 0.5 * busyness()
        with Client(address) as survivor:
            assert survivor.run_local(model=MODEL, messages=HELLO).text
