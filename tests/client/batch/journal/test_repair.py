"""What the journal makes of output files that are not as it left them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from headrace.batch.journal.job_files import job_files, stream_files
from headrace.batch.journal.journal import Journal
from headrace.errors import ConfigurationError, JournalError, OutputConflictError
from tests.client.batch.journal.jobs import bad_row_line, check_whole, done, failed, ids, opened, rows


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Return the folder of a job of 6 rows, of which 3 are recorded."""
    with opened(tmp_path, rows(6)) as journal:
        journal.record([done(1), failed(2), done(3)])
    return tmp_path


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_records_that_the_journal_does_not_know_are_taken_over(job: Path) -> None:
    append(job / "out.jsonl", done(5, cost=2.0).line)
    append(job / "out.errors.jsonl", failed(4, "timeout").line)
    with Journal.open(job_files(job / "out.jsonl")) as journal:
        found = journal.scan(rows(6), bad_row_line)

        assert found.adopted == 2
        assert found.totals.cost == 3.0
        assert journal.errors_by_kind() == {"rate_limit": 1, "timeout": 1}
        assert check_whole(journal.files, journal) == {"r1", "r2", "r3", "r4", "r5"}


@pytest.mark.parametrize("damage", [b"\0" * 5000, b'{"id": "r5", "text', b"\xff\xfe\n", b"[]\n", b"\n", b'{"id": 7}\n'])
def test_a_damaged_end_is_removed(job: Path, damage: bytes) -> None:
    append(job / "out.jsonl", done(5).line + damage)
    with opened(job, rows(6)) as journal:
        assert check_whole(journal.files, journal) == {"r1", "r2", "r3", "r5"}
        journal.record([done(4), done(6)])
        check_whole(journal.files, journal)


@pytest.mark.parametrize("line", [done(9).line, done(1).line, done(5).line + done(5).line])
def test_records_of_somebody_else_are_not_touched(job: Path, line: bytes) -> None:
    append(job / "out.jsonl", line)
    before = (job / "out.jsonl").read_bytes()
    with pytest.raises(OutputConflictError, match="that this job has not written"):
        opened(job, rows(6))
    assert (job / "out.jsonl").read_bytes() == before
    with opened(job, rows(6), force=True) as journal:
        assert check_whole(journal.files, journal) == set()


def test_an_output_that_has_lost_records_is_refused(job: Path) -> None:
    path = job / "out.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(OutputConflictError, match="the journal knows records up to byte") as caught:
        opened(job, rows(6))
    assert caught.value.path == str(path)
    with opened(job, rows(6), changed=True) as journal:
        assert check_whole(journal.files, journal) == {"r1", "r2"}
    with opened(job, rows(6)) as journal:
        assert check_whole(journal.files, journal) == {"r1", "r2"}


@pytest.mark.parametrize("options", [{"changed": True}, {"force": True}])
def test_an_output_that_was_removed(job: Path, options: dict[str, bool]) -> None:
    (job / "out.jsonl").unlink()
    with pytest.raises(OutputConflictError):
        opened(job, rows(6))
    with opened(job, rows(6), **options) as journal:
        assert ids(job / "out.jsonl") == []
        check_whole(journal.files, journal)


def test_an_output_that_was_edited_is_refused(job: Path) -> None:
    path = job / "out.jsonl"
    path.write_bytes(path.read_bytes().replace(b"hi", b"hello"))
    with pytest.raises(OutputConflictError, match="it was changed: no record ends at byte"):
        opened(job, rows(6))


@pytest.mark.parametrize("name", ["out.jsonl", "out.errors.jsonl", "out.jsonl.gz"])
def test_the_input_is_never_an_output(tmp_path: Path, name: str) -> None:
    output = tmp_path / (name if name.endswith(".gz") else "out.jsonl")
    (tmp_path / name).write_text("rows\n")
    (tmp_path / "link").symlink_to(name)
    for source in (tmp_path / name, tmp_path / "link"):
        with pytest.raises(OutputConflictError, match="is the input of the job"):
            Journal.open(job_files(output), source=source, force=True)
    assert (tmp_path / name).read_text() == "rows\n"
    assert not output.with_name(f"{output.name}.job").exists()


@pytest.mark.parametrize("name", ["out.jsonl", "out.errors.jsonl"])
def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine\n")
    with pytest.raises(OutputConflictError, match="there is such a file already"):
        opened(tmp_path, rows(1))
    assert (tmp_path / name).read_text() == "mine\n"
    with pytest.raises(ValueError, match="is there twice"):
        opened(tmp_path, [*rows(1), *rows(1)], force=True)
    assert (tmp_path / name).read_text() == "mine\n"
    with opened(tmp_path, rows(1), force=True) as journal:
        journal.record([done(1)])
        assert check_whole(journal.files, journal) == {"r1"}


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_an_ordered_or_compressed_output_of_somebody_else_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine\n")
    files = job_files(tmp_path / name, is_ordered=True)
    with pytest.raises(OutputConflictError, match="there is such a file already"):
        Journal.open(files)
    with Journal.open(files, force=True) as journal:
        journal.scan(rows(1), bad_row_line)
        journal.finish()
    with Journal.open(files) as journal:
        journal.scan(rows(1), bad_row_line)


