"""One process runs a batch job at a time: a second one is refused, and learns who the first one is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.batch.journal import record_file
from headrace.batch.journal.job_files import job_files
from headrace.batch.journal.journal import Journal
from headrace.batch.journal.status import read_status
from headrace.errors import JobLockedError
from headrace.files.file_locks import take_lock
from tests.client.batch.journal.jobs import check_whole, done, opened, rows

_HOLDER = """
import sys
from headrace.batch.journal.job_files import job_files
from headrace.batch.journal.journal import Journal
with Journal.open(job_files(sys.argv[1], sys.argv[2])):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Return another process that has the job ``out.jsonl`` open, until its input ends."""
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / "out.jsonl"), str(tmp_path / "errors.jsonl")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    files = job_files(tmp_path / "out.jsonl", tmp_path / "errors.jsonl")
    with holder:
        with pytest.raises(JobLockedError) as caught:
            Journal.open(files, force=True)
        assert f"process {holder.pid} on host " in caught.value.holder
        assert caught.value.path == str(tmp_path / "out.jsonl")
        assert f"look at it with `headrace batch status {tmp_path / 'out.jsonl'}`, wait" in str(caught.value)
        assert read_status(files.directory).is_running

        # Another job that would write to one of its files.
        with pytest.raises(JobLockedError) as caught:
            Journal.open(job_files(tmp_path / "other.jsonl", tmp_path / "errors.jsonl"))
        assert caught.value.path == str(tmp_path / "errors.jsonl")

        holder.kill()
    with Journal.open(files):  # the kernel has unlocked it
        assert read_status(files.directory).is_running
    assert not read_status(files.directory).is_running


def test_a_second_journal_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, rows(2)) as journal:
        with pytest.raises(JobLockedError):
            opened(tmp_path, rows(2))
        journal.record([done(1)])
        assert check_whole(journal.files, journal) == {"r1"}


def test_a_refused_start_leaves_no_lock(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine\n")
    for _ in range(2):
        with pytest.raises(Exception, match="such a file already"):
            opened(tmp_path, rows(1))
    opened(tmp_path, rows(1), force=True).close()


def test_the_files_stay_locked_after_they_were_rewritten(tmp_path: Path) -> None:
    with opened(tmp_path, rows(2)) as journal:
        journal.record([done(1), done(2)])
    with opened(tmp_path, rows(1), changed=True), pytest.raises(JobLockedError):
        Journal.open(job_files(tmp_path / "other.jsonl", tmp_path / "out.jsonl"))


def test_a_file_that_is_removed_before_it_is_locked_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another job that shares the file of errors removes it at its end, if it is empty."""

    def lock_late(*arguments: Any) -> None:
        take_lock(*arguments)
        (tmp_path / "out.jsonl").unlink()

    monkeypatch.setattr(record_file, "take_lock", lock_late)
    with pytest.raises(JobLockedError):
        opened(tmp_path, rows(1))
    monkeypatch.undo()
    opened(tmp_path, rows(1)).close()
