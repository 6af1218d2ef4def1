"""Reads the state of a batch job from its directory, for another process: `headrace batch status`."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import msgspec

from headrace.batch.journal.figures import count_errors, count_totals, recent_rate
from headrace.batch.journal.job_files import JOURNAL
from headrace.batch.journal.job_lock import is_job_locked, lock_holder
from headrace.batch.journal.job_records import ChosenRows, JobStatus
from headrace.batch.journal.opening import CHOSEN, FACT, FILE_NAMES, OUTPUT, SETTING, STARTED_AT
from headrace.batch.journal.tables import ERRORS_FILE, RESULTS_FILE, OtherVersionError, connect_to_read
from headrace.errors import JournalError


def read_status(directory: Path) -> JobStatus:
    """Return the state of the job in a directory (see ``job_directory``), whether it runs or not. Changes nothing.

    Raises JournalError if there is no job, or its journal cannot be read.
    """
    path = directory / JOURNAL
    if not path.exists():
        raise JournalError(
            str(directory), "there is no journal of a batch job; name the output of the job, or its directory"
        )
    try:
        connection = connect_to_read(path)
    except (sqlite3.Error, OSError, OtherVersionError) as error:
        raise JournalError(str(path), f"it cannot be read: {error}") from error
    try:
        # One state of the tables for all queries.
        connection.execute("BEGIN")
        return _status(connection, directory)
    except sqlite3.Error as error:
        raise JournalError(str(path), f"it cannot be read: {error}") from error
    finally:
        connection.close()


def _status(connection: sqlite3.Connection, directory: Path) -> JobStatus:
    known = {str(key): str(value) for key, value in connection.execute("SELECT key, value FROM job")}
    started_at = float(known.get(STARTED_AT, 0.0))
    rate, changed_at = recent_rate(connection, started_at)
    return JobStatus(
        directory=str(directory),
        results=_full(directory, known.get(FILE_NAMES[RESULTS_FILE], "")),
        errors_file=_full(directory, known.get(FILE_NAMES[ERRORS_FILE], "")),
        output=_full(directory, known.get(OUTPUT, "")),
        is_running=is_job_locked(directory),
        holder=lock_holder(directory),
        totals=count_totals(connection),
        rate=rate,
        errors=count_errors(connection),
        settings={key.removeprefix(SETTING): value for key, value in known.items() if key.startswith(SETTING)},
        started_at=started_at,
        changed_at=changed_at,
        chosen=_chosen(known.get(FACT + CHOSEN, "")),
    )


def _chosen(kept: str) -> ChosenRows | None:
    return msgspec.json.decode(kept, type=ChosenRows) if kept else None


def _full(directory: Path, name: str) -> str:
    return os.path.normpath(directory / name) if name else ""
