"""JobFiles: where a batch job keeps its journal, its results and its errors. Only names: nothing is opened or made."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

JOURNAL = "journal.sqlite"
LOCK = "lock"
INPUT = "input"
"""In the job's directory: the copy of the standard input."""
RESULTS = "results.jsonl"
"""In the job's directory: the records of successes, if the output itself cannot be appended to."""
ERRORS = "errors.jsonl"
"""In the job's directory: the records of failures, if the output has no name."""
_DIRECTORY_SUFFIX = ".job"
_COMPRESSED = (".gz", ".zst")


class JobFiles(msgspec.Struct, frozen=True):
    """The files of a job. ``directory``: has the journal and the lock.

    ``results``, ``errors``: the records of successes and of failures are appended to them. ``output``: the file that
    ``Journal.finish`` writes from ``results``; None if ``results`` is the output, or if the output is a stream.
    """

    directory: Path
    results: Path
    errors: Path
    output: Path | None = None
    is_ordered: bool = False

    @property
    def name(self) -> Path:
        """What people call the job: its output, or its directory if it writes to a stream."""
        if self.output is not None:
            return self.output
        return self.directory if self.results.parent == self.directory else self.results


def job_files(
    output: str | os.PathLike[str], errors: str | os.PathLike[str] | None = None, *, is_ordered: bool = False
) -> JobFiles:
    """Return the files of the job with this output, such as ``out.jsonl``, ``out.errors.jsonl`` and ``out.jsonl.job``.

    ``errors``: another file for failures. ``is_ordered``: the output has the order of the input.
    The records go to a file of their own, in the job's directory, if the output is ordered or compressed.
    """
    # All names of one file must lead to one journal.
    path = Path(os.path.realpath(output))
    directory = path.with_name(path.name + _DIRECTORY_SUFFIX)
    is_appended = not is_ordered and path.suffix not in _COMPRESSED
    return JobFiles(
        directory,
        results=path if is_appended else directory / RESULTS,
        errors=_errors_beside(path) if errors is None else Path(os.path.realpath(errors)),
        output=None if is_appended else path,
        is_ordered=is_ordered,
    )


def stream_files(
    directory: str | os.PathLike[str], errors: str | os.PathLike[str] | None = None, *, is_ordered: bool = False
) -> JobFiles:
    """Return the files of a job that writes to a stream, such as the standard output: all are in ``directory``."""
    place = Path(os.path.realpath(directory))
    return JobFiles(
        place,
        results=place / RESULTS,
        errors=place / ERRORS if errors is None else Path(os.path.realpath(errors)),
        is_ordered=is_ordered,
    )


def job_directory(path: str | os.PathLike[str]) -> Path:
    """Return the job's directory for a path that a user has named: the directory itself, or the output beside it."""
    named = Path(os.path.realpath(path))
    if named.suffix == _DIRECTORY_SUFFIX or (named / JOURNAL).exists():
        return named
    return named.with_name(named.name + _DIRECTORY_SUFFIX)


def _errors_beside(output: Path) -> Path:
    plain = output.with_suffix("") if output.suffix in _COMPRESSED else output
    suffix = plain.suffix or ".jsonl"
    return plain.with_name(f"{plain.stem}.errors{suffix}")
