"""Checks the paths of a batch job, and its options with the first row of its input, before any file is made."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote

from headrace.batch.journal.job_files import JobFiles
from headrace.batch.row import BadRow
from headrace.batch.rows.row_reader import RowReader
from headrace.batch.rows.row_source import RowSource
from headrace.cli.batch.job_plan import STREAM, JobPlan
from headrace.cli.batch.shown_paths import shown_path
from headrace.cli.shared.exit_codes import CommandError, ExitCode


def check_input(plan: JobPlan) -> None:
    """Raise the error of options that are wrong, or that do not fit the input. An input that can be read once is not read."""
    if plan.input != STREAM:
        _check_readable(plan.input)
    if plan.is_read_once:
        RowReader(plan.rows)
        return
    first = next(iter(RowSource(plan.input, plan.rows)), None)
    if not isinstance(first, BadRow) or first.argument != "model":
        return
    if plan.rows.prompt is not None or plan.rows.embed is not None or _is_text(plan):  # such rows name no model
        missing = "--model is missing; these rows name none: add one, such as --model gpt-4o-mini"
        raise CommandError(ExitCode.USAGE, missing if plan.rows.model is None else f"--model: {first.problem}")


def check_output(files: JobFiles) -> None:
    """Raise CommandError if the files of a job cannot be where they are to be."""
    for path in (files.name, files.errors):
        if path.is_dir() and path != files.directory:
            raise _refused(path, f"is a directory; name a file, such as {shown_path(path / 'results.jsonl')}")
    for path, name in ((files.directory, files.name), (files.name, files.name), (files.errors, files.errors)):
        if path.parent != files.directory:  # which the job makes
            is_stream = name == files.directory
            _check_place(
                path, "name another place with --job" if is_stream else f"choose another place for {name.name}"
            )


def _check_place(path: Path, advice: str) -> None:
    """Raise CommandError if a file can be neither written nor made."""
    folder = path.parent
    if path.exists():
        if not os.access(path, os.R_OK | os.W_OK):
            raise _refused(path, f"you may not write to it: {advice}")
        return
    if not folder.is_dir():
        what = "is no directory" if folder.exists() else "is not there: make the directory"
        raise _refused(folder, f"{what}, or {advice}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _refused(folder, f"you may not write here: {advice}")


def _check_readable(name: str) -> None:
    path = Path(name)
    if path.is_dir():
        raise _refused(
            path, f"is a directory; name a file of rows, or - and its rows: cat {quote(name)}/* | headrace batch -"
        )
    if not path.exists():
        raise _refused(path, "there is no such file; name the file of the rows, or - for standard input")
    if not os.access(path, os.R_OK):
        raise _refused(path, "you may not read this file")


def _refused(path: Path, reason: str) -> CommandError:
    return CommandError(ExitCode.USAGE, f"{shown_path(path)}: {reason}")


def _is_text(plan: JobPlan) -> bool:
    given = plan.rows.input_format
    return given == "txt" if given is not None else plan.input.endswith((".txt", ".txt.gz", ".txt.zst"))
