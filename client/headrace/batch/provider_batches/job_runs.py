"""Chooses what runs the rows of a job: an engine, or the provider in its own time."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from headrace.batch.driver.options import BatchOptions
from headrace.batch.journal.journal import Journal
from headrace.batch.provider_batches.batch_status import check_no_batches
from headrace.batch.row_runs import RowRuns
from headrace.connections.run_starter import RunStarter


@contextlib.contextmanager
def job_runs(starter: RunStarter, owner: int, options: BatchOptions, journal: Journal | None) -> Iterator[RowRuns]:
    """Yield what runs the rows of a job, and close it afterwards. ``starter`` and ``owner``: those of the client.

    Raises InvalidRequestError if rows of the job are with a provider, and ``options`` do not say that they are.
    """
    if not options.is_deferred:
        from headrace.batch.engine_rows import EngineRows

        if journal is not None:
            check_no_batches(journal.files.directory)
        yield EngineRows(starter, owner, options.of_all_rows())
        return
    from headrace.batch.provider_batches.provider_runs import ProviderRuns

    with contextlib.ExitStack() as stack:
        if journal is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-batch-")))
        else:
            directory = journal.files.directory
        runs = ProviderRuns(
            starter,
            directory,
            journal=journal,
            background=options.background,
            response_type=options.response_type,
            concurrency=options.concurrency,
        )
        stack.callback(runs.close)
        if options.cancels_batches:
            runs.cancel()
        yield runs
