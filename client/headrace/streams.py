"""LocalStream and AsyncLocalStream: what a caller holds of a run that streams. Thin faces on one delivery."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import Context
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from headrace.delivery import Delivery, Final, Interest
from headrace.errors import StreamConsumedError
from headrace.types import RunEvent, StreamEvent, StreamResult, TextDelta

T = TypeVar("T", str, StreamEvent)
R = TypeVar("R")


class _Stream:
    """What both faces share."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._interest = Interest(delivery)
        self._is_consumed = False

    @property
    def span_id(self) -> str:
        """The run's id, known before any chunk."""
        return self._delivery.span_id

    @property
    def trace_id(self) -> str:
        """The id of the trace that the run belongs to."""
        return self._delivery.trace_id

    def abort(self) -> None:
        """Stop the run: iteration ends, and the provider's connection is closed.

        Returns at once. May be called from any thread, at any time and any number of times; without effect once the
        outcome was seen. An abort is not an error: the result has ``aborted=True`` and the partial text.
        """
        self._delivery.abort()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.span_id}>"

    def _consume(self) -> None:
        self._delivery.check_process()
        if self._is_consumed:
            raise StreamConsumedError(self.span_id)
        self._is_consumed = True


class LocalStream(_Stream):
    """A run whose text arrives piece by piece.

    Iterate for text, or over :meth:`events` for everything. Dropping the stream, or leaving ``with stream:``, aborts a
    run that is still going.
    """

    def __init__(self, delivery: Delivery) -> None:
        super().__init__(delivery)
        self._result: concurrent.futures.Future[StreamResult] | None = None

    @property
    def result(self) -> concurrent.futures.Future[StreamResult]:
        """The run's result, which always resolves; asking for it reads the stream to its end.

        It raises the same error as iteration does. ``cancel()`` aborts the run.
        """
        self._delivery.check_process()
        if self._result is None:
            self._result = result_future(self._delivery, self._interest)
        return self._result

    def __iter__(self) -> Iterator[str]:
        """Yield text as it arrives. Raises a HeadraceError when the run fails, StreamConsumedError the second time."""
        self._consume()
        return _TextIterator(self)

    def events(self) -> Iterator[StreamEvent]:
        """Yield typed events as they arrive; raises as iteration does."""
        self._consume()
        return _EventIterator(self)

    def __enter__(self) -> LocalStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()


class AsyncLocalStream(_Stream):
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
        self._consume()
        return _AsyncTextIterator(self)

    def events(self) -> AsyncIterator[StreamEvent]:
        """Yield typed events as they arrive; raises as iteration does."""
        self._consume()
        return _AsyncEventIterator(self)

    async def __aenter__(self) -> AsyncLocalStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()


# Iterators. Each keeps its stream alive, and hands out a batch of events before it looks for the next.


class _Reader:
    """What the iterators share: a batch, and what comes after it."""

    __slots__ = ("_batch", "_delivery", "_stream")

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self._delivery = stream._delivery  # noqa: SLF001 - the stream's own iterator
        self._batch: Iterator[RunEvent] = iter(())

    def _take(self) -> bool:
        """Fetch the next batch; return False when there is none yet, raise the run's error when there will be none."""
        delivery = self._delivery
        has_ended = delivery.has_ended  # asked first: events that came before the end are not to be missed
        batch = delivery.take()
        if batch:
            self._batch = iter(batch)
            return True
        if has_ended or delivery.is_aborted:
            raise_error(delivery.final() if has_ended else None)
            raise _EndedError
        return False


class _EndedError(Exception):
    """The stream has no further events."""


class _SyncReader(_Reader, Generic[T]):
    __slots__ = ()

    def __iter__(self) -> _SyncReader[T]:
        return self

    def close(self) -> None:
        """Abort the run, as closing a generator ends it."""
        self._delivery.abort()

    def _refill(self) -> None:
        delivery = self._delivery
        delivery.check_process()
        try:
            while not self._take():
                delivery.wait()
        except _EndedError:
            raise StopIteration from None


