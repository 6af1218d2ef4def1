"""What the journal of a batch job makes of its input: first start, same input, changed input, duplicates, rows that cannot be run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.batch.journal.job_files import job_files
from headrace.batch.journal.journal import Journal
from headrace.batch.row import BadRow, Row
from headrace.errors import ChangedInputError, DuplicateRowsError
from tests.client.batch.journal.jobs import bad_row_line, check_whole, done, failed, ids, opened, row, rows, tables


def test_at_first_all_rows_wait(tmp_path: Path) -> None:
    with Journal.open(job_files(tmp_path / "out.jsonl")) as journal:
        found = journal.scan(rows(2500), bad_row_line)

        assert found.is_first
        assert (found.totals.rows, found.totals.waiting) == (2500, 2500)
        assert list(journal.waiting_numbers()) == list(range(1, 2501)) == list(journal.numbers())


def test_the_next_start_goes_on_behind_the_recorded_rows(tmp_path: Path) -> None:
    with opened(tmp_path, rows(5)) as journal:
        journal.record([done(2), failed(4)])
    with Journal.open(job_files(tmp_path / "out.jsonl")) as journal:
        found = journal.scan(rows(5), bad_row_line)

        assert not found.is_first
        assert (found.changed, found.new, found.missing) == (0, 0, 0)
        assert list(journal.waiting_numbers()) == [1, 3, 5]
        check_whole(journal.files, journal)


def test_numbers_may_have_gaps(tmp_path: Path) -> None:
    given = [row(3), row(7), row(20)]
    opened(tmp_path, given).close()
    with opened(tmp_path, given) as journal:
        assert list(journal.waiting_numbers()) == [3, 7, 20]


def test_an_empty_input_has_no_rows(tmp_path: Path) -> None:
    with opened(tmp_path, []) as journal:
        assert journal.totals().rows == 0


def test_duplicate_ids_are_refused_with_their_lines(tmp_path: Path) -> None:
    given = [row(1, "a"), row(2, "b"), row(5, "a"), row(6, "c"), row(8, "b"), row(9, "a")]
    with pytest.raises(DuplicateRowsError) as caught:
        opened(tmp_path, given)

    assert caught.value.count == 2
    assert caught.value.duplicates == (("a", (1, 5, 9)), ("b", (2, 8)))
    assert "2 ids are used by more than one row: 'a' in lines 1, 5, 9; 'b' in lines 2, 8." in str(caught.value)
    with opened(tmp_path, rows(2)) as journal:  # nothing is left of it
        assert journal.totals().rows == 2


def test_only_the_first_ten_of_many_duplicates_are_named(tmp_path: Path) -> None:
    given = [row(number, f"r{number % 100}") for number in range(1, 5001)]
    with pytest.raises(DuplicateRowsError) as caught:
        opened(tmp_path, given)

    assert caught.value.count == 100
    assert [name for name, _ in caught.value.duplicates] == [f"r{number}" for number in range(1, 11)]
    assert caught.value.duplicates[0][1] == tuple(range(1, 1000, 100))


def test_duplicates_on_a_later_start_leave_the_journal_as_it_was(tmp_path: Path) -> None:
    with opened(tmp_path, rows(3)) as journal:
        journal.record([done(1)])
    with pytest.raises(DuplicateRowsError):
        opened(tmp_path, [*rows(3), row(4, "r1")], force=True)
    with opened(tmp_path, rows(3)) as journal:
        assert check_whole(journal.files, journal) == {"r1"}


CHANGED = [row(1), row(2, prompt="bye"), row(4), row(5, "new")]
"""Of four rows: r2 asks for something else, r3 is gone, and a new one is there."""


def test_a_changed_input_is_refused_and_explained(tmp_path: Path) -> None:
    files = job_files(tmp_path / "out.jsonl")
    with Journal.open(files, settings={"model": "x", "input": "in.jsonl"}) as journal:
        journal.scan(rows(4), bad_row_line)
        journal.record([done(1), done(2), done(3), failed(4)])
    with (
        Journal.open(files, settings={"model": "y", "input": "in.jsonl"}) as journal,
        pytest.raises(ChangedInputError) as caught,
    ):
        journal.scan(CHANGED, bad_row_line)

    error = caught.value
    assert (error.changed, error.new, error.missing) == (1, 1, 1)
    assert error.examples == (("changed", "r2", 2), ("new", "new", 5), ("missing", "r3", 3))
    assert error.settings == (("model", "x", "y"),)
    assert error.directory == str(files.directory)
    for words in (
        "1 changed, 1 new, 1 missing",
        "'r2' (line 2, changed)",
        "model was 'x' and is 'y'",
        "--changed",
        "--force",
    ):
        assert words in str(error)
    with opened(tmp_path, rows(4)) as journal:
        assert check_whole(files, journal) == {"r1", "r2", "r3", "r4"}


def test_with_changed_only_changed_and_new_rows_run_again(tmp_path: Path) -> None:
    with opened(tmp_path, rows(4)) as journal:
        journal.record([done(3), done(1), done(2), failed(4)])
    with Journal.open(job_files(tmp_path / "out.jsonl"), changed=True) as journal:
        found = journal.scan(CHANGED, bad_row_line)

        assert (found.changed, found.new, found.missing) == (1, 1, 1)
        assert (found.totals.rows, found.totals.done, found.totals.failed) == (4, 1, 1)
        assert list(journal.waiting_numbers()) == [2, 5]
        assert check_whole(journal.files, journal) == {"r1", "r4"}
        journal.record([done(2, "again"), done(5, name="new")])
        assert ids(journal.files.results) == ["r1", "r2", "new"]
        check_whole(journal.files, journal)
    with opened(tmp_path, CHANGED) as journal:  # it is the known input now
        assert journal.totals().waiting == 0


def test_rows_that_have_only_moved_keep_their_records(tmp_path: Path) -> None:
    with opened(tmp_path, rows(4)) as journal:
        journal.record([done(2), failed(3)])
    with opened(tmp_path, [row(1, "r3"), row(2, "r4"), row(6, "r2"), row(7, "r1")]) as journal:
        assert list(journal.waiting_numbers()) == [2, 7]
        assert check_whole(journal.files, journal) == {"r2", "r3"}
        stored = journal.stored_record(6)
        assert stored is not None
        assert (stored.id, stored.line) == ("r2", done(2).line)


@pytest.mark.parametrize("place", [0, 999, 1000, 1500, 2999])
def test_a_change_is_found_wherever_it_is(tmp_path: Path, place: int) -> None:
    given = rows(3000)
    with opened(tmp_path, given) as journal:
        journal.record([done(place + 1)])
    given[place] = row(place + 1, prompt="else")
    with pytest.raises(ChangedInputError) as caught:
        opened(tmp_path, given)
    assert caught.value.examples == (("changed", f"r{place + 1}", place + 1),)
    with opened(tmp_path, given, changed=True) as journal:
        assert journal.totals().waiting == 3000


def test_rows_added_at_the_end_are_new(tmp_path: Path) -> None:
    opened(tmp_path, rows(2000)).close()
    with pytest.raises(ChangedInputError) as caught:
        opened(tmp_path, rows(2003))
    assert (caught.value.changed, caught.value.new, caught.value.missing) == (0, 3, 0)


def test_rows_removed_at_the_end_are_missing(tmp_path: Path) -> None:
    opened(tmp_path, rows(2000)).close()
    with pytest.raises(ChangedInputError) as caught:
        opened(tmp_path, rows(1000))
    assert (caught.value.changed, caught.value.new, caught.value.missing) == (0, 0, 1000)
    assert caught.value.examples == tuple(("missing", f"r{number}", number) for number in range(1001, 1006))


def test_force_begins_anew(tmp_path: Path) -> None:
    with opened(tmp_path, rows(3)) as journal:
        journal.record([done(1), failed(2)])
        journal.set_fact("job", "one")
        with journal.transaction() as connection:
            connection.execute("CREATE TABLE provider_batches (id TEXT)")
    with opened(tmp_path, rows(2), force=True) as journal:
        assert check_whole(journal.files, journal) == set()
        assert journal.fact("job") is None
        assert list(journal.waiting_numbers()) == [1, 2]
        journal.record([done(2)])
    assert "provider_batches" not in tables(tmp_path)
    with opened(tmp_path, rows(2)) as journal:
        assert check_whole(journal.files, journal) == {"r2"}


def test_force_keeps_everything_until_the_new_input_is_read(tmp_path: Path) -> None:
    with opened(tmp_path, rows(2)) as journal:
        journal.record([done(1), failed(2)])
    Journal.open(job_files(tmp_path / "out.jsonl"), force=True).close()
    with opened(tmp_path, rows(2)) as journal:
        assert check_whole(journal.files, journal) == {"r1", "r2"}


def test_failed_rows_run_again_when_asked(tmp_path: Path) -> None:
    with opened(tmp_path, rows(4)) as journal:
        journal.record([failed(1), done(2), failed(3, "timeout")])
        assert journal.errors_by_kind() == {"rate_limit": 1, "timeout": 1}
        assert journal.errors_by_kind(range(2, 4)) == {"timeout": 1}
    with opened(tmp_path, rows(4), retry_failed=True) as journal:
        assert list(journal.waiting_numbers()) == [1, 3, 4]
        assert ids(journal.files.errors) == []
        assert journal.errors_by_kind() == {}
        journal.record([done(1), failed(3)])
        assert check_whole(journal.files, journal) == {"r1", "r2", "r3"}


def test_a_row_that_cannot_be_run_is_recorded_as_failed_at_once(tmp_path: Path) -> None:
    given: list[Row | BadRow] = [row(1), BadRow(2, "line-2", "it is no JSON"), row(3)]
    with Journal.open(job_files(tmp_path / "out.jsonl")) as journal:
        found = journal.scan(given, bad_row_line)

        assert (found.bad, found.totals.failed) == (1, 1)
        assert list(journal.waiting_numbers()) == [1, 3]
        assert journal.errors_by_kind() == {"bad_row": 1}
        assert check_whole(journal.files, journal) == {"line-2"}
    for retry_failed in (False, True):
        with opened(tmp_path, given, retry_failed=retry_failed) as journal:
            assert check_whole(journal.files, journal) == {"line-2"}


def test_a_repaired_row_is_a_changed_row(tmp_path: Path) -> None:
    opened(tmp_path, [row(1), BadRow(2, "r2", "it is no JSON")]).close()
    with pytest.raises(ChangedInputError):
        opened(tmp_path, rows(2))
    with opened(tmp_path, rows(2), changed=True) as journal:
        assert list(journal.waiting_numbers()) == [1, 2]
        assert ids(journal.files.errors) == []


def test_many_rows_that_cannot_be_run(tmp_path: Path) -> None:
    given = [BadRow(number, f"line-{number}", "it is no JSON") for number in range(1, 3001)]
    with opened(tmp_path, given) as journal:
        assert journal.totals().failed == 3000
        check_whole(journal.files, journal)


def test_an_input_that_raises_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, rows(3)) as journal:
        journal.record([done(1)])

    def broken() -> Iterator[Row]:
        yield row(1)
        yield row(2, prompt="else")
        raise OSError("the disk with the input is gone")

    with pytest.raises(OSError, match="the disk with the input is gone"):
        opened(tmp_path, broken(), force=True)
    with opened(tmp_path, rows(3)) as journal:
        assert check_whole(journal.files, journal) == {"r1"}


def test_recorded_answers_are_found_by_the_hash_of_their_row(tmp_path: Path) -> None:
    with opened(tmp_path, [row(1, prompt="a"), row(2, prompt="b"), row(3, prompt="b")]) as journal:
        journal.record([failed(1), done(3)])
        assert journal.done_with_hash(row(2, prompt="b").hash) == 3
        assert journal.done_with_hash(row(1, prompt="a").hash) is None
    with opened(tmp_path, [row(4, prompt="b", name="r3")], changed=True) as journal:
        assert journal.done_with_hash(row(2, prompt="b").hash) == 4


def test_the_version_of_the_input_grows_with_each_change_of_its_rows(tmp_path: Path) -> None:
    moved = [row(1, "r2"), row(2, "r1")]
    versions = []
    for given, force in [(rows(2), False), (rows(2), False), (moved, False), (moved, False), (moved, True)]:
        with opened(tmp_path, given, force=force) as journal:
            versions.append(journal.input_version())
    assert versions == [1, 1, 2, 2, 3]