def test_an_empty_output_is_used(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").touch()
    with opened(tmp_path, rows(1)) as journal:
        journal.record([done(1)])
        assert check_whole(journal.files, journal) == {"r1"}


def test_a_job_and_its_output_may_be_moved_together(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with opened(tmp_path / "a", rows(2)) as journal:
        journal.record([done(1)])
    (tmp_path / "a").rename(tmp_path / "b")
    with opened(tmp_path / "b", rows(2)) as journal:
        assert check_whole(journal.files, journal) == {"r1"}


def test_a_link_to_an_output_leads_to_the_same_job(tmp_path: Path) -> None:
    with opened(tmp_path, rows(2)) as journal:
        journal.record([done(1)])
    (tmp_path / "link.jsonl").symlink_to("out.jsonl")
    assert job_files(tmp_path / "link.jsonl") == job_files(tmp_path / "out.jsonl")


def test_other_output_options_are_refused(job: Path) -> None:
    with pytest.raises(
        OutputConflictError, match=r"the results of this job are in .*out\.jsonl; start it with the same"
    ):
        Journal.open(job_files(job / "out.jsonl", is_ordered=True))
    with pytest.raises(OutputConflictError, match=r"the errors of this job are in .*out\.errors\.jsonl"):
        Journal.open(job_files(job / "out.jsonl", job / "other.jsonl"))
    with Journal.open(job_files(job / "out.jsonl", is_ordered=True), force=True) as journal:
        journal.scan(rows(6), bad_row_line)
        journal.record([done(2), done(1)])
        journal.finish()
    assert ids(job / "out.jsonl") == ["r1", "r2"]


def test_one_file_cannot_have_results_and_errors(tmp_path: Path) -> None:
    with pytest.raises(OutputConflictError, match="need two files"):
        Journal.open(job_files(tmp_path / "out.jsonl", tmp_path / "out.jsonl"))


def test_an_output_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is not a regular file"):
        Journal.open(job_files(tmp_path / "out.jsonl", "/dev/null"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file or directory") as caught:
        Journal.open(job_files(tmp_path / "none" / "out.jsonl"))
    assert caught.value.path == str(tmp_path / "none" / "out.jsonl.job")


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b"\0" * 8192])
def test_a_damaged_journal_is_refused_and_replaced_with_force(job: Path, content: bytes) -> None:
    for path in (job / "out.jsonl.job").glob("journal.sqlite*"):
        path.unlink()
    (job / "out.jsonl.job" / "journal.sqlite").write_bytes(content)
    with pytest.raises((JournalError, OutputConflictError), match="--force"):
        opened(job, rows(6))
    assert len(ids(job / "out.jsonl")) == 2
    with opened(job, rows(6), force=True) as journal:
        assert check_whole(journal.files, journal) == set()


def test_the_journal_of_another_version_is_refused(job: Path) -> None:
    with sqlite3.connect(job / "out.jsonl.job" / "journal.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError, match="it has version 99, and this Headrace reads version 1"):
        opened(job, rows(6))
    opened(job, rows(6), force=True).close()


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    opened(tmp_path, rows(1)).close()
    (tmp_path / "out.jsonl.job").chmod(0o777)
    with pytest.raises(JournalError, match="chmod 700"):
        opened(tmp_path, rows(1))


def test_a_missing_library_for_the_output_is_named_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(ConfigurationError, match="needs zstandard; install it with"):
        Journal.open(job_files(tmp_path / "out.jsonl.zst"))


def test_the_names_of_a_jobs_files(tmp_path: Path) -> None:
    place = Path(tmp_path).resolve()
    plain = job_files(place / "out.jsonl")
    assert (plain.directory, plain.results, plain.errors, plain.output) == (
        place / "out.jsonl.job",
        place / "out.jsonl",
        place / "out.errors.jsonl",
        None,
    )
    packed = job_files(place / "out.jsonl.gz")
    assert (packed.results, packed.errors, packed.output) == (
        place / "out.jsonl.gz.job" / "results.jsonl",
        place / "out.errors.jsonl",
        place / "out.jsonl.gz",
    )
    assert job_files(place / "out").errors == place / "out.errors.jsonl"
    stream = stream_files(place / "job")
    assert (stream.results, stream.errors, stream.output) == (
        place / "job" / "results.jsonl",
        place / "job" / "errors.jsonl",
        None,
    )
