"""Opens a batch job: locks it, opens its journal and its files, and repairs what a killed process left."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headrace.batch.journal.job_files import JOURNAL, JobFiles
from headrace.batch.journal.job_lock import lock_job
from headrace.batch.journal.output_writing import check_suffix
from headrace.batch.journal.record_file import RecordFile, sync_directory
from headrace.batch.journal.repair import NOT_OF_A_JOB, adopt, check_fit
from headrace.batch.journal.rewriting import finish_rewriting
from headrace.batch.journal.tables import BOTH_FILES, ERRORS_FILE, PUT, RESULTS_FILE, OtherVersionError, connect, remove
from headrace.errors import JobLockedError, JournalError, OutputConflictError
from headrace.files.trusted_directory import check_private

SETTING = "setting."
STARTED_AT = "started_at"
OUTPUT = "output"
FACT = "fact."
CHOSEN = "chosen"
"""The fact with the rows that the last start runs, as JSON; empty: all rows."""
FILE_NAMES = {RESULTS_FILE: "results", ERRORS_FILE: "errors"}
"""Keys of the table ``job``. The names of files are relative to the job's directory, so that both can be moved."""


class JobOptions(msgspec.Struct, frozen=True):
    """How a job is opened: see ``Journal.open``."""

    settings: dict[str, str]
    changed: bool = False
    force: bool = False
    retry_failed: bool = False


class OpenedJob:
    """The lock, the connection and the files of a job. The owner closes it."""

    def __init__(self, files: JobFiles, options: JobOptions, lock: int) -> None:
        self.files = files
        self.options = options
        self.connection: sqlite3.Connection
        self.record_files: dict[int, RecordFile] = {}
        self.adopted = 0
        self._lock = lock

    def changed_settings(self) -> dict[str, tuple[str, str]]:
        """Return the settings that differ from those of the last scan: name → value before, value now."""
        known = dict(self.connection.execute("SELECT key, value FROM job"))
        before = {key.removeprefix(SETTING): value for key, value in known.items() if key.startswith(SETTING)}
        now = self.options.settings
        names = sorted(before.keys() | now.keys())
        return {
            name: (before.get(name, ""), now.get(name, ""))
            for name in names
            if before.get(name, "") != now.get(name, "")
        }

    def keep_names(self) -> None:
        """Write the settings and the names of the files to the table. Needs a transaction."""
        self.connection.execute("DELETE FROM job WHERE key GLOB ?", (f"{SETTING}*",))
        values = {f"{SETTING}{name}": value for name, value in self.options.settings.items()}
        values |= {FILE_NAMES[number]: self._relative(file.path) for number, file in self.record_files.items()}
        values[OUTPUT] = "" if self.files.output is None else self._relative(self.files.output)
        self.connection.executemany(PUT, values.items())

    def check_names(self) -> None:
        """Raise OutputConflictError if the records of the job are in other files than the ones that are opened now."""
        known = dict(self.connection.execute("SELECT key, value FROM job"))
        for number, path in ((RESULTS_FILE, self.files.results), (ERRORS_FILE, self.files.errors)):
            before = known.get(FILE_NAMES[number])
            if before is not None and before != self._relative(path):
                reason = (
                    f"the {FILE_NAMES[number]} of this job are in {self.files.directory / before}; start it with the same "
                    "output options (--ordered, --errors) as before, or run all rows again with --force (force=True)"
                )
                raise OutputConflictError(str(path), reason)

    def close(self) -> None:
        """Close everything. May be called twice."""
        if self._lock < 0:
            return
        for number, file in self.record_files.items():
            if number == ERRORS_FILE:
                with contextlib.suppress(OSError):
                    file.remove_if_empty()
            file.close()
        if hasattr(self, "connection"):
            with contextlib.suppress(sqlite3.Error):
                self.connection.close()
        lock, self._lock = self._lock, -1
        os.close(lock)

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self.files.directory)


def open_job(
    files: JobFiles, options: JobOptions, now: float, source: str | os.PathLike[str] | None = None
) -> OpenedJob:
    """Open a job. ``now``: seconds since 1970. ``source``: the file of rows. Raises what ``Journal.open`` raises."""
    if files.output is not None:
        check_suffix(files.output)
    _check_distinct(files)
    if source is not None:
        _check_not_written(source, files)
    with _explained(files.directory):
        _make_directory(files.directory)
        job = OpenedJob(files, options, lock_job(files))
    try:
        with _explained(files.directory / JOURNAL):
            _open_parts(job)
            job.connection.execute(PUT, (STARTED_AT, repr(now)))
    except BaseException:
        job.close()
        raise
    return job


def _open_parts(job: OpenedJob) -> None:
    files, force = job.files, job.options.force
    job.connection = _connected(files.directory / JOURNAL, force=force)
    if not force:
        job.check_names()
    for number, path in zip(BOTH_FILES, (files.results, files.errors), strict=True):
        with _explained(path):
            job.record_files[number] = _record_file(path)
    finish_rewriting(job.connection, job.record_files)
    if force:
        return
    if files.output is not None and files.output.exists() and _is_new(job.connection):
        raise OutputConflictError(str(files.output), NOT_OF_A_JOB)
    job.connection.execute("BEGIN IMMEDIATE")
    try:
        check_fit(job.connection, job.record_files, may_lack=job.options.changed)
        job.adopted = adopt(job.connection, job.record_files)
    except BaseException:
        job.connection.execute("ROLLBACK")
        raise
    job.connection.execute("COMMIT")


def _is_new(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM rows LIMIT 1").fetchone() is None


def _connected(path: Path, *, force: bool) -> sqlite3.Connection:
    try:
        return connect(path)
    except (sqlite3.DatabaseError, OtherVersionError) as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # the disk is full, or the file cannot be opened: a new one would not be better
        if not force:
            reason = f"it cannot be used ({error}); run all rows again with --force (force=True), or use the same version of Headrace"
            raise JournalError(str(path), reason) from error
    remove(path)
    return connect(path)


def _record_file(path: Path) -> RecordFile:
    try:
        return RecordFile(path)
    except BlockingIOError:
        raise JobLockedError(str(path)) from None


def _check_distinct(files: JobFiles) -> None:
    if files.errors in (files.results, files.output):
        raise OutputConflictError(
            str(files.errors), "results and errors need two files; name another one for the errors"
        )


def _check_not_written(source: str | os.PathLike[str], files: JobFiles) -> None:
    for path in (files.results, files.errors, files.output):
        if path is not None and _is_same_file(path, source):
            raise OutputConflictError(str(path), "this is the input of the job; choose another file for its output")


def _is_same_file(path: Path, other: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False  # one of them is not there


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        sync_directory(directory.parent)
    if (problem := check_private(directory)) is not None:
        raise JournalError(str(directory), problem)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise JournalError(str(path), f"it cannot be opened or made: {reason}") from error
