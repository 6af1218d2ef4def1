"""Runs the job of a command line: journal, input, engine, display, output, summary."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from headrace.batch.driver.job import BatchJob
from headrace.batch.driver.job_session import session_id_of
from headrace.batch.driver.progress import BatchProgress
from headrace.batch.driver.selection import Selection
from headrace.batch.journal.job_files import INPUT, JobFiles
from headrace.batch.journal.journal import Journal
from headrace.batch.journal.stream_output import StreamOutput
from headrace.batch.provider_batches.batch_status import ProviderBatchStatus, live_batches
from headrace.batch.provider_batches.job_opening import open_journal, started_job
from headrace.batch.records.record_lines import failure_line
from headrace.batch.row import BadRow, Row
from headrace.batch.rows.row_source import RowSource
from headrace.cli.batch.displays import Display, display_for
from headrace.cli.batch.input_check import check_input, check_output
from headrace.cli.batch.input_copy import copied_input
from headrace.cli.batch.job_notes import FailureNotes
from headrace.cli.batch.job_plan import STREAM, JobPlan
from headrace.cli.batch.progress_view import JobView
from headrace.cli.batch.shown_paths import shown_path
from headrace.cli.batch.stop_signals import stop_signals
from headrace.cli.batch.summary import JobSummary, summary_lines, summary_object
from headrace.cli.shared.exit_codes import ExitCode, exit_code
from headrace.cli.shared.explain import explanation
from headrace.cli.shared.terminal import as_json, complain, red
from headrace.client import Client
from headrace.errors import BatchError, HeadraceError, RecordWriteError
from headrace.process.standard_streams import print_json


class JobSwitches(msgspec.Struct, frozen=True, kw_only=True):
    """What a command line asks for besides the rows and the way they run."""

    changed: bool = False
    force: bool = False
    retry_failed: bool = False
    is_quiet: bool = False
    as_json: bool = False


def run_job(plan: JobPlan, files: JobFiles, switches: JobSwitches) -> ExitCode:
    """Run all rows without a record. Raises HeadraceError or CommandError if the job cannot start, or cannot go on."""
    check_input(plan)  # before any file is made
    check_output(files)
    with open_journal(
        files,
        source=None if plan.input == STREAM else plan.input,
        settings=plan.shape,
        changed=switches.changed,
        force=switches.force,
        retry_failed=switches.retry_failed,
        option_prefix="--",
    ) as journal:
        run = _JobRun(plan, files, switches, journal)
        try:
            run.run()
        except HeadraceError as error:
            if not run.has_begun:
                raise
            complain(explanation(error))  # the cause goes first, and the summary says how far the job is
            run.print_summary(is_told=isinstance(error, BatchError))
            return exit_code(error)
        run.print_summary()
        return run.exit_code


class _JobRun:
    """One start of a job."""

    def __init__(self, plan: JobPlan, files: JobFiles, switches: JobSwitches, journal: Journal) -> None:
        self._plan = plan
        self._files = files
        self._switches = switches
        self._journal = journal
        self._notes = FailureNotes()
        self._rows_read = 0
        self._bad_now = 0
        """Rows that cannot be read, and that have their record from this start."""
        self._progress: BatchProgress | None = None
        self._selection: Selection | None = None

    def run(self) -> None:
        """Read the input, and run the rows that have no record."""
        with self._display() as display:
            display.watch(lambda: self._rows_read)
            rows = self._scanned()
            try:
                with Client(self._plan.engine) as client:
                    self._run_rows(client, rows, display)
            except RecordWriteError:
                raise
            except HeadraceError:
                self._journal.finish()
                raise
            self._journal.finish()

    def _display(self) -> Display:
        has_terminal_to_itself = self._plan.output != STREAM or not sys.stdout.isatty()
        return display_for(
            sys.stderr, self._plan.title, is_quiet=self._switches.is_quiet, may_be_live=has_terminal_to_itself
        )

    def _scanned(self) -> RowSource:
        """Return the input, as the journal knows it."""
        kept = self._files.directory / INPUT if self._plan.is_read_once else Path(self._plan.input)
        with contextlib.ExitStack() as stack:
            path = kept
            if self._plan.is_read_once:
                stream = stack.enter_context(self._plan.input_stream())
                path = stack.enter_context(copied_input(stream, kept))
            failed_before = 0 if self._switches.retry_failed else self._journal.totals().failed
            source = self._source(path)
            found = self._journal.scan(self._counted(source), self._bad_row_line)
            self._bad_now = found.bad if found.is_first else max(found.totals.failed - failed_before, 0)
        # The source that was scanned knows which file it read, so a change from now on is an error.
        return source if path == kept else self._source(kept)

    def _source(self, path: Path) -> RowSource:
        name = "standard input" if self._plan.input == STREAM else self._plan.input
        return RowSource(path, self._plan.rows, name=name)

    def _counted(self, rows: Iterable[Row | BadRow]) -> Iterator[Row | BadRow]:
        for row in rows:
            self._rows_read += 1
            yield row

    def _bad_row_line(self, row: BadRow) -> bytes:
        self._notes.note(row)
        return failure_line(row)

    def _run_rows(self, client: Client, rows: RowSource, display: Display) -> None:
        with started_job(client._job_runs, rows, self._journal, self._plan.run) as started:  # noqa: SLF001
            job = started.job
            self._selection = None if job.selection.is_whole else job.selection
            batches: Callable[[], list[ProviderBatchStatus]] | None = getattr(started.runs, "batches", None)
            display.watch(lambda: JobView(self._with_bad_rows(job.progress()), batches and batches()))
            try:
                with stop_signals(job.interrupt):
                    self._take_all(job)
            finally:
                self._progress = self._with_bad_rows(job.progress())

    def _take_all(self, job: BatchJob) -> None:
        output = StreamOutput(self._journal, _Stdout()) if self._plan.output == STREAM else None
        for group in job.run_groups():
            for ended in group:
                self._notes.note(ended.finished)
            if output is not None:
                output.advance()
        if output is not None:
            output.finish()

    def _with_bad_rows(self, progress: BatchProgress) -> BatchProgress:
        """Return figures in which the rows that this start could not read are no failures of an earlier start."""
        if not self._bad_now:
            return progress
        before = max(progress.failed_before - self._bad_now, 0)
        bad = progress.failed_before - before
        errors = {**progress.errors, "bad_row": bad} if bad else progress.errors
        return msgspec.structs.replace(progress, failed=progress.failed + bad, failed_before=before, errors=errors)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command."""
        summary = self._summary()
        if summary is None:
            return ExitCode.FAILED
        if self._plan.run.cancels_batches and not summary.progress.stop_reason:
            return ExitCode.OK
        if not summary.is_complete:
            return _STOP_CODES.get(summary.progress.stop_reason, ExitCode.UNFINISHED)
        return ExitCode.ROWS_FAILED if summary.errors else ExitCode.OK

    def _summary(self) -> JobSummary | None:
        if self._progress is None:
            return None
        results = self._files.output or self._files.results
        return JobSummary(
            progress=self._progress,
            errors=self._journal.errors_by_kind(self._selection),
            examples=self._notes.examples,
            results="standard output" if self._plan.output == STREAM else shown_path(results),
            errors_file=shown_path(self._files.errors),
            directory=shown_path(self._files.directory),
            session_id=session_id_of(self._journal),
            is_cancelled=self._plan.run.cancels_batches,
            batches=live_batches(self._files.directory) if self._plan.run.is_deferred else [],
        )

    @property
    def has_begun(self) -> bool:
        """Whether there are figures of rows."""
        return self._progress is not None

    def print_summary(self, *, is_told: bool = False) -> None:
        """Print what the job has done, if it has begun. ``is_told``: an error has said already what to do next."""
        if (summary := self._summary()) is None:
            return
        if self._switches.as_json:
            print_json(as_json(summary_object(summary), indent=2), sys.stdout)
        if self._switches.is_quiet:
            return
        for line in summary_lines(summary, has_next_step=not is_told):
            print(red(line.text, sys.stderr) if line.is_problem else line.text, file=sys.stderr)


_STOP_CODES = {
    "interrupted": ExitCode.INTERRUPTED,
    "no_price": ExitCode.USAGE,
}
"""StopReason → exit code, for a job that has rows left."""


class _Stdout:
    """Standard output as bytes. On a terminal, characters that control it are escaped."""

    def write(self, data: bytes, /) -> object:
        """Write lines of JSON."""
        if sys.stdout.isatty():
            for line in data.decode().splitlines():
                print_json(line, sys.stdout)
            return None
        return sys.stdout.buffer.write(data)

    def flush(self) -> None:
        """Pass on what was written."""
        sys.stdout.flush()
        sys.stdout.buffer.flush()
