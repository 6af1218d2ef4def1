"""What a batch job knows at its start: which rows it runs, what earlier starts have done, and their answers."""

from __future__ import annotations

from collections.abc import Iterable, Sized

from headrace.batch.driver.answer_cache import Answer
from headrace.batch.driver.job_counts import JobCounts
from headrace.batch.driver.options import BatchOptions
from headrace.batch.driver.selection import Selection
from headrace.batch.journal.job_records import ChosenRows
from headrace.batch.journal.journal import Journal
from headrace.batch.records.record_reading import read_result
from headrace.batch.row import BadRow, Row
from headrace.errors import HeadraceError
from headrace.process.clock import monotonic


def begin(rows: Iterable[Row | BadRow], journal: Journal | None, options: BatchOptions) -> tuple[Selection, JobCounts]:
    """Return what the job runs of its input, and its figures at the beginning. The journal keeps which part it is.

    Raises RecordWriteError.
    """
    now = monotonic()
    if journal is None:
        count = len(rows) if isinstance(rows, Sized) else None
        selection = Selection(options.limit, options.sample, None if count is None else range(1, count + 1))
        total = count if selection.numbers is None else len(selection.numbers)
        return selection, JobCounts(now, total)
    totals = journal.totals()
    selection = Selection(options.limit, options.sample, journal.numbers())
    chosen = None
    if selection.numbers is None:
        counts = JobCounts(
            now, totals.rows, done_before=totals.done, failed_before=totals.failed, cost_before=totals.cost
        )
    else:
        total = len(selection.numbers)
        waiting = sum(1 for _ in selection.among(journal.waiting_numbers()))
        failed = sum(1 for _ in selection.among(journal.failed_numbers()))
        done = total - waiting - failed
        chosen = ChosenRows(
            limit=options.limit,
            sample=options.sample,
            rows=total,
            others_ended=totals.done + totals.failed - done - failed,
        )
        counts = JobCounts(now, total, done_before=done, failed_before=failed, cost_before=totals.cost)
    if not options.cancels_batches:  # such a start runs nothing
        journal.keep_chosen(chosen)
    return selection, counts


class RecordedAnswers:
    """Answers of the rows that a journal has recorded, by the hash of the row."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def find(self, known: bytes) -> Answer | None:
        number = self._journal.done_with_hash(known)
        stored = None if number is None else self._journal.stored_record(number)
        result = None if stored is None else read_result(stored.line)
        return None if isinstance(result, HeadraceError) else result