class _TextIterator(_SyncReader[str]):
    __slots__ = ()

    def __next__(self) -> str:
        delivery = self._delivery
        while not delivery.is_aborted:
            for event in self._batch:
                if type(event) is str:
                    return event
            self._refill()
        raise StopIteration


class _EventIterator(_SyncReader[StreamEvent]):
    __slots__ = ()

    def __next__(self) -> StreamEvent:
        delivery = self._delivery
        while not delivery.is_aborted:
            for event in self._batch:
                return _public(event)
            self._refill()
        raise StopIteration


class _AsyncReader(_Reader, Generic[T]):
    __slots__ = ()

    def __aiter__(self) -> _AsyncReader[T]:
        return self

    async def aclose(self) -> None:
        """Abort the run, as closing an async generator ends it."""
        self._delivery.abort()

    async def _refill(self) -> None:
        delivery = self._delivery
        delivery.check_process()
        try:
            if self._take():
                return
            loop = asyncio.get_running_loop()
            await delivery.wait_async(loop)
            while not self._take():
                await delivery.wait_async(loop)
        except _EndedError:
            raise StopAsyncIteration from None
        except asyncio.CancelledError:
            delivery.abort()
            raise


class _AsyncTextIterator(_AsyncReader[str]):
    __slots__ = ()

    async def __anext__(self) -> str:
        delivery = self._delivery
        while not delivery.is_aborted:
            for event in self._batch:
                if type(event) is str:
                    return event
            await self._refill()
        raise StopAsyncIteration


class _AsyncEventIterator(_AsyncReader[StreamEvent]):
    __slots__ = ()

    async def __anext__(self) -> StreamEvent:
        delivery = self._delivery
        while not delivery.is_aborted:
            for event in self._batch:
                return _public(event)
            await self._refill()
        raise StopAsyncIteration


def _public(event: RunEvent) -> StreamEvent:
    return TextDelta(event) if isinstance(event, str) else event


def raise_error(final: Final | None) -> None:
    """Raise ``final`` where it is an error."""
    if isinstance(final, Exception):
        raise final


# Results.


class ResultFuture(concurrent.futures.Future[R]):
    """A run's result for threads. Whoever holds it keeps the run going."""

    def __init__(self, delivery: Delivery, interest: Interest) -> None:
        super().__init__()
        self._delivery = delivery
        self._interest = interest
        self.set_running_or_notify_cancel()
        delivery.attach(self)

    def settle(self, final: Final) -> None:
        """Resolve with the outcome."""
        if isinstance(final, Exception):
            self.set_exception(final)
        else:
            self.set_result(cast("R", final))

    def cancel(self) -> bool:
        """Abort the run; the future still resolves, with what there is."""
        self._delivery.abort()
        return False

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result, at most ``timeout`` seconds; raises TimeoutError, or the run's error."""
        self._delivery.check_process()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end, at most ``timeout`` seconds; return the run's error or None."""
        self._delivery.check_process()
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[R]], object]) -> None:
        """Call ``fn`` at the end, even if nobody holds this future until then."""
        self._delivery.pin(self)
        super().add_done_callback(fn)


class AsyncResultFuture(asyncio.Future[Any]):
    """A run's result for one event loop. Whoever holds it, or waits on it, keeps the run going."""

    def __init__(self, delivery: Delivery, interest: Interest, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._delivery = delivery
        self._interest = interest
        delivery.attach(self)

    def settle(self, final: Final) -> None:
        """Resolve with the outcome, in the future's own loop."""
        try:
            self.get_loop().call_soon_threadsafe(self._settle, final)
        except RuntimeError:
            return  # the loop is closed: nobody can be waiting

    def cancel(self, msg: Any | None = None) -> bool:
        """Abort the run."""
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self._delivery.abort()
        return is_cancelled

    def add_done_callback(self, fn: Callable[[asyncio.Future[Any]], object], *, context: Context | None = None) -> None:
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


def result_future(delivery: Delivery, interest: Interest | None = None) -> ResultFuture[Any]:
    """Return a future of the run's result."""
    return ResultFuture(delivery, interest or Interest(delivery))
