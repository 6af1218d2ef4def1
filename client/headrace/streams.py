"""LocalStream: the stream that a thread iterates, and the parts that it shares with AsyncLocalStream."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

from headrace.arguments.checks import waiting_time
from headrace.errors import InvalidRequestError, StreamConsumedError
from headrace.process.clock import monotonic
from headrace.process.own_process import own_process
from headrace.runs.delivery import Delivery, RunHandle
from headrace.runs.result_future import ResultFuture, raise_error
from headrace.text.foreign_attributes import knows_foreign_attributes
from headrace.types import RunEvent, StreamEvent, StreamResult, T_co, TextDelta

if TYPE_CHECKING:
    from headrace.runs.partial_answer import PartialAnswer
    from headrace.runs.typed_answer import TypedAnswer

LOOK_AGAIN = 0.005
"""Seconds between two looks at what has arrived, while a reader of partial values pauses."""


@knows_foreign_attributes
class Stream:
    """What LocalStream and AsyncLocalStream share."""

    def __init__(self, delivery: Delivery, reader: TypedAnswer | None = None) -> None:
        self._delivery = delivery
        self._handle = RunHandle(delivery)
        self._answer = reader
        self._is_consumed = False

    @property
    def span_id(self) -> str:
        """The run's id. It is known before the first chunk."""
        return self._delivery.span_id

    @property
    def trace_id(self) -> str:
        """The id of the trace that the run belongs to."""
        return self._delivery.trace_id

    def abort(self) -> None:
        """Stop the run: iteration ends, and the provider's connection is closed.

        Returns at once. Any thread may call it, at any time, more than once. It has no effect after the program has
        seen the run's outcome. An abort is not an error: the result has ``aborted=True`` and the partial text.
        """
        self._delivery.abort()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.span_id}>"

    def consume(self) -> None:
        """Begin the only iteration.

        Raises StreamConsumedError the second time, ForkedStreamError in a child process.
        """
        self._delivery.check_process()
        # One step: no other thread runs between the look and the change.
        was_consumed, self._is_consumed = self._is_consumed, True
        if was_consumed:
            raise StreamConsumedError(self.span_id)

    def partial_answer(self) -> PartialAnswer:
        """Return what reads the answer as it grows. Raises InvalidRequestError without ``response_type``."""
        if self._answer is None:
            raise InvalidRequestError(
                "is missing: give a type to the run, and partials() yields its object", "response_type"
            )
        from headrace.runs.partial_answer import PartialAnswer

        return PartialAnswer(self._answer.response_type, monotonic)

    def check_started(self, timeout: float | None) -> float | None:
        """Check the call of ``started``, and return its timeout in seconds."""
        self._delivery.check_process()
        return None if timeout is None else waiting_time("timeout", timeout)

    def raise_start_error(self) -> None:
        """Raise the run's error if the run failed before its first event."""
        if (error := self._delivery.start_error()) is not None:
            raise error


