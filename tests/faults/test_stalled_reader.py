"""A reader that stalls costs its engine a credit window, and its 199 neighbours nothing."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest

from headrace import Client
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, engine_process, simulate
from tests.e2e.engines import running_engine
from tests.faults.process_figures import MIB, resident_bytes
from tests.faults.stallable_readers import Stallable, answer, stalling_task, stopped_process
from tests.repetition import only_long
from tests.waiting import busyness

Reader = Callable[[Client, str, int], AbstractAsyncContextManager[Stallable]]

NEIGHBOURS = 199
NEIGHBOUR_CHUNKS = 100
"""Each of a token's size."""
WARM_UP = NEIGHBOURS * NEIGHBOUR_CHUNKS
"""Chunks that all neighbours read together before the measurement.

A count, not seconds: on a busy machine a phase takes longer, but the same CPU time.
"""
SETTLING = 6_000
"""While they are read, the stalled stream's windows fill."""
PHASE = 20_000
ROUNDS = 3
MORE_ROUNDS = 15
"""While the median is below the promise: a busy machine makes the rates of one round vary by a half either way."""
PROMISED = 0.9
"""The least part of the neighbours' throughput that a stall leaves them. On an idle machine it is 0.97 to 1.03."""
STALLS = 4
WINDOW_FILLS = 0.5
"""Seconds in which the windows of a stream fill whose neighbours are slow."""


def slower() -> float:
    """Return by how much these seconds are more on a busy machine."""
    return min(busyness(), 3.0)


@pytest.fixture
def provider(chunks: int) -> Iterator[SimulatedProvider]:
    """Yield a provider that sends so many large chunks where a request asks for nothing else."""
    with SimulatedProvider(answer(chunks), process=True) as simulated:
        yield simulated


class Neighbours:
    """199 readers, each of one stream after the other."""

    def __init__(self, client: Client, pace: float) -> None:
        self.chunks = 0
        self._goal = 0
        self._is_reached = asyncio.Event()
        self._client = client
        self._script = simulate(repeat=NEIGHBOUR_CHUNKS, pace=pace)
        self._expected = "".join(f"{number} " for number in range(NEIGHBOUR_CHUNKS))

    @asynccontextmanager
    async def reading(self, warm_up: int) -> AsyncIterator[None]:
        """Within, all of them read, and have read so many chunks."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._read_for_ever()) for _ in range(NEIGHBOURS)]
            await self.read_on(warm_up)
            yield
            for task in tasks:
                task.cancel()

    async def read_on(self, count: int) -> None:
        """Wait until they have read so many further chunks."""
        self._goal = self.chunks + count
        self._is_reached.clear()
        await self._is_reached.wait()

    async def rate(self) -> float:
        """Watch for a phase; return the chunks per second."""
        await self.read_on(SETTLING)
        started_at, before = time.monotonic(), self.chunks
        await self.read_on(PHASE)
        return (self.chunks - before) / (time.monotonic() - started_at)

    async def _read_for_ever(self) -> None:
        while True:
            stream = await self._client.arun_local(
                model="gpt-4o", messages=HELLO, stream=True, custom_options=self._script
            )
            texts = []
            async for chunk in stream:
                texts.append(chunk)
                self.chunks += 1
                if self.chunks == self._goal:
                    self._is_reached.set()
            assert "".join(texts) == self._expected
            assert (await stream.result).finish_reason == "stop"


async def alternate(
    client: Client, address: str, provider: SimulatedProvider, reader: Reader, chunks: int
) -> list[tuple[float, float]]:
    """Return the neighbours' rates, as fast as all together can work: without a stalled stream, and with it."""
    rates: list[tuple[float, float]] = []
    neighbours = Neighbours(client, pace=0.0)
    async with reader(client, address, chunks) as stalled, neighbours.reading(WARM_UP):
        while len(rates) < ROUNDS or (median_ratio(rates) < PROMISED and len(rates) < MORE_ROUNDS):
            await asyncio.to_thread(provider.clear)
            undisturbed = await neighbours.rate()
            await stalled.begin()
            stalled.stall()
            rates.append((undisturbed, await neighbours.rate()))
            await stalled.finish()
    return rates


def least_ratio() -> float:
    """Return the promise on an idle machine, and a wider bound where other programs take much of the processors."""
    return max(PROMISED - 0.1 * busyness(), 0.5)


def median_ratio(rates: list[tuple[float, float]]) -> float:
    return statistics.median(stalled / undisturbed for undisturbed, stalled in rates)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("reader", [stopped_process, *only_long(stalling_task)])
@pytest.mark.parametrize("chunks", [300], ids=["3-MB"])
@pytest.mark.tries(ROUNDS)
def test_one_stalled_reader_among_200_slows_nobody(reader: Reader, chunks: int, provider: SimulatedProvider) -> None:
    """Phases without and with it alternate in one run; what was stalled arrives whole afterwards."""
    with running_engine(provider, "--workers", "1") as address, Client(address) as client:
        rates = asyncio.run(alternate(client, address, provider, reader, chunks))

    ratios = [stalled / undisturbed for undisturbed, stalled in rates]
    print(
        f"{reader.__name__}: {statistics.median(rate for rate, _ in rates):,.0f} chunks/s; with the stall "
        f"{median_ratio(rates):.3f} of it ({min(ratios):.3f} to {max(ratios):.3f}, {len(rates)} rounds)"
    )
    assert median_ratio(rates) > least_ratio()


async def stall_one_by_one(client: Client, address: str, reader: Reader, chunks: int) -> list[int]:
    """Return the worker's memory before any stall, and after each; all that stalled is read to its end."""
    memory = []
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(reader(client, address, chunks)) for _ in range(STALLS)]
        await warm_up(client)
        await stack.enter_async_context(Neighbours(client, pace=0.1).reading(10 * NEIGHBOURS))
        worker = engine_process(address, "-m headrace_workers")
        memory.append(await highest_memory(worker))
        for stalled in readers:
            await stalled.begin()
            stalled.stall()
            memory.append(await highest_memory(worker))
        for stalled in readers:
            await stalled.finish()
    return memory


async def warm_up(client: Client) -> None:
    """Have large chunks pass once, in answers that are too small to hide in the heap what a stall may leave."""
    script = simulate(chunks=["x" * 9_999] * 10)
    for _ in range(20):
        await client.arun_local(model="gpt-4o", messages=HELLO, custom_options=script)


async def highest_memory(worker: int) -> int:
    await asyncio.sleep(WINDOW_FILLS * slower())
    memory = []
    for _ in range(10):
        memory.append(resident_bytes(worker))
        await asyncio.sleep(0.1)
    return max(memory)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("reader", [stalling_task, *only_long(stopped_process)])
@pytest.mark.parametrize("chunks", [1000], ids=["10-MB"])
@pytest.mark.tries(STALLS)
def test_a_stalled_reader_among_200_costs_its_worker_a_mebibyte_at_most(
    reader: Reader, chunks: int, provider: SimulatedProvider
) -> None:
    """The answer has 10 MB. Several readers stall, one after the other, and none reads on before the last was measured."""
    with running_engine(provider, "--workers", "1") as address, Client(address) as client:
        memory = asyncio.run(stall_one_by_one(client, address, reader, chunks))

    growth = [(after - before) / MIB for before, after in itertools.pairwise(memory)]
    each = (memory[-1] - memory[0]) / MIB / STALLS
    print(
        f"{reader.__name__}: {each:+.2f} MiB for each of {STALLS} stalls: {', '.join(f'{one:+.2f}' for one in growth)}"
    )
    assert each <= 1.0
