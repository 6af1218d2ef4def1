"""Jobs for the tests of the journal: rows, records, and what must be true of a job's files at any moment."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from headrace.batch.journal.job_files import JobFiles, job_files
from headrace.batch.journal.job_records import RowRecord
from headrace.batch.journal.journal import Journal
from headrace.batch.row import BadRow, Row


def row(number: int, name: str | None = None, prompt: str = "hello") -> Row:
    """Return a row. ``prompt`` shapes its answer."""
    shape = prompt.encode().ljust(16, b".")[:16]
    return Row(number, name or f"r{number}", "chat", "openai", {"messages": prompt}, shape)


def rows(count: int) -> list[Row]:
    """Return rows with the numbers 1 to ``count`` and the ids r1, r2, …"""
    return [row(number) for number in range(1, count + 1)]


def bad_row_line(bad: BadRow) -> bytes:
    """Return the record of a row that cannot be run."""
    return _line({"id": bad.id, "line": bad.number, "error": {"code": "bad_row", "message": bad.problem}})


def done(number: int, text: str = "hi", name: str | None = None, cost: float = 0.5) -> RowRecord:
    """Return the record of a success."""
    line = _line({"id": name or f"r{number}", "text": text, "cost": cost})
    return RowRecord(number, line, cost=cost, input_tokens=10, output_tokens=20)


def failed(number: int, kind: str = "rate_limit", name: str | None = None) -> RowRecord:
    """Return the record of a failure."""
    line = _line({"id": name or f"r{number}", "line": number, "error": {"code": kind, "message": "no"}})
    return RowRecord(number, line, kind)


def opened(folder: Path, given: Iterable[Row | BadRow], **options: bool) -> Journal:
    """Open the job with the output ``out.jsonl`` in a folder, and scan these rows."""
    journal = Journal.open(job_files(folder / "out.jsonl"), **options)  # type: ignore[arg-type]
    try:
        journal.scan(given, bad_row_line)
    except BaseException:
        journal.close()
        raise
    return journal


def ids(path: Path) -> list[str]:
    """Return the ids of a file of records, in the order of its lines. Fails at a line that is no whole record."""
    if not path.exists():
        return []
    content = path.read_bytes()
    assert not content or content.endswith(b"\n")
    return [json.loads(line)["id"] for line in content.splitlines()]


def check_whole(files: JobFiles, journal: Journal) -> set[str]:
    """Check what must be true after each start. Return the ids of the rows with a record.

    The files have whole lines, one for each row that the journal knows as recorded and no other; each record is where the
    journal says; and a row is either recorded or waiting.
    """
    recorded = ids(files.results) + ids(files.errors)
    assert len(recorded) == len({*recorded}), recorded
    stored = list(journal.stored())
    assert sorted(each.id for each in stored) == sorted(recorded)
    assert all(json.loads(each.line)["id"] == each.id for each in stored)
    assert {each.id for each in stored if each.is_failure} == {*ids(files.errors)}
    waiting = {*journal.waiting_numbers()}
    assert not waiting & {each.number for each in stored}
    assert waiting | {each.number for each in stored} == {*journal.numbers()}
    totals = journal.totals()
    assert (totals.done, totals.failed) == (len(ids(files.results)), len(ids(files.errors)))
    return {*recorded}


def tables(folder: Path) -> Iterator[str]:
    """Iterate the names of the tables in the journal of the job ``out.jsonl``."""
    connection = sqlite3.connect(folder / "out.jsonl.job" / "journal.sqlite")
    try:
        yield from [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    finally:
        connection.close()


def groups(records: Sequence[RowRecord], size: int) -> Iterator[Sequence[RowRecord]]:
    """Cut records into groups."""
    return (records[start : start + size] for start in range(0, len(records), size))


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
