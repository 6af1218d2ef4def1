"""``headrace batch --dry-run``: checks and counts the rows, and estimates tokens and cost. Sends nothing."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from headrace.batch.driver.selection import Selection
from headrace.batch.journal.job_files import INPUT, stream_files
from headrace.batch.journal.journal import Journal
from headrace.batch.records.record_lines import failure_line
from headrace.batch.row import BadRow, Row
from headrace.batch.row_estimate import input_tokens_of
from headrace.batch.rows.row_source import RowSource, copy_input
from headrace.cli.batch.displays import display_for
from headrace.cli.batch.dry_run_report import DryRun, report_lines, report_object
from headrace.cli.batch.input_check import check_input
from headrace.cli.batch.job_plan import JobPlan
from headrace.cli.batch.row_check import RowCheck
from headrace.cli.shared.exit_codes import ExitCode
from headrace.cli.shared.terminal import as_json, red
from headrace.pricing.discounts import price_share
from headrace.pricing.prices import PriceTable
from headrace.process.standard_streams import print_json


def dry_run(plan: JobPlan, *, is_json: bool, is_quiet: bool) -> ExitCode:
    """Print what the job would do. Memory is bounded for any number of rows.

    Raises DuplicateRowsError, as the job would.
    """
    check_input(plan)
    share = price_share(plan.run.background or "") if plan.run.is_deferred else 1.0
    report = DryRun(PriceTable(plan.settings.prices), share)
    check = RowCheck(plan.settings.providers, takes_any_provider=plan.engine is not None)
    display = display_for(sys.stderr, f"{plan.title} (dry run)", is_quiet=is_quiet, may_be_live=True)
    with tempfile.TemporaryDirectory(prefix="headrace-") as directory, display:
        display.watch(lambda: report.rows)
        source = plan.input
        if plan.is_read_once:
            source = str(Path(directory, INPUT))
            with plan.input_stream() as stream:
                copy_input(stream, source)
        _read(RowSource(source, plan.rows, name=plan.input), plan, report, check, directory)
    if is_json:
        print_json(as_json(report_object(report), indent=2), sys.stdout)
    else:
        for line in report_lines(report):
            print(red(line.text, sys.stdout) if line.is_problem else line.text)
    return ExitCode.ROWS_FAILED if report.bad else ExitCode.OK


def _read(rows: RowSource, plan: JobPlan, report: DryRun, check: RowCheck, directory: str) -> None:
    """Note the rows that the job would run. A journal in ``directory`` finds the ids that are used twice."""
    is_whole = plan.run.limit is None and plan.run.sample is None
    with Journal.open(stream_files(directory)) as journal:
        journal.scan(_noted(rows, report, check) if is_whole else rows, failure_line)
        if is_whole:
            return
        numbers = Selection(plan.run.limit, plan.run.sample, journal.numbers()).numbers
        assert numbers is not None  # noqa: S101 - there is a limit or a sample
        for _ in _noted(rows.numbered(numbers), report, check):
            pass


def _noted(rows: Iterable[Row | BadRow], report: DryRun, check: RowCheck) -> Iterator[Row | BadRow]:
    """Note each row in the report, and hand it on."""
    for row in rows:
        found = row if isinstance(row, BadRow) else check.checked(row)
        if isinstance(found, BadRow):
            report.note_bad(found)
        elif isinstance(row, Row):
            most_output = row.arguments.get("max_output_tokens")
            report.note(found, input_tokens_of(row), most_output, embeds=row.kind == "embeddings")
        yield row
