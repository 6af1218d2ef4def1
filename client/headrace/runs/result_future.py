"""ResultFuture: the result of a run as a ``concurrent.futures.Future``, for threads."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from headrace.errors import HeadraceError
from headrace.process.callbacks import Jobs, is_io_thread, run_elsewhere
from headrace.process.clock import monotonic
from headrace.process.watchdog import LOOK_AFTER
from headrace.runs.delivery import LOCK_TIMEOUT, Delivery, RunHandle
from headrace.runs.outcome import ResultOrError
from headrace.text.foreign_attributes import knows_foreign_attributes

if TYPE_CHECKING:
    from headrace.runs.typed_answer import TypedAnswer

R = TypeVar("R")


@knows_foreign_attributes
class ResultFuture(concurrent.futures.Future[R]):
    """A run's result, for threads. The run goes on while somebody holds this future."""

    def __init__(self, delivery: Delivery, handle: RunHandle, reader: TypedAnswer | None = None) -> None:
        super().__init__()
        self._delivery = delivery
        self._handle = handle
        self._answer = reader
        self._callbacks: list[Callable[[concurrent.futures.Future[R]], object]] = []
        self._callbacks_lock = threading.RLock()
        self.set_running_or_notify_cancel()
        delivery.attach(self)

    def resolve(self, result: ResultOrError) -> None:
        """Resolve with the outcome.

        A thread that waits for this thread may hold the future's own lock. Then a callback thread resolves it.
        """
        if not self._condition.acquire(timeout=LOCK_TIMEOUT):
            run_elsewhere([partial(self._resolve, result)])
            return
        try:
            self._resolve(result)
        finally:
            self._condition.release()

    def cancel(self) -> bool:
        """Abort the run. Returns False: the future still resolves, with the partial text."""
        self._delivery.abort()
        return False

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result, at most ``timeout`` seconds (None: no limit).

        Raises TimeoutError, or the run's error. With ``response_type`` it reads the answer, in this thread.
        """
        self._await(timeout)
        result = super().result(0)
        if self._answer is not None:
            raise_error(result := self._answer.read(result))
        return result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end, at most ``timeout`` seconds (None: no limit).

        Return the run's error or None. Raises TimeoutError.
        """
        self._await(timeout)
        error = super().exception(0)
        if error is not None or self._answer is None:
            return error
        found = self._answer.read(super().result(0))
        return found if isinstance(found, HeadraceError) else None

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[R]], object]) -> None:
        """Call ``fn`` with this future at the end of the run.

        The run goes on until then, even if nobody holds the future.

        ``fn`` is called on one of Headrace's callback threads. If the run has ended already, it is called here, at
        once. It may wait, and it may make further runs. An error that it raises is logged.
        """
        self._delivery.pin(self)
        with self._callbacks_lock:
            if not self.done():
                self._callbacks.append(fn)
                if len(self._callbacks) == 1:
                    super().add_done_callback(_run_callbacks)
                return
        if is_io_thread():
            run_elsewhere([partial(fn, self)])
        else:
            super().add_done_callback(fn)

    def run_callbacks(self) -> None:
        """Call the callbacks on a callback thread, in their order. Only this module uses it."""
        jobs: Jobs = []
        jobs.append(partial(self._add_callbacks, jobs))
        run_elsewhere(jobs)

    def _add_callbacks(self, jobs: Jobs) -> None:
        with self._callbacks_lock:
            callbacks, self._callbacks = self._callbacks, []
        jobs += [partial(callback, self) for callback in callbacks]

    def _resolve(self, result: ResultOrError) -> None:
        if isinstance(result, HeadraceError):
            self.set_exception(result)
        else:
            self.set_result(cast("R", result))

    def _await(self, timeout: float | None) -> None:
        """Wait for the end, and check the run's time limit meanwhile. Raises TimeoutError."""
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


def _run_callbacks(future: concurrent.futures.Future[R]) -> None:
    cast("ResultFuture[R]", future).run_callbacks()


def raise_error(result: ResultOrError) -> None:
    """Raise the run's error, if it has one."""
    if isinstance(result, HeadraceError):
        raise result
