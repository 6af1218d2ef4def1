"""The summary of a batch job at its end: as text for people, and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.batch.driver.progress import BatchProgress, StopReason
from headrace.cli.batch.figures import counted, duration, rate
from headrace.cli.batch.job_notes import FailedExample
from headrace.cli.batch.progress_view import batches_lines, cost_so_far, ended_rows, failed_rows, reused_rows
from headrace.cli.shared.terminal import one_line

if TYPE_CHECKING:
    from headrace.batch.provider_batches.batch_status import ProviderBatchStatus

_LONGEST_TEXT = 300
"""Letters of an error's text at most."""
_BAD_ROW = "bad_row"
"""The kind of error of a row that cannot be run."""


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a job has done.

    ``progress``: its last figures. ``errors``: kind of error → rows of the selection with it, of all starts of the job. ``examples``: kind
    of error → its first row in this start. ``results``, ``errors_file``: paths for people. ``directory``: the journal.
    ``session_id``: of the job's spans. ``is_cancelled``: the rows at the provider were cancelled. ``batches``: those that
    the provider still has.
    """

    progress: BatchProgress
    errors: Mapping[str, int]
    examples: Mapping[str, FailedExample]
    results: str
    errors_file: str
    directory: str
    session_id: str
    is_cancelled: bool = False
    batches: Sequence[ProviderBatchStatus] = ()

    @property
    def is_complete(self) -> bool:
        """Whether all rows of the selection have a record."""
        return self.progress.total is None or ended_rows(self.progress) >= self.progress.total


class SummaryLine(msgspec.Struct, frozen=True):
    """A line of the summary. ``is_problem``: it is about rows that failed, or about a stop."""

    text: str
    is_problem: bool = False


def summary_lines(summary: JobSummary, *, has_next_step: bool = True) -> Iterator[SummaryLine]:
    """Yield the lines of the summary for people. ``has_next_step``: say what goes on from here."""
    progress = summary.progress
    failed = failed_rows(progress)
    yield SummaryLine(_head(summary), is_problem=failed > 0 or not summary.is_complete)
    if progress.done or progress.failed > progress.errors.get(_BAD_ROW, 0):
        yield SummaryLine(f"  {_effort(progress)}")
        if reused := reused_rows(progress):
            yield SummaryLine(f"  {reused}")
    for kind, count in sorted(summary.errors.items(), key=lambda item: (-item[1], item[0])):
        yield SummaryLine(f"  {counted(count, 'row')} failed: {kind}{_example(summary.examples.get(kind))}", True)
    if progress.done + progress.done_before:
        yield SummaryLine(f"Results: {one_line(summary.results)}")
    if summary.errors:
        yield SummaryLine(f"Errors: {one_line(summary.errors_file)}; {_mending(summary.errors)}")
    if not summary.is_complete:
        if has_next_step or summary.batches:
            yield SummaryLine(_next_step(summary))
        for text in batches_lines(summary.batches):
            yield SummaryLine(f"  {one_line(text)}")


def _head(summary: JobSummary) -> str:
    progress = summary.progress
    failed = failed_rows(progress)
    done = progress.done + progress.done_before
    if progress.total == 0:
        return "Nothing to run: the input has no rows"
    if summary.is_complete and not progress.done and not progress.failed:
        words = f"; {failed:,} had failed" if failed else ""
        return f"Nothing to run: {counted(done, 'row was', 'rows were')} done before{words}"
    total = done + failed if progress.total is None else progress.total
    words = f"{counted(done, 'row')} done" if done == total else f"{done:,} of {counted(total, 'row')} done"
    words += f", {failed:,} failed" if failed else ""
    if summary.is_complete:
        return words
    stop = "Cancelled" if summary.is_cancelled else _STOPS.get(progress.stop_reason, "Stopped")
    return f"{stop}: {words}, {total - done - failed:,} left"


_STOPS: dict[StopReason, str] = {
    "interrupted": "Interrupted",
    "max_cost": "Stopped at --max-cost",
    "key": "Stopped, because no key works",
    "no_price": "Stopped, because --max-cost needs the price of each model",
}


def _mending(errors: Mapping[str, int]) -> str:
    """Return what helps the rows that failed. A row that is wrong itself must be corrected, and then counts as changed."""
    steps = ["--retry-failed runs these rows again"] if errors.keys() - {_BAD_ROW} else []
    if bad := errors.get(_BAD_ROW, 0):
        lines = f"the lines with {_BAD_ROW}" if steps else "this line" if bad == 1 else "these lines"
        steps.append(f"correct {lines}, and --changed runs {'it' if lines == 'this line' else 'them'}")
    return "; ".join(steps)


def _next_step(summary: JobSummary) -> str:
    if summary.batches:
        rows = counted(sum(batch.rows for batch in summary.batches), "row stays", "rows stay")
        return (
            f"{rows} with the provider: the same command fetches them. --cancel cancels them, and keeps what is done."
        )
    if summary.is_cancelled:
        return "The same command without --cancel runs the rows that are left."
    match summary.progress.stop_reason:
        case "max_cost":
            return "The same command with a higher --max-cost goes on from here."
        case "no_price":
            return "Add the price of the model to [prices] in headrace.toml; the same command goes on from here."
        case "key":
            return "The same command goes on with a key that works."
        case _:
            return "The same command goes on from here."


def _effort(progress: BatchProgress) -> str:
    ended = progress.done + progress.failed
    per_second = ended / progress.elapsed if progress.elapsed > 0 else 0.0
    parts = [
        f"{duration(progress.elapsed)}, {rate(per_second)} rows/s",
        f"{progress.input_tokens:,} prompt tokens and {progress.output_tokens:,} answer tokens",
        f"cost {cost_so_far(progress)}{' with earlier starts' if progress.cost_before else ''}",
    ]
    parts += [f"{progress.rate_limited:,} times 429"] if progress.rate_limited else []
    return "; ".join(parts)


def _example(example: FailedExample | None) -> str:
    if example is None:
        return ""
    text = one_line(example.text)
    text = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
    return f", such as line {example.number} ({one_line(example.id)}): {text}"


def summary_object(summary: JobSummary) -> dict[str, Any]:
    """Return the summary for programs. Costs are in US dollars, times in seconds."""
    progress = summary.progress
    done, failed = progress.done + progress.done_before, failed_rows(progress)
    return {
        "rows": done + failed if progress.total is None else progress.total,
        "done": done,
        "failed": failed,
        "errors": dict(summary.errors),
        "complete": summary.is_complete,
        "stop_reason": progress.stop_reason,
        "run_now": progress.done + progress.failed,
        "shared": progress.shared,
        "cached": progress.cached,
        "cost": progress.cost + progress.cost_before,
        "rows_without_price": progress.rows_without_price,
        "input_tokens": progress.input_tokens,
        "output_tokens": progress.output_tokens,
        "rate_limited": progress.rate_limited,
        "seconds": progress.elapsed,
        "results": summary.results,
        "errors_file": summary.errors_file,
        "directory": summary.directory,
        "session_id": summary.session_id,
    }
