"""A batch job that is killed at any moment goes on: every write, every change of a file's name, every statement of SQLite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from headrace.batch.journal.job_records import RowRecord
from headrace.batch.journal.journal import Journal
from headrace.batch.row import BadRow, Row
from tests.cases import case
from tests.client.batch.journal.jobs import check_whole, done, failed, opened, row, rows
from tests.client.batch.journal.moments import copied, observed
from tests.repetition import repeated

FIRST: list[Row | BadRow] = [*rows(6), BadRow(7, "r7", "it is no JSON")]
SECOND: list[Row | BadRow] = [row(1), row(2, prompt="else"), row(3), row(5), row(6), row(8)]
"""r2 asks for something else, r4 and r7 are gone, r8 is new."""


def run_group(journal: Journal, records: Sequence[RowRecord], recorded: set[str]) -> None:
    journal.record(records)
    recorded.update(f"r{record.number}" for record in records)


def complete(folder: Path, given: Sequence[Row | BadRow], must_have: set[str], *, changed: bool = False) -> None:
    """Start the job again, with what a kill has left, and run it to its end. The rows of ``must_have`` must not run again."""
    with opened(folder, given, changed=changed) as journal:
        assert must_have <= check_whole(journal.files, journal)
        for number in list(journal.waiting_numbers()):
            journal.record([done(number, "from the second start")])
        assert check_whole(journal.files, journal) == {row.id for row in given}
    with opened(folder, given) as journal:
        assert journal.totals().waiting == 0
        check_whole(journal.files, journal)


def test_a_first_start_killed_at_any_moment(tmp_path: Path) -> None:
    recorded: set[str] = set()
    folder = tmp_path / "job"
    folder.mkdir()
    with observed(folder, tmp_path / "moments", lambda: set(recorded)) as moments, opened(folder, FIRST) as journal:
        run_group(journal, [done(2), failed(1), done(3)], recorded)
        run_group(journal, [failed(5)], recorded)
        run_group(journal, [done(4)], recorded)
    print(len(moments.copies), "moments")

    assert len(moments.copies) > 20
    for copy, must_have in moments.copies:
        with case(copy.name):
            complete(copy, FIRST, must_have)


def test_a_start_that_runs_failed_rows_again_killed_at_any_moment(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    with opened(folder, FIRST) as journal:
        journal.record([done(2), failed(1), done(3), failed(5)])
    recorded = {"r2", "r3"}
    with (
        observed(folder, tmp_path / "moments", lambda: set(recorded)) as moments,
        opened(folder, FIRST, retry_failed=True) as journal,
    ):
        run_group(journal, [done(5), failed(1)], recorded)
        run_group(journal, [done(4), done(6)], recorded)
    print(len(moments.copies), "moments")

    assert len(moments.copies) > 20
    for copy, must_have in moments.copies:
        with case(copy.name):
            complete(copy, FIRST, must_have)


def test_a_start_with_a_changed_input_killed_at_any_moment(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    with opened(folder, FIRST) as journal:
        journal.record([failed(5), done(3), done(2), done(4)])
        journal.record([failed(1), done(6)])
    recorded = {"r1", "r3", "r5", "r6"}
    with (
        observed(folder, tmp_path / "moments", lambda: set(recorded)) as moments,
        opened(folder, SECOND, changed=True) as journal,
    ):
        run_group(journal, [failed(2)], recorded)
        run_group(journal, [done(8)], recorded)
    print(len(moments.copies), "moments")

    assert len(moments.copies) > 20
    for copy, must_have in moments.copies:
        with case(copy.name):
            complete(copy, SECOND, must_have, changed=True)


def test_a_start_with_force_killed_at_any_moment(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    with opened(folder, FIRST) as journal:
        journal.record([failed(5), done(3), done(2), done(4)])
    recorded: set[str] = set()
    with (
        observed(folder, tmp_path / "moments", lambda: set(recorded)) as moments,
        opened(folder, FIRST, force=True) as journal,
    ):
        run_group(journal, [done(2, "new"), failed(1)], recorded)
    print(len(moments.copies), "moments")

    for copy, must_have in moments.copies:
        with case(copy.name):
            complete(copy, FIRST, must_have)


def test_the_last_group_cut_at_any_byte(tmp_path: Path) -> None:
    """As a kill in the middle of a write leaves it: the files have more than the journal knows."""
    folder = tmp_path / "job"
    folder.mkdir()
    with opened(folder, FIRST) as journal:
        journal.record([done(1), failed(2)])
    group = [done(4, "läßt\nsich"), done(3), done(6)], [failed(5)]
    before = {name: (folder / name).read_bytes() for name in ("out.jsonl", "out.errors.jsonl")}
    tail = {
        "out.jsonl": b"".join(record.line for record in group[0]),
        "out.errors.jsonl": b"".join(record.line for record in group[1]),
    }
    for name, written in tail.items():
        ends = {at + step for at, byte in enumerate(written) if byte == ord("\n") for step in (-1, 0, 1, 2)}
        for length in {*range(0, len(written) + 1, repeated(6, 1)), *ends} & {*range(len(written) + 1)}:
            with case(name, length):
                copy = copied(folder, tmp_path / f"{name}{length}")
                (copy / name).write_bytes(before[name] + written[:length])
                complete(copy, FIRST, {"r1", "r2", *_whole(written[:length])})


def _whole(written: bytes) -> list[str]:
    """Return the ids of the whole records; the last one may lack its newline."""
    found = []
    for line in written.splitlines():
        try:
            found.append(json.loads(line)["id"])
        except ValueError:
            break
    return found
