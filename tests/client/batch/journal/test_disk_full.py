"""A full disk loses no record: what is not written does not count, and the job goes on as soon as there is room."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.batch.journal.job_files import job_files
from headrace.batch.journal.journal import Journal
from headrace.errors import BatchError, RecordWriteError
from tests.cases import case
from tests.client.batch.journal.jobs import bad_row_line, check_whole, done, failed, opened, row, rows

_PROGRAM = """
import resource, sys
from pathlib import Path
from headrace.errors import HeadraceError, RecordWriteError
from tests.client.batch.journal.jobs import check_whole, done, groups, opened, rows

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
count = 400
with opened(folder, rows(count)) as journal:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    recorded = 0
    for group in groups([done(number, "a" * 1000) for number in range(1, count + 1)], 20):
        try:
            journal.record(group)
        except RecordWriteError as error:
            assert error.rows == 20 and error.missing_bytes > 20_000, error
            print(recorded, error)
            assert len(check_whole(journal.files, journal)) == recorded
            break
        recorded += len(group)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if len(sys.argv) > 3:  # there is room again
        journal.record(group)
        assert len(check_whole(journal.files, journal)) == recorded + 20
"""


@pytest.mark.parametrize("limit", [100_000, 250_000, 333_333])
@pytest.mark.parametrize("goes_on", [False, True])
def test_files_that_cannot_grow(tmp_path: Path, limit: int, goes_on: bool) -> None:
    """Also the journal's own file reaches the limit, in some of the cases."""
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path), str(limit), *(["again"] if goes_on else [])]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    count, _, message = ended.stdout.partition(" ")
    assert "20 finished rows were not recorded" in message
    recorded = int(count) + 20 * goes_on

    with opened(tmp_path, rows(400)) as journal:
        assert len(check_whole(journal.files, journal)) == recorded
        assert list(journal.waiting_numbers()) == list(range(recorded + 1, 401))


def failing(name: str, at: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let call number ``at`` of a function of ``os`` fail as on a full disk. Return a function that counts the calls."""
    real = getattr(os, name)
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            if name == "pwrite":
                real(arguments[0], bytes(arguments[1])[:7], arguments[2])
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)
    return lambda: calls


@pytest.mark.parametrize("name", ["pwrite", "fdatasync"])
def test_each_write_of_a_record_may_fail(tmp_path: Path, name: str) -> None:
    with opened(tmp_path, rows(6)) as journal:
        journal.record([done(1), failed(2)])
        for at in (1, 2):
            with case(name, at), pytest.MonkeyPatch.context() as patch:
                failing(name, at, patch)
                with pytest.raises(RecordWriteError, match="No space left on device") as caught:
                    journal.record([done(3), failed(4)])
                assert (caught.value.rows, caught.value.missing_bytes) == (2, len(done(3).line + failed(4).line))
                assert caught.value.path in map(str, (journal.files.results, journal.files.errors))
                assert check_whole(journal.files, journal) == {"r1", "r2"}
        journal.record([done(3), failed(4)])
        assert check_whole(journal.files, journal) == {"r1", "r2", "r3", "r4"}


@pytest.mark.parametrize("name", ["pwrite", "fsync", "rename", "open"])
def test_each_step_of_a_changed_start_may_fail(tmp_path: Path, name: str) -> None:
    given = [row(1), row(2, prompt="else"), row(3), row(4)]
    with opened(tmp_path, rows(4)) as journal:
        journal.record([done(1), done(2), failed(4), done(3)])
    for at in range(1, 40):
        with case(name, at), pytest.MonkeyPatch.context() as patch:
            calls = failing(name, at, patch)
            with contextlib.suppress(BatchError):
                opened(tmp_path, given, changed=True).close()
            patch.undo()
            with opened(tmp_path, given, changed=True) as journal:
                assert check_whole(journal.files, journal) >= {"r1", "r3", "r4"}
            if calls() < at:
                break
    else:
        pytest.fail("there are more calls")


def test_a_journal_that_an_error_left_in_the_middle_of_a_change_takes_no_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, rows(2)) as journal:
        journal.record([done(1), done(2)])
    with Journal.open(job_files(tmp_path / "out.jsonl"), changed=True) as journal:
        failing("rename", 1, monkeypatch)
        with pytest.raises(RecordWriteError):
            journal.scan([row(1), row(3)], bad_row_line)
        with pytest.raises(Exception, match="start the job again, which repairs it"):
            journal.record([done(3)])
    with opened(tmp_path, [row(1), row(3)]) as journal:
        assert check_whole(journal.files, journal) == {"r1"}
