"""AsyncLocalStream: what a task holds of a run that streams. Imported only where asyncio is in use already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from types import TracebackType
from typing import Any, Self, cast

from headrace.runs.conclusion import Final
from headrace.runs.delivery import Delivery, Interest
from headrace.streams import EndedError, Reader, Stream, public_event
from headrace.types import StreamEvent, StreamResult


class AsyncLocalStream(Stream):
    """The same for ``async for``, ``async with`` and ``await stream.result``."""

    def __init__(self, delivery: Delivery) -> None:
        super().__init__(delivery)
        self._results: dict[asyncio.AbstractEventLoop, asyncio.Future[StreamResult]] = {}

    @property
    def result(self) -> asyncio.Future[StreamResult]:
        """The run's result, as a future of the running loop; asking for it reads the stream to its end.

        Cancelling it (or the task that awaits it) aborts the run.
        """
        self._delivery.check_process()
        loop = asyncio.get_running_loop()
        future = self._results.get(loop)
        if future is None or future.cancelled():
            future = self._results[loop] = cast(
                "asyncio.Future[StreamResult]", AsyncResultFuture(self._delivery, self._interest, loop)
            )
        return future

    def __aiter__(self) -> AsyncIterator[str]:
        """Yield text as it arrives. Raises a HeadraceError when the run fails, StreamConsumedError the second time."""
        self.consume()
        return _AsyncTextIterator(self)

    def events(self) -> AsyncIterator[StreamEvent]:
        """Yield typed events as they arrive; raises as iteration does."""
        self.consume()
        return _AsyncEventIterator(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()


class _AsyncReader(Reader):
    __slots__ = ()

    async def aclose(self) -> None:
        """Abort the run, as closing an async generator ends it."""
        self._delivery.abort()

    async def _refill(self) -> None:
        delivery = self._delivery
        delivery.check_process()
        self.claim()
        try:
            if self.take():
                return
            loop = asyncio.get_running_loop()
            await delivery.wait_async(loop)
            while not self.take():
                await delivery.wait_async(loop)
        except EndedError:
            raise StopAsyncIteration from None
        except asyncio.CancelledError:
            delivery.abort()
            raise
        finally:
            delivery.reading.release()


class _AsyncTextIterator(_AsyncReader, AsyncIterator[str]):
    __slots__ = ()

    async def __anext__(self) -> str:
        delivery = self._delivery
        while not delivery.is_aborted:
            for event in self._batch:
                if type(event) is str:
                    return event
            await self._refill()
        raise StopAsyncIteration


class _AsyncEventIterator(_AsyncReader, AsyncIterator[StreamEvent]):
    __slots__ = ()

    async def __anext__(self) -> StreamEvent:
        delivery = self._delivery
        while not delivery.is_aborted:
            for event in self._batch:
                return public_event(event)
            await self._refill()
        raise StopAsyncIteration


class AsyncResultFuture(asyncio.Future[Any]):
    """A run's result for one event loop. Whoever holds it, or waits on it, keeps the run going."""

    def __init__(self, delivery: Delivery, interest: Interest, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._delivery = delivery
        self._interest = interest
        delivery.check_may_wait()
        delivery.attach(self)

    def settle(self, final: Final) -> None:
        """Resolve with the outcome, in the future's own loop."""
        try:
            self.get_loop().call_soon_threadsafe(self._settle, final)
        except Exception:  # noqa: BLE001 - a loop of any make
            return  # it is closed: nobody can be waiting

    def cancel(self, msg: Any | None = None) -> bool:
        """Abort the run."""
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self._delivery.abort()
        return is_cancelled

    def add_done_callback(self, fn: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Call ``fn`` at the end, even if nobody holds this future until then."""
        self._delivery.pin(self)
        super().add_done_callback(fn, context=context)

    def _settle(self, final: Final) -> None:
        if self.done():
            return
        if isinstance(final, Exception):
            self.set_exception(final)
            self.exception()  # mark it as seen: nobody need ask, and asyncio must not complain at exit
        else:
            self.set_result(final)
