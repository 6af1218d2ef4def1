"""AsyncBatchResults: the results of a batch job for asyncio. Imported only by programs that use asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from headrace.batch.from_python.batch_result import BatchResult, T_co
from headrace.batch.from_python.batch_results import JobResults

if TYPE_CHECKING:
    from headrace.batch.from_python.job_thread import JobThread


class AsyncBatchResults(JobResults[T_co], AsyncIterator[BatchResult[T_co]]):
    """As :class:`BatchResults`, with ``async for`` and ``async with``. Made by ``client.abatch``.

    ``items``: the rows that the job waits for, if they come from an async iterable.
    """

    def __init__(self, job: JobThread, items: AsyncItems | None = None) -> None:
        super().__init__(job)
        self._items = items

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
            self._close_job()
            await asyncio.get_running_loop().run_in_executor(None, self._job.join)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _close_job(self) -> None:
        super()._close_job()
        if self._items is not None:
            self._items.cancel()  # the next row may never come

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


class AsyncItems(Iterator[Any]):
    """What an async iterable yields, for another thread than that of its event loop ``loop``."""

    def __init__(self, rows: AsyncIterable[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._rows = aiter(rows)
        self._loop = loop
        self._end = object()
        self._next: Future[Any] | None = None
        self._is_cancelled = False

    def __next__(self) -> Any:
        """Wait for the next item, and return it. Raises CancelledError after :meth:`cancel`."""
        self._next = asyncio.run_coroutine_threadsafe(self._next_item(), self._loop)
        if self._is_cancelled:
            self._next.cancel()
        if (item := self._next.result()) is self._end:
            raise StopIteration
        return item

    def cancel(self) -> None:
        """Wait for no further item. May be called from any thread."""
        self._is_cancelled = True
        if self._next is not None:
            self._next.cancel()

    async def _next_item(self) -> Any:
        return await anext(self._rows, self._end)
