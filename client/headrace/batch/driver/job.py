"""BatchJob: reads rows, keeps the engine busy with them, records each result, and yields it. Runs in one thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from headrace.batch.driver.options import BatchOptions
from headrace.batch.driver.progress import BatchProgress
from headrace.batch.row import BadRow, FinishedRow, Row
from headrace.batch.row_runs import RowRuns

if TYPE_CHECKING:
    Journal = object  # headrace.batch.journal


class EndedRow(msgspec.Struct, frozen=True):
    """A row of the job that has ended and is recorded. ``finished``: its result, or the BadRow that could not be run.

    ``origin``: ``run``, ``shared`` with another row, or from the file ``cache``.
    """

    finished: FinishedRow | BadRow
    origin: str = "run"


class BatchJob:
    """A batch job. ``run()`` may be called once; the other methods may be called from any thread, and from signal handlers.

    ``runs``: the engine. ``rows``: the input, in order; it is iterated once. ``journal``: open, and it has scanned the
    same rows already; None for a job that keeps nothing.
    """

    def __init__(
        self, runs: RowRuns, rows: Iterable[Row | BadRow], journal: Journal | None, options: BatchOptions
    ) -> None:
        raise NotImplementedError

    def run(self) -> Iterator[EndedRow]:
        """Run all rows that have no final record yet, and yield each after it is recorded.

        The input is read only as far as the engine takes rows, and the job stops while nobody takes its results. If the
        generator is closed, what runs is aborted; what has ended is recorded.

        A BadRow is yielded only without a journal, whose scan has recorded it as failed.

        Raises the journal's error if a result cannot be written, and EngineUnavailableError or BudgetExceededError if no
        further row can run. The rows without a record are run by the next start.
        """
        raise NotImplementedError

    def interrupt(self) -> None:
        """Start no further rows, and finish what runs. The second call aborts what runs. Returns at once."""
        raise NotImplementedError

    def progress(self) -> BatchProgress:
        """Return the figures of this moment. Cheap enough for ten times a second."""
        raise NotImplementedError
