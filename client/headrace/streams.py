"""LocalStream: what a thread holds of a run that streams. A thin face on a delivery, and its parts that asyncio shares."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, cast

from headrace.errors import StreamConsumedError
from headrace.process.callbacks import Jobs, is_io_thread, run_elsewhere
from headrace.process.clock import monotonic
from headrace.process.watchdog import LOOK_AFTER
from headrace.runs.conclusion import Final
from headrace.runs.delivery import LOCK_TIMEOUT, Delivery, Interest
from headrace.types import RunEvent, StreamEvent, StreamResult, TextDelta

R = TypeVar("R")


class Stream:
    """What both faces share."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._interest = Interest(delivery)
        # Taken by whoever iterates first, and never given back.
        self._turn = threading.Lock()

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

    def consume(self) -> None:
        self._delivery.check_process()
        if not self._turn.acquire(blocking=False):
            raise StreamConsumedError(self.span_id)


class LocalStream(Stream):
    """A run whose text arrives piece by piece.

    Iterate for text, or over :meth:`events` for everything. Dropping the stream, or leaving ``with stream:``, aborts a
    run that is still going. A ``break`` alone does not while the stream has a name: ``result`` then reads to the end.
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
            self._result = ResultFuture(self._delivery, self._interest)
        return self._result

    def __iter__(self) -> Iterator[str]:
        """Yield text as it arrives. Raises a HeadraceError when the run fails, StreamConsumedError the second time."""
        self.consume()
        return _TextIterator(self)

    def events(self) -> Iterator[StreamEvent]:
        """Yield typed events as they arrive; raises as iteration does."""
        self.consume()
        return _EventIterator(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()


# Iterators. Each keeps its stream alive, and hands out a batch of events before it looks for the next.


class Reader:
    """What the iterators share: a batch, and what comes after it."""

    __slots__ = ("_batch", "_delivery", "_stream")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._delivery = stream._delivery  # noqa: SLF001 - the stream's own iterator
        self._batch: Iterator[RunEvent] = iter(())

    def claim(self) -> None:
        """Become the one that fetches; raises StreamConsumedError while another thread or task does."""
        if not self._delivery.reading.acquire(blocking=False):
            raise StreamConsumedError(self._delivery.span_id, "is being iterated by another thread or task")

    def take(self) -> bool:
        """Fetch the next batch; return False when there is none yet, raise the run's error when there will be none."""
        delivery = self._delivery
        has_ended = delivery.has_ended  # asked first: events that came before the end are not to be missed
        batch = delivery.take()
        if batch:
            self._batch = iter(batch)
            return True
        if has_ended or delivery.is_aborted:
            raise_error(delivery.final() if has_ended else None)
            raise EndedError
        return False


class EndedError(Exception):
    """The stream has no further events."""


class _SyncReader(Reader):
    __slots__ = ()

    def close(self) -> None:
        """Abort the run, as closing a generator ends it."""
        self._delivery.abort()

    def _refill(self) -> None:
        delivery = self._delivery
        delivery.check_process()
        self.claim()
        try:
            while not self.take():
                delivery.wait()
        except EndedError:
            raise StopIteration from None
        finally:
            delivery.reading.release()


class _TextIterator(_SyncReader, Iterator[str]):
    __slots__ = ()

    def __next__(self) -> str:
        delivery = self._delivery
        while not delivery.is_aborted:
            for event in self._batch:
                if type(event) is str:
                    return event
            self._refill()
        raise StopIteration


class _EventIterator(_SyncReader, Iterator[StreamEvent]):
    __slots__ = ()

    def __next__(self) -> StreamEvent:
        delivery = self._delivery
        while not delivery.is_aborted:
            for event in self._batch:
                return public_event(event)
            self._refill()
        raise StopIteration


def public_event(event: RunEvent) -> StreamEvent:
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
        self._callbacks: list[Callable[[concurrent.futures.Future[R]], object]] = []
        self._callbacks_lock = threading.RLock()
        self.set_running_or_notify_cancel()
        delivery.attach(self)

    def settle(self, final: Final) -> None:
        """Resolve with the outcome. A future's own lock may be held by one who waits for this thread: then elsewhere."""
        if not self._condition.acquire(timeout=LOCK_TIMEOUT):
            run_elsewhere([partial(self._settle, final)])
            return
        try:
            self._settle(final)
        finally:
            self._condition.release()

    def cancel(self) -> bool:
        """Abort the run; the future still resolves, with what there is."""
        self._delivery.abort()
        return False

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result, at most ``timeout`` seconds; raises TimeoutError, or the run's error."""
        self._await(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end, at most ``timeout`` seconds; return the run's error or None."""
        self._await(timeout)
        return super().exception(0)

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[R]], object]) -> None:
        """Call ``fn`` at the end of the run. The run goes on until then, whether or not anybody holds this future.

        Called on one of Headrace's callback threads; at once and here where the end is there already. It may wait and ask
        for further runs; what it raises is logged.
        """
        self._delivery.pin(self)
        with self._callbacks_lock:
            if not self.done():
                self._callbacks.append(fn)
                if len(self._callbacks) == 1:
                    super().add_done_callback(_hand_over)
                return
        if is_io_thread():
            run_elsewhere([partial(fn, self)])
        else:
            super().add_done_callback(fn)

    def hand_over(self) -> None:
        """Have the callbacks called, in their order and on one thread, which also waits for their lock. For this module."""
        jobs: Jobs = []
        jobs.append(partial(self._add_callbacks, jobs))
        run_elsewhere(jobs)

    def _add_callbacks(self, jobs: Jobs) -> None:
        with self._callbacks_lock:
            callbacks, self._callbacks = self._callbacks, []
        jobs += [partial(callback, self) for callback in callbacks]

    def _settle(self, final: Final) -> None:
        if isinstance(final, Exception):
            self.set_exception(final)
        else:
            self.set_result(cast("R", final))

    def _await(self, timeout: float | None) -> None:
        """Wait for the end, and keep the run's bound meanwhile; raises TimeoutError."""
        self._delivery.check_process()
        if self.done():
            return
        self._delivery.check_may_wait()
        until = None if timeout is None else monotonic() + timeout
        while True:
            left = LOOK_AFTER if until is None else until - monotonic()
            try:
                super().exception(max(min(left, LOOK_AFTER), 0.0))
            except TimeoutError:
                if left <= LOOK_AFTER and until is not None:
                    raise
                self._delivery.look(monotonic())
            else:
                return


def _hand_over(future: concurrent.futures.Future[R]) -> None:
    cast("ResultFuture[R]", future).hand_over()
