"""What another process sees of a batch job."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from time import time

import pytest

from headrace.batch.journal.figures import count_activity, recent_rate
from headrace.batch.journal.job_files import job_directory, job_files
from headrace.batch.journal.journal import Journal
from headrace.batch.journal.status import read_status
from headrace.batch.journal.tables import connect
from headrace.errors import JournalError
from tests.client.batch.journal.jobs import bad_row_line, done, failed, rows


def test_a_job_that_runs_and_one_that_has_ended(tmp_path: Path) -> None:
    files = job_files(tmp_path / "out.jsonl")
    directory = job_directory(tmp_path / "out.jsonl")
    began = time()
    with Journal.open(files, settings={"model": "x"}) as journal:
        journal.scan(rows(5), bad_row_line)
        journal.record([done(1), failed(2), failed(3, "timeout"), failed(4)])
        status = read_status(directory)

        assert status.is_running
        assert f"process {os.getpid()} on host" in status.holder
        assert status.totals == journal.totals()
        assert (status.results, status.errors_file, status.output) == (str(files.results), str(files.errors), "")
        assert status.errors == {"rate_limit": 2, "timeout": 1}
        assert status.settings == {"model": "x"}
        assert began <= status.started_at <= status.changed_at <= time()
        journal.record([done(5)])
    status = read_status(directory)
    assert (status.is_running, status.holder, status.totals.waiting) == (False, "", 0)


def test_a_job_is_named_by_its_output_or_its_directory(tmp_path: Path) -> None:
    files = job_files(tmp_path / "out.jsonl")
    Journal.open(files).close()
    assert job_directory(tmp_path / "out.jsonl") == job_directory(tmp_path / "out.jsonl.job") == files.directory


def test_a_missing_job_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal of a batch job"):
        read_status(tmp_path / "out.jsonl.job")
    assert not list(tmp_path.iterdir())


def test_a_damaged_journal_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(JournalError, match="it cannot be read"):
        read_status(tmp_path)


def test_the_status_of_a_killed_job_is_read_from_what_it_left(tmp_path: Path) -> None:
    with Journal.open(job_files(tmp_path / "out.jsonl")) as journal:
        journal.scan(rows(3), bad_row_line)
        journal.record([done(1)])
        left = {path.name: path.read_bytes() for path in journal.files.directory.iterdir()}
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in left.items():
        if not name.endswith("-shm"):
            (copy / name).write_bytes(content)
    status = read_status(copy)
    assert (status.totals.rows, status.totals.done, status.is_running) == (3, 1, False)


def test_the_rate_is_that_of_the_last_minute_of_work(tmp_path: Path) -> None:
    connection = connect(tmp_path / "journal.sqlite")
    assert recent_rate(connection, 1000.0) == (0.0, 0.0)
    for second in range(1000, 1101):
        count_activity(connection, 7, float(second))
    rate, last = recent_rate(connection, 1000.0)
    assert rate == pytest.approx(7, rel=0.1)
    assert last == 1100.0
    for second in range(2003, 2006):  # a later start of the job
        count_activity(connection, 20, float(second))
    rate, _ = recent_rate(connection, 2002.0)
    assert rate == pytest.approx(20)
    connection.close()


def test_reading_the_status_blocks_no_record(tmp_path: Path) -> None:
    with Journal.open(job_files(tmp_path / "out.jsonl")) as journal:
        journal.scan(rows(3), bad_row_line)
        reader = sqlite3.connect(journal.files.directory / "journal.sqlite", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM records").fetchone()
        journal.record([done(1)])
        reader.close()
        assert read_status(journal.files.directory).totals.done == 1
