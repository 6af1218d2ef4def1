"""JobThread: runs a batch job in a thread of its own, so that results are recorded also while the program does other things."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from os import PathLike
from typing import Any

import msgspec

from headrace.batch.driver.job import BatchJob
from headrace.batch.driver.progress import BatchProgress
from headrace.batch.from_python.batch_result import BatchResult
from headrace.batch.from_python.handover import Handover
from headrace.batch.from_python.job_request import JobRequest
from headrace.batch.from_python.python_rows import ListedRows, SpooledRows, StreamedRows
from headrace.batch.from_python.recorded_results import RecordedResults, ResultsInOrder, result_of
from headrace.batch.journal.job_files import INPUT
from headrace.batch.journal.journal import Journal
from headrace.batch.provider_batches.job_opening import RunsMaker, open_journal, started_job
from headrace.batch.records.record_lines import failure_line
from headrace.batch.row import BadRow, Row
from headrace.batch.rows.row_source import RowSource

_BACKLOG = 1024
"""Results that the program has not taken yet, from which on no further rows are started."""

RowsGiven = Iterable[Any] | str | PathLike[str]
"""Rows of a job: items, or the path of a file."""


class JobThread:
    """A job and its thread. ``check``: raises if the client is closed."""

    def __init__(self, rows: RowsGiven, request: JobRequest, make_runs: RunsMaker, check: Callable[[], object]) -> None:
        self.handover: Handover[BatchResult[Any]] = Handover(_BACKLOG)
        self._given = rows
        self._request = request
        self._make_runs = make_runs
        self._check = check
        self._job: BatchJob | None = None
        self._interrupts = 0
        self._is_behind = False
        """Whether results can be passed on that were not, because the program has not taken earlier ones."""
        self._lock = threading.RLock()  # a signal handler may interrupt the job while its own thread does
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._work, name="headrace-batch", daemon=True)
        self._thread.start()

    def wait_until_begun(self) -> None:
        """Wait until the rows are known to the journal. Raises what is wrong with them."""
        try:
            self._has_begun.wait()
        except BaseException:  # Ctrl-C: nobody takes the results
            self.close()
            raise
        if self._job is None and self.handover.error is not None:
            raise self.handover.error

    def progress(self) -> BatchProgress | None:
        """Return the figures of this moment; None while the input is compared with the journal."""
        return None if self._job is None else self._job.progress()

    def taken(self) -> None:
        """Results were taken: go on, if the job was held."""
        if self._job is not None:
            self._job.wake()

    def interrupt(self) -> None:
        """Start no further rows. The second call aborts what runs."""
        with self._lock:
            self._interrupts += 1
            if self._job is not None:
                self._job.interrupt()

    def close(self) -> None:
        """Abort what runs. Returns at once."""
        self.handover.close()
        self.interrupt()
        self.interrupt()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            self._run()
        except BaseException as raised:  # noqa: BLE001 - the program gets it
            error = raised
        self.handover.end(error)
        self._has_begun.set()

    def _run(self) -> None:
        request = self._request
        with ExitStack() as stack:
            journal = self._opened(stack)
            rows = self._rows(journal, stack)
            if journal is not None:
                journal.scan(rows, failure_line)
            # What a provider runs may end in any order, and all of it at once: then the journal keeps what waits.
            is_ordered = request.run.is_ordered and (journal is None or not request.run.is_deferred)
            options = msgspec.structs.replace(request.run, is_ordered=is_ordered)
            started = started_job(self._make_runs, rows, journal, options, check=self._check, is_held=self._is_held)
            job = stack.enter_context(started).job
            with self._lock:
                self._job = job
                for _ in range(self._interrupts):
                    job.interrupt()
            if self.handover.is_closed:
                return
            self._has_begun.set()
            self._pass_on(job, journal)
            if journal is not None:
                journal.finish()

    def _pass_on(self, job: BatchJob, journal: Journal | None) -> None:
        """Run the job, and pass on all results: also those that earlier starts have recorded."""
        handover = self.handover
        if journal is not None:
            recorded = RecordedResults(journal, self._request.run)
            if self._request.run.is_ordered:
                self._pass_on_in_order(job, ResultsInOrder(recorded, job.selection))
                return
            for results in recorded.all_in(job.selection):
                handover.wait_for_room()
                if handover.is_closed:
                    break
                handover.put(results)
        for group in job.run_groups():
            handover.put([result_of(row) for row in group])

    def _pass_on_in_order(self, job: BatchJob, results: ResultsInOrder) -> None:
        """Pass results on in the order of the input, as far as there is room. While rows run, it never waits for room."""
        handover = self.handover
        self._pass_on_ready(results)
        for group in job.run_groups():
            results.add(group)
            self._pass_on_ready(results)
        while not handover.is_closed and (found := results.next_group(is_last=True)):
            handover.wait_for_room()
            handover.put(found)

    def _pass_on_ready(self, results: ResultsInOrder) -> None:
        handover = self.handover
        self._is_behind = True
        while not handover.is_full and not handover.is_closed:
            if not (found := results.next_group()):
                self._is_behind = False
                return
            handover.put(found)

    def _is_held(self) -> bool:
        return self._is_behind or self.handover.is_full

    def _opened(self, stack: ExitStack) -> Journal | None:
        request = self._request
        if request.files is None:
            return None
        journal = open_journal(
            request.files,
            source=self._given if isinstance(self._given, str | PathLike) else None,
            settings=request.shape,
            changed=request.changed,
            force=request.force,
            retry_failed=request.retry_failed,
        )
        return stack.enter_context(journal)

    def _rows(self, journal: Journal | None, stack: ExitStack) -> Iterable[Row | BadRow]:
        given, options = self._given, self._request.rows
        if isinstance(given, str | PathLike):
            return RowSource(given, options)
        if isinstance(given, Sequence):
            return ListedRows(given, options)
        if journal is None:
            return StreamedRows(given, options)
        spooled = SpooledRows(given, options, journal.files.directory / INPUT)
        stack.callback(spooled.remove)
        return spooled