class LocalStream(Stream, Generic[T_co]):
    """A run whose text arrives piece by piece. Made by ``client.run_local(stream=True)``.

    ``LocalStream[Invoice]`` is the stream of a run with ``response_type=Invoice``.

    Iterate over it for text, or over :meth:`events` for everything. One thread may iterate it, once.

    The run is aborted when you leave ``with stream:``, and when the last reference to the stream, its iterator and its
    result is gone. A ``break`` without ``with`` does not abort the run while a variable holds the stream.
    """

    def __init__(self, delivery: Delivery, reader: TypedAnswer | None = None) -> None:
        super().__init__(delivery, reader)
        self._result: concurrent.futures.Future[StreamResult[T_co]] | None = None

    @property
    def result(self) -> concurrent.futures.Future[StreamResult[T_co]]:
        """The run's result, as a future that always resolves.

        After the first access to ``result``, Headrace reads the stream to its end, even if you stop iterating.

        ``result.result(timeout)`` waits at most ``timeout`` seconds. It returns a StreamResult, or raises the error
        that iteration raises. With ``response_type`` it reads the answer, in the thread that asks, and raises
        OutputValidationError if the answer does not fit. ``result.cancel()`` aborts the run. Raises ForkedStreamError
        in a forked child.
        """
        self._delivery.check_process()
        if self._result is None:
            self._result = ResultFuture(self._delivery, self._handle, self._answer)
        return self._result

    def started(self, timeout: float | None = None) -> None:
        """Wait for the first event from the model: text, reasoning, a tool call or anything else; or for the run's end.

        ``timeout``: seconds to wait at most (default None: no limit of its own; the run's timeouts end the wait).

        Nothing is consumed: iterating afterwards yields everything. May be called at any time, from any thread, more
        than once. It returns at once when something has arrived, when the run has ended, and after an abort.

        Raises the run's error if the run failed before its first event; iterating then raises the same error. Raises
        TimeoutError if nothing came within ``timeout``; the run goes on. Raises InvalidRequestError if ``timeout`` is
        not a number of seconds from 0, ForkedStreamError in a forked child.
        """
        limit = self.check_started(timeout)
        self._delivery.wait_for_start(limit)
        self.raise_start_error()

    def __iter__(self) -> Iterator[str]:
        """Yield text as it arrives.

        Raises StreamConsumedError if the stream was iterated already, ForkedStreamError in a forked child, and any
        other HeadraceError when the run fails.
        """
        self.consume()
        return _SyncReader(self)

    def events(self) -> Iterator[StreamEvent]:
        """Yield typed events as they arrive. Raises the same errors as iteration over text."""
        self.consume()
        return _EventIterator(self)

    def partials(self) -> Iterator[Any]:
        """Yield the answer as it grows: plain JSON values (dicts, lists, str …), the last one whole. Needs ``response_type``.

        A partial value has what has arrived, in the form of the type's JSON. It is not checked, and no instance of the
        type: ``result.parsed`` is. Values of a long answer come less often than its text: reading them takes at most a
        fifth of this thread's time. What you do with one value does not change the next.

        Raises InvalidRequestError without ``response_type``, and the same errors as iteration over text.
        """
        partial_answer = self.partial_answer()
        self.consume()
        return _PartialIterator(self, partial_answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()


# Iterators. Each keeps its stream alive. It hands out one batch of events, then fetches the next.


class Reader:
    """What all iterators share: the current batch, and how to fetch the next."""

    __slots__ = ("_batch", "_delivery", "_is_reading", "_outcome", "_stream")
    yields_text = True
    """Whether the iterator yields text just as it has come."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._delivery = stream._delivery  # noqa: SLF001 - the stream's own iterator
        self._outcome = self._delivery.outcome
        self._batch: Iterator[Any] = _EMPTY
        self._is_reading = False

    def values(self, events: list[RunEvent]) -> Iterator[Any]:
        """Return what the iterator yields for some events: by default the text among them."""
        return iter([event for event in events if type(event) is str])

    def claim(self) -> None:
        """Become the only reader.

        Raises StreamConsumedError while another thread or task fetches events, ForkedStreamError in a child process.
        """
        delivery = self._delivery
        if delivery.pid != own_process.pid:
            delivery.check_process()
        # One step: no other thread runs between the look and the change.
        was_reading, self._is_reading = self._is_reading, True
        if was_reading:
            raise StreamConsumedError(delivery.span_id, "is being iterated by another thread or task")

    def take(self) -> str | None:
        """Fetch what has arrived: the next batch, or one text, which is returned.

        Raises the run's error after its last event, or EndedError after the last event of a run that ended well or was
        aborted.
        """
        # Read before the batch: else events that came just before the end would be lost.
        has_ended = self._outcome.has_ended
        events = self._delivery.take()
        if len(events) == 1 and self.yields_text:
            event = events[0]
            if type(event) is str:
                return event
        if events:
            self._batch = self.values(events)
        elif has_ended or self._outcome.is_aborted:
            if has_ended:
                raise_error(self._delivery.see_result())
            raise EndedError
        return None

    def is_wanted(self) -> bool:
        """Tell whether the run was not aborted."""
        return not self._outcome.is_aborted

    def may_come(self) -> bool:
        """Tell whether further events may come."""
        return not self._outcome.has_ended and self.is_wanted()

    def arrived(self) -> list[RunEvent]:
        """Return what has arrived meanwhile, without waiting. Leaves the run's error to the next call of ``take``."""
        self.claim()
        try:
            return self._delivery.take()
        finally:
            self._is_reading = False


_EMPTY: Iterator[Any] = iter(())


class EndedError(Exception):
    """The stream has no further events."""


class _SyncReader(Reader, Iterator[Any]):
    __slots__ = ()

    def close(self) -> None:
        """Abort the run. Generators have the same method."""
        self._delivery.abort()

    def __next__(self) -> Any:
        outcome = self._outcome
        while not outcome.is_aborted:
            for value in self._batch:
                return value
            text = self._refill()
            if text is not None and not outcome.is_aborted:
                return text
        raise StopIteration

    def _refill(self) -> str | None:
        self.claim()
        try:
            self._delivery.wait()
            return self.take()
        except EndedError:
            raise StopIteration from None
        finally:
            self._is_reading = False


class _EventIterator(_SyncReader):
    __slots__ = ()
    yields_text = False

    def values(self, events: list[RunEvent]) -> Iterator[Any]:
        return map(public_event, events)


class _PartialIterator(_SyncReader):
    __slots__ = ("_partial",)
    yields_text = False

    def __init__(self, stream: Stream, partial_answer: PartialAnswer) -> None:
        super().__init__(stream)
        self._partial = partial_answer

    def values(self, events: list[RunEvent]) -> Iterator[Any]:
        return iter((events,))

    def __next__(self) -> Any:
        while True:
            self._partial.add(super().__next__())
            while (seconds := self._partial.pause()) and self.may_come():
                time.sleep(min(seconds, LOOK_AGAIN))
                self._partial.add(self.arrived())
            if self.is_wanted() and self._partial.read():
                return self._partial.value


def public_event(event: RunEvent) -> StreamEvent:
    """Return an event as :meth:`LocalStream.events` yields it."""
    return TextDelta(event) if isinstance(event, str) else event
