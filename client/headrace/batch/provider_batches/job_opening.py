"""Opens a batch job, and starts it: from a command line and from Python in the same way."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

import msgspec

from headrace.batch.driver.job import BatchJob
from headrace.batch.driver.job_session import session_id_of
from headrace.batch.driver.options import BatchOptions
from headrace.batch.journal.job_files import JobFiles
from headrace.batch.journal.journal import Journal
from headrace.batch.provider_batches.batch_status import refuse_change
from headrace.batch.row import BadRow, Row
from headrace.batch.row_runs import RowRuns

RunsMaker = Callable[[BatchOptions, Journal | None], AbstractContextManager[RowRuns]]
"""Makes what runs the rows."""


class StartedJob(msgspec.Struct, frozen=True):
    """A job that can be iterated, and what runs its rows."""

    job: BatchJob
    runs: RowRuns


def open_journal(
    files: JobFiles,
    *,
    source: str | os.PathLike[str] | None,
    settings: Mapping[str, str],
    changed: bool,
    force: bool,
    retry_failed: bool,
    option_prefix: str = "",
) -> Journal:
    """Open the journal of a job: see :meth:`Journal.open`. ``option_prefix``: before the names of options in errors.

    Raises what ``Journal.open`` raises, and InvalidRequestError if ``changed`` or ``force`` is given while a provider has
    rows of the job.
    """
    if changed or force:
        refuse_change(files.directory, option_prefix + ("changed" if changed else "force"))
    return Journal.open(
        files, source=source, settings=settings, changed=changed, force=force, retry_failed=retry_failed
    )


@contextlib.contextmanager
def started_job(
    make_runs: RunsMaker,
    rows: Iterable[Row | BadRow],
    journal: Journal | None,
    options: BatchOptions,
    *,
    check: Callable[[], object] = bool,
    is_held: Callable[[], bool] = bool,
) -> Iterator[StartedJob]:
    """Yield a job whose journal has scanned ``rows``, and end it afterwards. Its spans have the job's session.

    ``check``, ``is_held``: see BatchJob. Raises what ``make_runs`` and BatchJob raise.
    """
    options = msgspec.structs.replace(options, session_id=session_id_of(journal))
    with make_runs(options, journal) as runs:
        to_run = () if options.cancels_batches else rows
        job = BatchJob(runs, to_run, journal, options, check=check, is_held=is_held)
        with contextlib.closing(job):
            yield StartedJob(job, runs)
