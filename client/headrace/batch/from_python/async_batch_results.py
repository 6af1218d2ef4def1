"""AsyncBatchResults: the results of a batch job for asyncio. Imported only by programs that use asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Self

from headrace.batch.from_python.batch_result import BatchResult, T_co
from headrace.batch.from_python.batch_results import JobResults


class AsyncBatchResults(JobResults[T_co], AsyncIterator[BatchResult[T_co]]):
    """As :class:`BatchResults`, with ``async for`` and ``async with``. Made by ``client.abatch``."""

    async def __anext__(self) -> BatchResult[T_co]:
        """Return the next result. Raises what ends the job as a whole: see ``Client.batch``."""
        while True:
            for result in self._group:
                return result
            try:
                has_more = self.next_group()
            except StopIteration:
                raise StopAsyncIteration from None
            if not has_more:
                await self._ready()

    async def aclose(self) -> None:
        """Abort what runs, and wait until what has ended is recorded. May be called more than once."""
        if not self._is_over:
            self._is_over = True
            self._job.close()
            await asyncio.get_running_loop().run_in_executor(None, self._job.join)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _ready(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not ready.done():
                ready.set_result(None)

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(tell)
            except RuntimeError:
                return  # the loop is closed: nobody waits

        self._job.handover.call_when_ready(wake)
        await ready


def items_of(rows: AsyncIterable[Any], loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """Yield what an async iterable yields, in another thread than that of its event loop."""
    iterator = aiter(rows)
    end = object()

    async def next_item() -> Any:
        return await anext(iterator, end)

    while (item := asyncio.run_coroutine_threadsafe(next_item(), loop).result()) is not end:
        yield item
