"""AsyncToolStream: the events and the result of ``arun_tools(stream=True)``, for an asyncio task. A task runs the loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self

from headrace.async_streams import AsyncLocalStream
from headrace.process.clock import monotonic
from headrace.tool_loop.async_tool_loop import AsyncToolLoop
from headrace.tool_loop.conversation_stream import ConversationStream
from headrace.tool_loop.event_channel import MAX_EVENTS
from headrace.tool_loop.tool_conversation import ToolConversation
from headrace.tool_loop.tool_events import ToolRunEvent, TurnStarted
from headrace.tool_loop.tools_result import RunToolsResult
from headrace.types import RunLocalResult, T_co, TextDelta

StartModel = Callable[..., Awaitable[AsyncLocalStream[Any]]]
"""Starts a streamed run of the model, with the arguments of a run."""

_tasks: set[asyncio.Task[RunToolsResult[Any]]] = set()
"""The tasks that run loops. An event loop itself keeps only weak references to its tasks."""


class AsyncToolStream(ConversationStream, Generic[T_co]):
    """A conversation with tools whose text arrives piece by piece. Made by ``await client.arun_tools(stream=True)``.

    As :class:`ToolStream`, with ``async for``, ``async with`` and ``await stream.result``. It belongs to the event loop
    that made it.
    """

    def __init__(self, conversation: ToolConversation, first: AsyncLocalStream[Any], start_model: StartModel) -> None:
        self._first = first
        self._driver = _Driver(conversation, first, start_model)
        super().__init__(conversation, first, self._driver.post_abort)

    @property
    def result(self) -> asyncio.Future[RunToolsResult[T_co]]:
        """The result of the whole conversation, as a future of the event loop that made the stream.

        After the first access to ``result``, the conversation goes on to its end, even if you stop iterating.
        Cancelling it, or the task that awaits it, ends everything: the model's run and the functions that are running.
        Raises ForkedStreamError in a forked child.
        """
        self.check_process()
        self._driver.channel.lift_bound()
        self.keep_going()
        return self._driver.task

    async def started(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the run goes on after it
        """Wait for the first event of the first turn, as :meth:`AsyncLocalStream.started` does. Raises the same errors."""
        await self._first.started(timeout)

    def abort(self) -> None:
        """Stop everything, as :meth:`ToolStream.abort` does. Any thread may call it."""
        self.check_process()
        self._driver.post_abort()

    def __aiter__(self) -> AsyncIterator[str]:
        """Yield the text of all turns as it arrives. Raises the same errors as :meth:`events`."""
        self.consume()
        return _AsyncTextIterator(self, self._driver)

    def events(self) -> AsyncIterator[ToolRunEvent]:
        """Yield typed events as they arrive. Raises the same errors as :meth:`ToolStream.events`.

        Cancelling the task that iterates aborts.
        """
        self.consume()
        return _AsyncEventIterator(self, self._driver)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()


async def stream_tools(conversation: ToolConversation, start_model: StartModel) -> AsyncToolStream[Any]:
    """Start the first run, and return the stream. Raises InvalidRequestError for a wrong argument."""
    first = await start_model(**conversation.next_arguments(monotonic()))
    return AsyncToolStream(conversation, first, start_model)


class _Channel:
    """A bounded queue between two tasks of one event loop."""

    def __init__(self) -> None:
        self._events: deque[ToolRunEvent] = deque()
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._is_closed = False
        self._has_bound = True

    async def put(self, event: ToolRunEvent) -> None:
        """Add an event. Waits while there are too many. Drops the event if the channel is closed."""
        while len(self._events) >= MAX_EVENTS and self._has_bound and not self._is_closed:
            self._taken.clear()
            await self._taken.wait()
        if not self._is_closed:
            self._events.append(event)
            self._arrived.set()

    async def take(self) -> list[ToolRunEvent]:
        """Wait for events and return them. An empty list: there will be no more."""
        while not self._events and not self._is_closed:
            self._arrived.clear()
            await self._arrived.wait()
        events = list(self._events)
        self._events.clear()
        self._taken.set()
        return events

    def lift_bound(self) -> None:
        """Let the loop go on without a reader."""
        self._has_bound = False
        self._taken.set()

    def close(self, *, drop: bool = False) -> None:
        """Say that there will be no more events. ``drop``: take back the events that were not read."""
        self._is_closed = True
        if drop:
            self._events.clear()
        self._arrived.set()
        self._taken.set()


class _Driver:
    """Runs the loop in its task. Does not refer to the stream: so dropping the stream can abort."""

    def __init__(self, conversation: ToolConversation, first: AsyncLocalStream[Any], start_model: StartModel) -> None:
        self.channel = _Channel()
        self.is_aborted = False
        self._conversation = conversation
        self._next: AsyncLocalStream[Any] | None = first
        self._model = first
        self._start_model = start_model
        self._event_loop = asyncio.get_running_loop()
        self._loop = AsyncToolLoop(conversation, self._ask_model, self.channel.put)
        self.task = asyncio.create_task(self._loop.run(), name="headrace-tool-loop")
        _tasks.add(self.task)
        self.task.add_done_callback(self._ended)

    def post_abort(self) -> None:
        """End the conversation, unless it has ended. May be called from any thread, and by a finalizer."""
        if not self.task.done():
            self.is_aborted = True
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                self._event_loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        self._loop.abort()
        self._model.abort()
        self.channel.close(drop=True)

    def _ended(self, task: asyncio.Task[RunToolsResult[Any]]) -> None:
        _tasks.discard(task)
        if task.cancelled():
            self.is_aborted = True
            self._model.abort()
        else:
            task.exception()  # marks it as seen: else asyncio complains if the program does not ask for it
        self.channel.close(drop=task.cancelled())

    async def _ask_model(self, **arguments: Any) -> RunLocalResult[Any]:
        stream, self._next = self._next or await self._start_model(**arguments), None
        self._model = stream
        if self.is_aborted:
            stream.abort()
        await self.channel.put(TurnStarted(self._conversation.turn, stream.span_id))
        async for event in stream.events():
            await self.channel.put(event)
        return await stream.result


class _AsyncReader:
    """What both iterators share. It keeps the stream alive."""

    def __init__(self, stream: ConversationStream, driver: _Driver) -> None:
        self._stream = stream
        self._driver = driver
        self._batch: Iterator[ToolRunEvent] = iter(())

    async def aclose(self) -> None:
        """Abort. Async generators have the same method."""
        self._driver.post_abort()

    async def next_event(self) -> ToolRunEvent:
        """Return the next event. Raises the error of the conversation, or StopAsyncIteration at its end."""
        driver = self._driver
        try:
            while not driver.is_aborted:
                for event in self._batch:
                    return event
                self._stream.check_process()
                events = await driver.channel.take()
                self._batch = iter(events)
                if not events and not driver.is_aborted:
                    await driver.task  # raises the error, if there is one
                    break
        except asyncio.CancelledError:
            driver.post_abort()
            raise
        raise StopAsyncIteration


class _AsyncEventIterator(_AsyncReader, AsyncIterator[ToolRunEvent]):
    async def __anext__(self) -> ToolRunEvent:
        return await self.next_event()


class _AsyncTextIterator(_AsyncReader, AsyncIterator[str]):
    async def __anext__(self) -> str:
        while True:
            event = await self.next_event()
            if isinstance(event, TextDelta):
                return event.text
