"""Reads the state of a batch job from its directory, for another process: `headrace batch status`."""

from __future__ import annotations

from pathlib import Path

from headrace.batch.journal.job_records import JobStatus


def read_status(directory: Path) -> JobStatus:
    """Return the state of the job in a directory (see ``job_directory``), whether it runs or not. Changes nothing.

    Raises JournalError if there is no job, or its journal cannot be read.
    """
    raise NotImplementedError
