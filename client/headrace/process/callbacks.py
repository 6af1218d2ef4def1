"""Runs users' code on separate threads: done callbacks and log handlers never run on the I/O thread.

Threads are started when there are callbacks, up to :data:`MAX_THREADS`. A thread ends when it has had no work for a while. A callback
that sleeps blocks only its own thread. If all threads are blocked, further callbacks wait. What a callback raises is logged, also
SystemExit, and ends nothing.
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
"""Callback threads of a process at most."""
_IDLE = 5.0
"""Seconds after which a thread without work ends."""

Jobs = list[Callable[[], object]]


class _ThreadMarks(threading.local):
    """Facts of one thread."""

    is_io_thread = False
    """Whether the thread is an I/O thread, or does its work now."""
    interrupt: BaseException | None = None
    """See :func:`note_interrupt`."""


thread_marks = _ThreadMarks()


def mark_io_thread() -> None:
    """Mark the calling thread as an I/O thread."""
    thread_marks.is_io_thread = True


def is_io_thread() -> bool:
    """Return whether the caller runs on an I/O thread, or does its work now. It must not wait, and must not run users' code.

    Users' code can still run there: Python runs a finalizer in the thread that happens to collect garbage.
    """
    return thread_marks.is_io_thread


def note_interrupt(error: BaseException) -> None:
    """Remember an exception that was caught, to be raised again at the end of a guest's turn, if it asks the program to end."""
    if not isinstance(error, Exception):
        thread_marks.interrupt = error


class CallbackThreads:
    """A few daemon threads. No callback can delay the end of the program."""

    def __init__(self, limit: int = MAX_THREADS) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[Jobs] = queue.SimpleQueue()
        # Reentrant: a finalizer or a signal handler may interrupt `submit` and submit jobs itself.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._threads = 0
        self._outstanding = 0

    def submit(self, jobs: Jobs) -> None:
        """Run jobs soon, in this order and on one thread. Returns at once. May be called from any thread. Do not use the list afterwards."""
        with (
            self._lock
        ):  # not the Condition: a signal handler may run within its methods, and the I/O thread calls this
            self._outstanding += 1
            self._jobs.put(jobs)
            if self._outstanding <= self._threads or self._threads >= self._limit:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._serve, name="headrace-callbacks", daemon=True).start()
        except RuntimeError:
            # There is no memory for a thread, or the interpreter is ending. Another thread, or drain, runs the job.
            with self._lock:
                self._threads -= 1

    def drain(self, timeout: float) -> None:
        """Wait until all jobs have run, at most ``timeout`` seconds. If no thread could be started, run the jobs here."""
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
        # Remove each job from the list here, so that finalizers of its objects, which are users' code, run here too.
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
    """Run jobs on a callback thread of this process. Do not use the list afterwards."""
    _threads.submit(jobs)


def drain(timeout: float) -> None:
    """Wait until all jobs of this process have run, at most ``timeout`` seconds."""
    _threads.drain(timeout)


def forget_threads() -> None:
    """Start with no threads, in a forked child: it does not have the threads of its parent."""
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
    """Log an event, but not on the I/O thread, because handlers and filters are users' code."""
    if not is_io_thread():
        to.log(level, message, exc_info=error, extra=extra)
    elif to.isEnabledFor(level):
        run_elsewhere([partial(to.log, level, message, exc_info=error, extra=extra)])
