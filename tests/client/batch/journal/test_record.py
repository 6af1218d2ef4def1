"""What is promised of records: one for each row, durable, counted, and found again; and of transactions with other tables."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from headrace.batch.journal.job_files import job_files
from headrace.batch.journal.journal import Journal
from tests.client.batch.journal.jobs import bad_row_line, check_whole, done, failed, ids, opened, rows


def test_a_record_is_in_its_file_when_the_call_returns(tmp_path: Path) -> None:
    with opened(tmp_path, rows(4)) as journal:
        journal.record([done(3), failed(1), done(2)])

        assert (tmp_path / "out.jsonl").read_bytes() == done(3).line + done(2).line
        assert (tmp_path / "out.errors.jsonl").read_bytes() == failed(1).line
        assert list(journal.waiting_numbers()) == [4]


def test_no_records_change_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, rows(1)) as journal:
        journal.record([])
        assert journal.totals().waiting == 1


def test_the_totals_are_those_of_all_starts(tmp_path: Path) -> None:
    with opened(tmp_path, rows(4)) as journal:
        journal.record([done(1, cost=0.25), failed(2)])
        assert (journal.totals().done, journal.totals().cost) == (1, 0.25)
    with opened(tmp_path, rows(4)) as journal:
        journal.record([done(3, cost=0.5)])
        totals = journal.totals()

    assert (totals.rows, totals.done, totals.failed, totals.waiting) == (4, 2, 1, 1)
    assert (totals.cost, totals.input_tokens, totals.output_tokens) == (0.75, 20, 40)


def test_rows_may_be_recorded_while_others_are_listed(tmp_path: Path) -> None:
    with opened(tmp_path, rows(2500)) as journal:
        listed = []
        for number in journal.waiting_numbers():
            listed.append(number)
            if number % 500 == 0:
                journal.record([done(number), done(number - 1)])

        assert listed == list(range(1, 2501))
        check_whole(journal.files, journal)


@pytest.mark.parametrize("again", [[done(2)], [done(3), failed(2)], [done(3), done(3)], [done(9)], [done(3), done(9)]])
def test_a_row_gets_one_record_only_and_an_unknown_row_none(tmp_path: Path, again: list[object]) -> None:
    with opened(tmp_path, rows(4)) as journal:
        journal.record([done(2)])
        with pytest.raises(ValueError, match="one of the rows"):
            journal.record(again)  # type: ignore[arg-type]

        assert check_whole(journal.files, journal) == {"r2"}
        journal.record([done(3)])
        assert check_whole(journal.files, journal) == {"r2", "r3"}


def test_a_transaction_keeps_records_and_other_tables_together(tmp_path: Path) -> None:
    with opened(tmp_path, rows(4)) as journal:
        with journal.transaction() as connection:
            connection.execute("CREATE TABLE parts (id TEXT PRIMARY KEY)")
        with journal.transaction() as connection:
            connection.execute("INSERT INTO parts VALUES ('p1')")
            journal.record([done(1)])
            journal.record([failed(2)])
    with opened(tmp_path, rows(4)) as journal:
        assert check_whole(journal.files, journal) == {"r1", "r2"}
        with journal.transaction() as connection:
            assert connection.execute("SELECT id FROM parts").fetchall() == [("p1",)]


def test_a_transaction_that_raises_keeps_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, rows(4)) as journal:
        journal.record([done(1)])
        with journal.transaction() as connection:
            connection.execute("CREATE TABLE parts (id TEXT PRIMARY KEY)")
        with contextlib.suppress(KeyboardInterrupt), journal.transaction() as connection:
            connection.execute("INSERT INTO parts VALUES ('p1')")
            journal.record([done(2), failed(3)])
            raise KeyboardInterrupt

        assert check_whole(journal.files, journal) == {"r1"}
        with journal.transaction() as connection:
            assert connection.execute("SELECT count(*) FROM parts").fetchone() == (0,)
        journal.record([done(2)])
        assert check_whole(journal.files, journal) == {"r1", "r2"}


def record_and_hide_an_error(journal: Journal) -> None:
    with journal.transaction():
        journal.record([done(1)])
        with contextlib.suppress(ValueError):
            journal.record([done(2), done(1)])


def test_a_block_that_hides_a_failed_record_keeps_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, rows(4)) as journal:
        with pytest.raises(ValueError, match="one of the rows"):
            record_and_hide_an_error(journal)

        assert check_whole(journal.files, journal) == set()


def test_transactions_are_not_nested(tmp_path: Path) -> None:
    with opened(tmp_path, rows(1)) as journal:
        with pytest.raises(RuntimeError, match="open already"), journal.transaction(), journal.transaction():
            pass
        journal.record([done(1)])


def test_records_are_found_again(tmp_path: Path) -> None:
    with opened(tmp_path, rows(4)) as journal:
        journal.record([done(3, "läßt"), failed(1)])

        assert [(each.number, each.id, each.is_failure) for each in journal.stored()] == [
            (1, "r1", True),
            (3, "r3", False),
        ]
        found = journal.stored_record(3)
        assert found is not None
        assert found.line == done(3, "läßt").line
        assert journal.stored_record(2) is None


def test_facts_stay(tmp_path: Path) -> None:
    with opened(tmp_path, rows(1)) as journal:
        assert journal.fact("job") is None
        journal.set_fact("job", "one")
        journal.set_fact("job", "two")
    with opened(tmp_path, rows(1)) as journal:
        assert journal.fact("job") == "two"


def test_large_records(tmp_path: Path) -> None:
    texts = {1: "a" * 3_000_000, 2: "b", 3: "c" * 1_500_000}
    with opened(tmp_path, rows(3)) as journal:
        journal.record([done(number, text) for number, text in texts.items()])
        stored = {each.number: each.line for each in journal.stored()}
    assert stored == {number: done(number, text).line for number, text in texts.items()}


def test_the_file_of_errors_is_there_if_rows_have_failed(tmp_path: Path) -> None:
    with opened(tmp_path, rows(2)) as journal:
        journal.record([done(1)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.job"]
    with opened(tmp_path, rows(2)) as journal:
        journal.record([failed(2)])
    assert ids(tmp_path / "out.errors.jsonl") == ["r2"]


def test_only_the_user_can_read_the_files(tmp_path: Path) -> None:
    with opened(tmp_path, rows(2)) as journal:
        journal.record([done(1), failed(2)])

        assert (tmp_path / "out.jsonl.job").stat().st_mode & 0o777 == 0o700
        for path in [*tmp_path.rglob("*.*")]:
            assert path.is_dir() or path.stat().st_mode & 0o077 == 0, path


def test_the_journal_has_no_prompt(tmp_path: Path) -> None:
    with opened(tmp_path, rows(2)) as journal:
        journal.record([done(1, "a secret answer")])
        files = [path.read_bytes() for path in (tmp_path / "out.jsonl.job").iterdir()]
    assert not any(b"secret" in content for content in files)


def test_a_closed_journal_may_be_closed_again(tmp_path: Path) -> None:
    journal = Journal.open(job_files(tmp_path / "out.jsonl"))
    journal.scan(rows(1), bad_row_line)
    journal.close()
    journal.close()
    with pytest.raises(sqlite3.ProgrammingError):
        list(journal.waiting_numbers())
