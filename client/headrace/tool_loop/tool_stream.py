"""ToolStream: the events and the result of ``run_tools(stream=True)``, for a thread. A thread of its own runs the loop."""

from __future__ import annotations

import concurrent.futures
import contextvars
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self

from headrace.process.callbacks import run_elsewhere
from headrace.process.clock import monotonic
from headrace.streams import LocalStream
from headrace.text.foreign_attributes import knows_foreign_attributes
from headrace.tool_loop.conversation_stream import ConversationStream
from headrace.tool_loop.event_channel import EventChannel
from headrace.tool_loop.tool_conversation import ToolConversation
from headrace.tool_loop.tool_events import ToolRunEvent, TurnStarted
from headrace.tool_loop.tool_loop import ToolLoop
from headrace.tool_loop.tools_result import RunToolsResult
from headrace.types import RunLocalResult, T_co, TextDelta

StartModel = Callable[..., LocalStream[Any]]
"""Starts a streamed run of the model, with the arguments of a run."""


class ToolStream(ConversationStream, Generic[T_co]):
    """A conversation with tools whose text arrives piece by piece. Made by ``client.run_tools(stream=True)``.

    Iterate over it for the text of all turns, or over :meth:`events` for everything: the model's events, turns that
    begin and end, calls of functions and what they returned. One thread may iterate it, once.

    The functions are called whether you iterate or not; but while you do not read, the model is slowed down, as any
    stream is. Leaving ``with stream:`` aborts. So does dropping the stream, unless its result was asked for.
    """

    def __init__(self, conversation: ToolConversation, start_model: StartModel) -> None:
        """Start the first run. Raises InvalidRequestError for a wrong argument."""
        first = start_model(**conversation.next_arguments(monotonic()))
        self._first = first
        self._driver = _Driver(conversation, first, start_model)
        super().__init__(conversation, first, self._driver.dropped)
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._driver.run,), name="headrace-tool-loop", daemon=True).start()

    @property
    def result(self) -> concurrent.futures.Future[RunToolsResult[T_co]]:
        """The result of the whole conversation, as a future that always resolves.

        After the first access to ``result``, the conversation goes on to its end, even if you stop iterating.
        ``result.cancel()`` aborts. Raises ForkedStreamError in a forked child.
        """
        self.check_process()
        self._driver.channel.lift_bound()
        self.keep_going()
        return self._driver.future

    def started(self, timeout: float | None = None) -> None:
        """Wait for the first event of the first turn, as :meth:`LocalStream.started` does. Raises the same errors."""
        self._first.started(timeout)

    def abort(self) -> None:
        """Stop everything: the model's run, and the functions that are running.

        Returns at once. Any thread may call it, also a function that the model has called, at any time, more than once.
        An async function is cancelled. A thread cannot be stopped: what it returns is dropped. An abort is not an
        error: the result has ``stopped="aborted"``.
        """
        self.check_process()
        self._driver.abort()

    def __iter__(self) -> Iterator[str]:
        """Yield the text of all turns as it arrives. Raises the same errors as :meth:`events`."""
        self.consume()
        return _TextIterator(self, self._driver)

    def events(self) -> Iterator[ToolRunEvent]:
        """Yield typed events as they arrive.

        Raises StreamConsumedError if the stream was iterated already, ForkedStreamError in a forked child, an error
        that a tool declared with ``raises``, and any other HeadraceError when a run of the model fails.
        """
        self.consume()
        return _EventIterator(self, self._driver)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()


@knows_foreign_attributes
class _ToolResultFuture(concurrent.futures.Future[RunToolsResult[Any]]):
    """The result of a conversation. It cannot be cancelled: a cancellation aborts, and the future still resolves."""

    def __init__(self, abort: Callable[[], None]) -> None:
        super().__init__()
        self._abort = abort
        self.set_running_or_notify_cancel()

    def cancel(self) -> bool:
        self._abort()
        return False


class _Driver:
    """Runs the loop in its thread. Does not refer to the stream: so dropping the stream can abort."""

    def __init__(self, conversation: ToolConversation, first: LocalStream[Any], start_model: StartModel) -> None:
        self.channel = EventChannel()
        self.future = _ToolResultFuture(self.abort)
        self.is_aborted = False
        self.has_ended = False
        self._conversation = conversation
        self._next: LocalStream[Any] | None = first
        self._model = first
        self._start_model = start_model
        self._loop = ToolLoop(conversation, self._ask_model, self.channel.put)

    def run(self) -> None:
        """Run the conversation to its end."""
        try:
            result = self._loop.run()
        except BaseException as error:  # noqa: BLE001 - whoever reads the stream or its result gets it
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
        finally:
            self.has_ended = True
            self.channel.close()

    def abort(self) -> None:
        """End the conversation, unless it has ended."""
        if self.future.done():
            return
        self.is_aborted = True
        self._loop.abort()
        self._model.abort()
        self.channel.close(drop=True)

    def dropped(self) -> None:
        """End the conversation, because nobody holds its stream any more. A finalizer calls this: it takes no lock."""
        if not self.has_ended:
            run_elsewhere([self.abort])

    def _ask_model(self, **arguments: Any) -> RunLocalResult[Any]:
        stream, self._next = self._next or self._start_model(**arguments), None
        self._model = stream
        if self.is_aborted:
            stream.abort()
        self.channel.put(TurnStarted(self._conversation.turn, stream.span_id))
        for event in stream.events():
            self.channel.put(event)
        return stream.result.result()


class _Reader:
    """What both iterators share. It keeps the stream alive."""

    def __init__(self, stream: ConversationStream, driver: _Driver) -> None:
        self._stream = stream
        self._driver = driver
        self._batch: Iterator[ToolRunEvent] = iter(())

    def close(self) -> None:
        """Abort. Generators have the same method."""
        self._driver.abort()

    def next_event(self) -> ToolRunEvent:
        """Return the next event. Raises the error of the conversation, or StopIteration at its end."""
        driver = self._driver
        while not driver.is_aborted:
            for event in self._batch:
                return event
            self._stream.check_process()
            events = driver.channel.take()
            self._batch = iter(events)
            if not events and not driver.is_aborted:
                driver.future.result()  # raises the error, if there is one
                break
        raise StopIteration


class _EventIterator(_Reader, Iterator[ToolRunEvent]):
    def __next__(self) -> ToolRunEvent:
        return self.next_event()


class _TextIterator(_Reader, Iterator[str]):
    def __next__(self) -> str:
        while True:
            event = self.next_event()
            if isinstance(event, TextDelta):
                return event.text
