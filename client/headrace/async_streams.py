"""AsyncLocalStream: the stream that an asyncio task iterates. Imported only by programs that use asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import Context
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, cast

from headrace.errors import HeadraceError
from headrace.runs.delivery import Delivery, RunHandle
from headrace.runs.outcome import ResultOrError
from headrace.runs.task_alarm import is_own_turn
from headrace.streams import LOOK_AGAIN, EndedError, Reader, Stream, public_event
from headrace.text.foreign_attributes import knows_foreign_attributes
from headrace.types import RunEvent, StreamEvent, StreamResult, T_co

if TYPE_CHECKING:
    from headrace.runs.partial_answer import PartialAnswer
    from headrace.runs.typed_answer import TypedAnswer


class AsyncLocalStream(Stream, Generic[T_co]):
    """A run whose text arrives piece by piece, for asyncio. Made by ``await client.arun_local(stream=True)``.

    As :class:`LocalStream`, with ``async for``, ``async with`` and ``await stream.result``.
    """

    def __init__(self, delivery: Delivery, reader: TypedAnswer | None = None) -> None:
        super().__init__(delivery, reader)
        # By the loop that asked for it. Most streams have none, or one.
        self._results: dict[asyncio.AbstractEventLoop, asyncio.Future[StreamResult[T_co]]] | None = None

    @property
    def result(self) -> asyncio.Future[StreamResult[T_co]]:
        """The run's result, as a future of the running event loop.

        After the first access to ``result``, Headrace reads the stream to its end, even if you stop iterating.

        It gives a StreamResult, or raises the error that iteration raises. With ``response_type``, the answer is read
        in the event loop: OutputValidationError is raised if it does not fit. Cancelling it, or the task that awaits it,
        aborts the run. Raises RuntimeError outside an event loop, ForkedStreamError in a forked child.
        """
        self._delivery.check_process()
        loop = asyncio.get_running_loop()
        results = self._results
        if results is None:
            results = self._results = {}
        future = results.get(loop)
        if future is None or future.cancelled():
            future = results[loop] = cast(
                "asyncio.Future[StreamResult[T_co]]",
                AsyncResultFuture(self._delivery, self._handle, loop, self._answer),
            )
        return future

    async def started(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the run goes on after it
        """Wait for the first event from the model, as :meth:`LocalStream.started` does. Raises the same errors.

        Cancelling the task that waits aborts the run, as it does while the task iterates: a view that a browser has left
        needs no code for it. So give a limit as ``timeout``: ``asyncio.wait_for`` cancels, and ``timeout`` does not.
        """
        limit = self.check_started(timeout)
        try:
            await self._delivery.wait_for_start_async(asyncio.get_running_loop(), limit)
        except asyncio.CancelledError:
            self._delivery.abort()
            raise
        self.raise_start_error()

    def __aiter__(self) -> AsyncIterator[str]:
        """Yield text as it arrives.

        Raises StreamConsumedError if the stream was iterated already, ForkedStreamError in a forked child, and any
        other HeadraceError when the run fails. Cancelling the task that iterates aborts the run.
        """
        self.consume()
        return _AsyncReader(self)

    def events(self) -> AsyncIterator[StreamEvent]:
        """Yield typed events as they arrive. Raises the same errors as iteration over text."""
        self.consume()
        return _AsyncEventIterator(self)

    def partials(self) -> AsyncIterator[Any]:
        """Yield the answer as it grows, as :meth:`LocalStream.partials` does. Raises the same errors."""
        partial_answer = self.partial_answer()
        self.consume()
        return _AsyncPartialIterator(self, partial_answer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()


class _AsyncReader(Reader, AsyncIterator[Any]):
    __slots__ = ("_loop", "_thread")

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        # The event loop that has run this iterator last, and its thread. asyncio asks the kernel before it names the running loop.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0

    async def aclose(self) -> None:
        """Abort the run. Async generators have the same method."""
        self._delivery.abort()

    async def __anext__(self) -> Any:
        outcome = self._outcome
        while not outcome.is_aborted:
            for value in self._batch:
                return value
            loop = self._loop
            if loop is None or get_ident() != self._thread or not loop.is_running():
                loop = self._find_loop()
            self.claim()
            try:
                future = self._delivery.waiter(loop)
                if future is not None:
                    await future
                text = self.take()
            except EndedError:
                break
            except asyncio.CancelledError:
                self._delivery.abort()
                raise
            finally:
                self._is_reading = False
            if text is not None and not outcome.is_aborted:
                return text
        raise StopAsyncIteration

    def _find_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = loop = asyncio.get_running_loop()
        self._thread = get_ident()
        return loop


class _AsyncEventIterator(_AsyncReader):
    __slots__ = ()
    yields_text = False

    def values(self, events: list[RunEvent]) -> Iterator[Any]:
        return map(public_event, events)


class _AsyncPartialIterator(_AsyncReader):
    __slots__ = ("_partial",)
    yields_text = False

    def __init__(self, stream: Stream, partial_answer: PartialAnswer) -> None:
        super().__init__(stream)
        self._partial = partial_answer

    def values(self, events: list[RunEvent]) -> Iterator[Any]:
        return iter((events,))

    async def __anext__(self) -> Any:
        while True:
            self._partial.add(await super().__anext__())
            while (seconds := self._partial.pause()) and self.may_come():
                await self._sleep(min(seconds, LOOK_AGAIN))
                self._partial.add(self.arrived())
            if self.is_wanted() and self._partial.read():
                return self._partial.value

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self._delivery.abort()
            raise


_NOT_ENDED = "the run has not ended: `await stream.result` waits for it"


@knows_foreign_attributes
class AsyncResultFuture(asyncio.Future[Any]):
    """A run's result, for one event loop. The run goes on while somebody holds this future or awaits it."""

    def __init__(
        self,
        delivery: Delivery,
        handle: RunHandle,
        loop: asyncio.AbstractEventLoop,
        reader: TypedAnswer | None = None,
    ) -> None:
        super().__init__(loop=loop)
        self._delivery = delivery
        self._handle = handle
        self._answer = reader
        delivery.check_may_wait()
        delivery.attach(self)
        delivery.task_waits(loop)

    def resolve(self, result: ResultOrError) -> None:
        """Resolve with the outcome, in the future's own event loop. Any thread may call it."""
        loop = self.get_loop()
        try:
            call = loop.call_soon if is_own_turn(loop) else loop.call_soon_threadsafe
            call(self._resolve, result)
        except Exception:  # noqa: BLE001 - a loop of any make
            return  # the loop is closed: no task can wait

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the future, and abort the run. Returns False where the future has its result already."""
        is_cancelled = super().cancel(msg)
        if is_cancelled:
            self._delivery.abort()
        return is_cancelled

    def result(self) -> Any:
        """Return the result of a run that has ended. Raises InvalidStateError before the end: ``await`` waits for it."""
        try:
            return super().result()
        except asyncio.InvalidStateError:
            raise asyncio.InvalidStateError(_NOT_ENDED) from None

    def exception(self) -> BaseException | None:
        """Return the error of a run that has ended, or None. Raises InvalidStateError before the end."""
        try:
            return super().exception()
        except asyncio.InvalidStateError:
            raise asyncio.InvalidStateError(_NOT_ENDED) from None

    def add_done_callback(self, fn: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Call ``fn`` with this future at the end of the run.

        The run goes on until then, even if nobody holds the future.
        """
        self._delivery.pin(self)
        super().add_done_callback(fn, context=context)

    def _resolve(self, result: ResultOrError) -> None:
        if self.done():
            return
        if self._answer is not None:
            result = self._answer.read(result)
        if isinstance(result, HeadraceError):
            self.set_exception(result)
            self.exception()  # marks it as seen: else asyncio complains at exit if the program does not ask for it
        else:
            self.set_result(result)
