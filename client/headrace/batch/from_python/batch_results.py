"""BatchResults: the results of a batch job, one after another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

from headrace.batch.from_python.batch_result import BatchResult, T_co
from headrace.errors import BatchError
from headrace.process.own_process import own_process

if TYPE_CHECKING:
    from headrace.batch.driver.progress import BatchProgress
    from headrace.batch.from_python.job_thread import JobThread


class JobResults(Generic[T_co]):
    """What BatchResults and AsyncBatchResults share. The job ends with this object: at its end, at ``close()``, or when nobody holds it."""

    def __init__(self, job: JobThread) -> None:
        self._job = job
        self._pid = own_process.pid
        self._group: Iterator[BatchResult[Any]] = iter(())
        self._is_over = False

    def progress(self) -> BatchProgress | None:
        """Return the figures of this moment: done, failed, rate, cost. None while the input is compared with the journal."""
        return self._job.progress()

    def interrupt(self) -> None:
        """Start no further rows, and finish what runs. The second call aborts what runs. Returns at once.

        The iteration ends after the last result. With ``path``, the next start runs the rest.
        """
        self._job.interrupt()

    def __del__(self) -> None:
        # A finalizer runs in any thread: so it does not wait.
        if not self._is_over and own_process.pid == self._pid:
            self._close_job()

    def _close_job(self) -> None:
        """Abort what runs. Returns at once."""
        self._job.close()

    def next_group(self) -> bool:
        """Take further results, if there are some. Raises the job's error, and StopIteration at its end."""
        if own_process.pid != self._pid:
            raise BatchError(
                "the results of a batch job belong to the process that started it; start a job in the child"
            )
        if self._is_over:
            raise StopIteration
        has_ended = self._job.handover.has_ended
        if (group := self._job.handover.take()) is not None:
            self._group = iter(group)
            self._job.taken()
            return True
        if has_ended or self._job.handover.is_closed:
            self._is_over = True
            if (error := self._job.handover.error) is not None:
                raise error
            raise StopIteration
        return False


class BatchResults(JobResults[T_co], Iterator[BatchResult[T_co]]):
    """The results of a batch job, in the order in which rows end, or in that of the input. Made by ``client.batch``.

    The job goes on in a thread of its own while the program handles a result. It starts no further rows while 1,024
    results wait for the program. Leave a loop early only with ``close()``, or with a ``with`` block: what runs is then
    aborted.
    """

    def __next__(self) -> BatchResult[T_co]:
        """Return the next result. Raises what ends the job as a whole: see ``Client.batch``."""
        while True:
            for result in self._group:
                return result
            if not self.next_group():
                ready = threading.Event()
                self._job.handover.call_when_ready(ready.set)
                ready.wait()

    def close(self) -> None:
        """Abort what runs, and wait until what has ended is recorded. May be called more than once."""
        if not self._is_over:
            self._is_over = True
            self._close_job()
            self._job.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
