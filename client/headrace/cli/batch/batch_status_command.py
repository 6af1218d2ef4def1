"""``headrace batch status``: shows how far a batch job is, whether it runs or not."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.cli.batch.figures import counted, duration, money, rate, share
from headrace.cli.batch.progress_view import batches_lines
from headrace.cli.batch.shown_paths import shown_path
from headrace.cli.shared.exit_codes import ExitCode
from headrace.cli.shared.option_types import check_texts
from headrace.cli.shared.terminal import as_json, bold, one_line, red
from headrace.process.standard_streams import print_json

if TYPE_CHECKING:
    from headrace.batch.journal.job_records import ChosenRows, JobStatus
    from headrace.batch.provider_batches.batch_status import ProviderBatchStatus

NAME = "batch status"
HELP = "Show how far a batch job is, whether it runs or not"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("job", metavar="OUT", help="the job's output file, or its directory OUT.job")
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Show the job's state. Raises JournalError if there is no job."""
    check_texts(arguments)
    from headrace.batch.journal.job_files import job_directory
    from headrace.batch.journal.status import read_status
    from headrace.batch.provider_batches.batch_status import live_batches

    directory = job_directory(arguments.job)
    status = read_status(directory)
    batches = live_batches(directory)
    if arguments.json:
        print_json(as_json(status_object(status, batches), indent=2), sys.stdout)
        return ExitCode.OK
    lines = status_lines(status, batches, time.time())
    print(bold(next(lines), sys.stdout))
    for line in lines:
        print(red(line, sys.stdout) if "failed" in line else line)
    return ExitCode.OK


def status_lines(status: JobStatus, batches: Sequence[ProviderBatchStatus], now: float) -> Iterator[str]:
    """Yield the lines for people. ``now``: seconds since 1970."""
    totals = status.totals
    yield one_line(f"{shown_path(status.output or status.results)}: {_state(status, now)}")
    words = (
        f"  {status.ended:,} of {counted(status.rows_to_run, 'row')} ended, {share(status.ended, status.rows_to_run)}"
    )
    if status.waiting:
        words += f"; {status.waiting:,} left"
        words += f", about {duration(status.waiting / status.rate)}" if status.is_running and status.rate > 0 else ""
    yield words
    if status.chosen is not None:
        yield f"  {_choice(status.chosen, totals.rows)}"
    yield f"  {totals.done:,} done, at {rate(status.rate)} rows/s in the last minute of work"
    yield f"  {totals.input_tokens:,} prompt tokens and {totals.output_tokens:,} answer tokens; cost {money(totals.cost)}"
    for line in batches_lines(batches):
        yield f"  {one_line(line)}"
    for kind, count in sorted(status.errors.items(), key=lambda item: (-item[1], item[0])):
        yield f"  {counted(count, 'row')} failed: {one_line(kind)}"
    if status.errors:
        yield f"  errors: {one_line(shown_path(status.errors_file))}"


def _choice(chosen: ChosenRows, rows: int) -> str:
    options = [name for name, given in (("--limit", chosen.limit), ("--sample", chosen.sample)) if given is not None]
    words = f"{chosen.rows:,} of {counted(rows, 'row')} chosen by {' and '.join(options)}"
    others = f"; {chosen.others_ended:,} of the others ended before" if chosen.others_ended else ""
    return f"{words}{others}"


def _state(status: JobStatus, now: float) -> str:
    if status.is_running:
        return f"runs ({status.holder})" if status.holder else "runs"
    last = f", last change {duration(now - status.changed_at)} ago" if status.changed_at else ""
    return f"{'not running, rows are left' if status.waiting else 'complete'}{last}"


def status_object(status: JobStatus, batches: Sequence[ProviderBatchStatus]) -> dict[str, Any]:
    """Return the state for programs. Costs are in US dollars, times in seconds since 1970."""
    found: dict[str, Any] = msgspec.to_builtins(status)
    totals: dict[str, Any] = found.pop("totals")
    return found | totals | {"waiting": status.waiting, "batches": msgspec.to_builtins(batches)}
