"""What a reader pays for a chunk that has arrived: ``for chunk in stream`` and ``async for``, beside a bare generator.

``python -m bench.reader``. No engine and no socket: the events of each run are put into its session, as the I/O thread does. "One
by one": the reader finds one new event each time it looks. "64 at once": it finds a whole window of credit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from headrace.async_streams import AsyncLocalStream
from headrace.runs.delivery import Delivery
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.streams import LocalStream
from headrace.wire.messages import Chunk, Grant

_SPAN, _EPOCH = "sp_0123456789abcdef", 7
_EVENTS = 64 * 300
_ROUNDS = 7
_TEXT = "word "


class _Nobody:
    """In place of a connection."""

    def post_abort(self, _: Delivery, /) -> None:
        """Do nothing."""

    def post_credit(self, _: Delivery, /) -> None:
        """Do nothing."""

    def task_waits(self, _: asyncio.AbstractEventLoop, /) -> None:
        """Do nothing."""


def _delivery() -> Delivery:
    session = Session(RunPlan(_SPAN, "openai", "gpt-4o", b"", streams=True))
    session.start(0.0)
    session.granted(Grant(_SPAN, 1, "w1", "ipc://w1", _EPOCH), 0.0)
    return Delivery(session, "tr_0123456789abcdef", 0.0, _Nobody(), 1)


def _arrive(delivery: Delivery, texts: Sequence[str]) -> None:
    session = delivery.session
    session.chunk(_EPOCH, Chunk(_SPAN, 1, len(session.events), list(texts)))


def _threads(at_once: int) -> float:
    delivery = _delivery()
    texts, steps, spent = [_TEXT] * at_once, range(at_once), 0.0
    chunks = iter(LocalStream(delivery))
    for _ in range(_EVENTS // at_once):
        _arrive(delivery, texts)
        began = time.perf_counter()
        for _ in steps:
            next(chunks)
        spent += time.perf_counter() - began
    return spent


def _tasks(at_once: int) -> float:
    return asyncio.run(_read_in_task(at_once))


async def _read_in_task(at_once: int) -> float:
    delivery = _delivery()
    texts, steps, spent = [_TEXT] * at_once, range(at_once), 0.0
    chunks = aiter(AsyncLocalStream(delivery))
    for _ in range(_EVENTS // at_once):
        _arrive(delivery, texts)
        began = time.perf_counter()
        for _ in steps:
            await anext(chunks)
        spent += time.perf_counter() - began
    return spent


def _generator(at_once: int) -> float:
    def chunks() -> Iterator[str]:
        while True:
            yield _TEXT

    made, steps, spent = chunks(), range(at_once), 0.0
    for _ in range(_EVENTS // at_once):
        began = time.perf_counter()
        for _ in steps:
            next(made)
        spent += time.perf_counter() - began
    return spent


def _async_generator(at_once: int) -> float:
    return asyncio.run(_read_generator(at_once))


async def _read_generator(at_once: int) -> float:
    async def chunks() -> AsyncIterator[str]:
        while True:
            yield _TEXT

    made, steps, spent = chunks(), range(at_once), 0.0
    for _ in range(_EVENTS // at_once):
        began = time.perf_counter()
        for _ in steps:
            await anext(made)
        spent += time.perf_counter() - began
    return spent


def main() -> None:
    """Measure, and print µs for each chunk: the least of several rounds."""
    works: dict[str, Callable[[int], float]] = {
        "for chunk in stream": _threads,
        "a generator": _generator,
        "async for chunk in stream": _tasks,
        "an async generator": _async_generator,
    }
    print("| µs a chunk | one by one | 64 at once |\n| --- | --- | --- |")
    for name, work in works.items():
        figures = [min(work(at_once) for _ in range(_ROUNDS)) / _EVENTS * 1e6 for at_once in (1, 64)]
        print(f"| {name} | {figures[0]:.2f} | {figures[1]:.2f} |")


if __name__ == "__main__":
    main()
