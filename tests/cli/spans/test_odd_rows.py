"""No row of a database ends `headrace spans` in a traceback, or hides other rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from headrace.spans.reading.span_query import Grouping
from tests.cli.conftest import Run
from tests.cli.spans.span_rows import Database, span, tool_run

ABSURD = [
    "started_at = 1e300",
    "started_at = 9e999, ended_at = -9e999",
    "duration_seconds = 9e999, queue_seconds = -1e300, first_chunk_seconds = 9e999",
    "input_tokens = 9e999, output_tokens = 9223372036854775807",
    "input_tokens = -5, total_tokens = 1.5",
    "cost = 9e999",
    "cost = -9e999",
    "usage_source = 'new', status = 'new', kind = 'new'",
    "session_id = CAST(x'ff' AS TEXT), error = CAST(x'ff' AS TEXT), model = CAST(x'ff' AS TEXT)",
    "content = '{'",
    "content = 'null'",
    "content = '[[[['",
    "content = CAST(x'ff' AS TEXT)",
    'attempts = \'[{"number": 1, "started_at": 1e300, "ended_at": -1e300, "status_code": 9223372036854775807}]\'',
    'parameters = \'{"max_output_tokens": 9223372036854775808, "a": 1e300}\'',
]
"""Odd values in rows that are shown."""
DAMAGED = [
    "started_at = 'never'",
    "started_at = x'ff'",
    "duration_seconds = 'long'",
    "cost = 'much'",
    "tags = '['",
    "tags = '[1, null, {}]'",
    "attempts = '['",
    "parameters = '7'",
    "user_id = x'ff'",
    "model = x'ff'",
    "content = x'ff'",
    "rank = 99",
]
"""Odd values in rows that are named and left out."""
LISTS = ["list --limit 0", "list --limit 0 --table", "list --grep hello --limit 0", "export", "export --format csv"]
QUERIES = ["list --tag x", "list --grep x --tag y", "stats --tag x", "export --format parquet -o {out}"]


@pytest.fixture
def known(data: Path) -> list[str]:
    """Write rows, each with another odd value. Return the ids of the rows that are shown."""
    database, other = Database(data), Database(data, 1)
    spans = [span() for _ in range(len(ABSURD) + len(DAMAGED) + 3)]
    database.add(*spans, cost=0.5)
    other.add(*spans[::3], tool_run(), span(), cost=0.5)
    for number, change in enumerate([*ABSURD, *DAMAGED], 1):
        database.execute(f"UPDATE spans SET {change} WHERE seq = {number}")
        other.execute(f"UPDATE spans SET {change} WHERE span_id = '{spans[number - 1].span_id}'")
    return [each.span_id for each in [*spans[: len(ABSURD)], *spans[-3:]]]


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Niue"])
@pytest.mark.parametrize("command", LISTS)
def test_every_row_is_shown_or_named(
    command: str, zone: str, known: list[str], spans: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    done = spans(*command.split())

    assert done.code == 0
    assert "Traceback" not in done.err
    assert ".db is left out" not in done.err
    if "--grep" not in command:
        assert all(each[: len("sp_") + 8] in done.out for each in known)
        assert done.err.count("is left out: ") >= len(DAMAGED)
    if command in ("list --limit 0", "export"):
        assert set(known) <= set(done.ids)


def test_no_odd_row_breaks_the_sums(known: list[str], spans: Run, tmp_path: Path) -> None:
    for by in get_args(Grouping):
        for form in ((), ("--json",)):
            done = spans("stats", "--by", by, *form)
            assert (done.code, "Traceback" in done.err, ".db is left out" in done.err) == (0, False, False), by
            if form:
                json.loads(done.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    for query in QUERIES:
        done = spans(*query.format(out=tmp_path / "out.parquet").split())
        assert (done.code, "Traceback" in done.err, ".db is left out" in done.err) == (0, False, False), query


def test_every_row_can_be_shown_alone(known: list[str], spans: Run) -> None:
    for name in known:
        for form in ((), ("--json",)):
            done = spans("show", name, *form)
            assert (done.code, done.err) == (0, ""), (name, form)
            assert name in done.out
