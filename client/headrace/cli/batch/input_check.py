"""Checks the options of a batch job with the first row of its input, before any file is made."""

from __future__ import annotations

from headrace.batch.row import BadRow
from headrace.batch.rows.row_reader import RowReader
from headrace.batch.rows.row_source import RowSource
from headrace.cli.batch.job_plan import JobPlan
from headrace.cli.shared.exit_codes import CommandError, ExitCode


def check_input(plan: JobPlan) -> None:
    """Raise the error of options that are wrong, or that do not fit the input. An input that can be read once is not read."""
    if plan.is_read_once:
        RowReader(plan.rows)
        return
    first = next(iter(RowSource(plan.input, plan.rows)), None)
    if not isinstance(first, BadRow) or first.argument != "model":
        return
    if plan.rows.prompt is not None or plan.rows.embed is not None or _is_text(plan):  # such rows name no model
        missing = "--model is missing; these rows name none: add one, such as --model gpt-4o-mini"
        raise CommandError(ExitCode.USAGE, missing if plan.rows.model is None else f"--model: {first.problem}")


def _is_text(plan: JobPlan) -> bool:
    given = plan.rows.input_format
    return given == "txt" if given is not None else plan.input.endswith((".txt", ".txt.gz", ".txt.zst"))
