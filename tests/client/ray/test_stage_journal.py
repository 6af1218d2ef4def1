"""The journal that the actors of a Ray job share: what is finished is found by all, whatever became of its writer."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from headrace.ray.stage_journal import StageJournal, row_key

KEYS = [row_key(number, b"shape") for number in range(5)]


@contextmanager
def journal_of(path: Path, run: str = "run-1") -> Iterator[StageJournal]:
    with closing(StageJournal(path, run)) as journal:
        yield journal


def test_rows_of_one_actor_are_found_by_the_others_and_later(tmp_path: Path) -> None:
    with journal_of(tmp_path / "j") as first, journal_of(tmp_path / "j") as second:
        first.add(KEYS[0], {"answer": "a"}, is_failure=False)
        assert second.find(KEYS) == {KEYS[0]: {"answer": "a"}}
        second.add(KEYS[1], {"answer": "b"}, is_failure=False)
        second.sync()
        first.add(KEYS[2], {"answer": "c"}, is_failure=False)
        assert first.find(KEYS).keys() == second.find(KEYS).keys() == set(KEYS[:3])
    with journal_of(tmp_path / "j", "run-2") as third:
        assert third.find(KEYS[1:2]) == {KEYS[1]: {"answer": "b"}}


def test_a_failed_row_counts_in_its_own_run_only_and_never_replaces_a_success(tmp_path: Path) -> None:
    with journal_of(tmp_path) as journal:
        journal.add(KEYS[0], {"error": "timeout"}, is_failure=True)
        journal.add(KEYS[1], {"answer": "b"}, is_failure=False)
        journal.add(KEYS[1], {"error": "timeout"}, is_failure=True)
        assert journal.find(KEYS) == {KEYS[0]: {"error": "timeout"}, KEYS[1]: {"answer": "b"}}
    with journal_of(tmp_path, "run-2") as journal:
        assert journal.find(KEYS) == {KEYS[1]: {"answer": "b"}}
        journal.add(KEYS[0], {"answer": "a"}, is_failure=False)
    with journal_of(tmp_path) as journal:
        assert journal.find(KEYS)[KEYS[0]] == {"answer": "a"}


def test_a_torn_or_spoiled_line_is_as_if_its_row_had_not_finished(tmp_path: Path) -> None:
    with journal_of(tmp_path) as journal:
        for number in range(3):
            journal.add(KEYS[number], {"answer": str(number)}, is_failure=False)
    (file,) = tmp_path.iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"{spoiled}\n" + lines[2] + lines[1][:20])

    with journal_of(tmp_path) as journal:
        assert journal.find(KEYS).keys() == {KEYS[0], KEYS[2]}
        with file.open("ab") as stream:  # the rest of the line comes: its writer was only slow
            stream.write(lines[1][20:])
        assert journal.find(KEYS)[KEYS[1]] == {"answer": "1"}


def test_keys_tell_ids_types_and_shapes_apart() -> None:
    keys = {row_key(1, b"s"), row_key("1", b"s"), row_key(1, b"t"), row_key("a", b"s")}
    assert len(keys) == 4


def test_the_journal_is_for_its_user_only_and_says_where_it_cannot_be(tmp_path: Path) -> None:
    with journal_of(tmp_path / "a" / "j"):
        assert stat.S_IMODE((tmp_path / "a" / "j").stat().st_mode) == 0o700
        (file,) = (tmp_path / "a" / "j").iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert str(os.getpid()) in file.name
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file/j"):
        StageJournal(tmp_path / "file" / "j", "run")


def test_a_file_that_cannot_be_read_for_a_while_spoils_nothing(tmp_path: Path) -> None:
    with journal_of(tmp_path) as journal, journal_of(tmp_path) as other:
        other.add(KEYS[0], {"answer": "a"}, is_failure=False)
        unreadable = tmp_path / "other.jsonl"
        unreadable.mkdir()  # reading it raises OSError, as a network file system may
        with pytest.raises(OSError, match="directory"):
            journal.find(KEYS)
        unreadable.rmdir()
        assert journal.find(KEYS) == {KEYS[0]: {"answer": "a"}}
