"""Runs users' code on threads of its own: done callbacks and log handlers never run on the I/O thread.

A few threads are started when there is something to run, and end when there has been nothing for a while. A callback that
sleeps holds up its own thread; beyond :data:`MAX_THREADS` such callbacks, others wait for one of them to return. What a
callback raises, SystemExit included, is logged and ends nothing.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial

logger = logging.getLogger(__name__)

MAX_THREADS = 8
_IDLE = 5.0
"""Seconds after which a thread without work ends."""

Jobs = list[Callable[[], object]]

_marks = threading.local()


def mark_io_thread() -> None:
    """Say that the calling thread is an I/O thread."""
    _marks.is_io_thread = True


def is_io_thread() -> bool:
    """Return whether the caller runs on an I/O thread, which must neither wait nor run users' code.

    It can be there all the same: Python runs finalizers in whichever thread collects garbage.
    """
    return getattr(_marks, "is_io_thread", False)


class CallbackThreads:
    """A few daemon threads, so that no callback holds up the end of the program."""

    def __init__(self, limit: int = MAX_THREADS) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[Jobs] = queue.SimpleQueue()
        # Reentrant: a finalizer or a signal handler may hand over a job while this thread does.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._threads = 0
        self._outstanding = 0

    def submit(self, jobs: Jobs) -> None:
        """Have jobs run soon, in this order and on one thread; returns at once. From any thread. The list is taken over."""
        with self._lock:  # not the Condition, in whose own methods a signal handler may run: the I/O thread comes here
            self._outstanding += 1
            self._jobs.put(jobs)
            if self._outstanding <= self._threads or self._threads >= self._limit:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._serve, name="headrace-callbacks", daemon=True).start()
        except RuntimeError:
            # No memory for a thread, or the interpreter is ending: another thread, or drain, runs the job.
            with self._lock:
                self._threads -= 1

    def drain(self, timeout: float) -> None:
        """Wait until all jobs have run, at most ``timeout`` seconds. Runs them here where no thread could be started."""
        with self._changed:
            self._changed.wait_for(lambda: not self._outstanding or not self._threads, timeout)
            has_threads = self._threads > 0
        while not has_threads:
            try:
                jobs = self._jobs.get_nowait()
            except queue.Empty:
                return
            self._run(jobs)

    def _serve(self) -> None:
        while True:
            try:
                jobs = self._jobs.get(timeout=_IDLE)
            except queue.Empty:
                with self._changed:
                    if self._outstanding < self._threads:
                        self._threads -= 1
                        return
            else:
                self._run(jobs)

    def _run(self, jobs: Jobs) -> None:
        # Emptied here, so that what a job refers to is let go of here too: its finalizer is users' code.
        while jobs:
            _call(jobs.pop(0))
        with self._changed:
            self._outstanding -= 1
            self._changed.notify_all()


def _call(job: Callable[[], object]) -> None:
    try:
        job()
    except BaseException:
        with contextlib.suppress(BaseException):
            logger.exception("callback failed")


_threads = CallbackThreads()


def run_elsewhere(jobs: Jobs) -> None:
    """Run jobs on a callback thread of this process, which takes the list over."""
    _threads.submit(jobs)


def drain(timeout: float) -> None:
    """Wait until all jobs of this process have run, at most ``timeout`` seconds."""
    _threads.drain(timeout)


def forget_threads() -> None:
    """Begin anew, in a forked child: the parent's threads are not there."""
    global _threads  # noqa: PLW0603 - one set of threads per process is the point
    _threads = CallbackThreads()


def log(
    to: logging.Logger,
    level: int,
    message: str,
    *,
    error: BaseException | None = None,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Log, but never on the I/O thread: handlers and filters are users' code."""
    if not is_io_thread():
        to.log(level, message, exc_info=error, extra=extra)
    elif to.isEnabledFor(level):
        run_elsewhere([partial(to.log, level, message, exc_info=error, extra=extra)])
