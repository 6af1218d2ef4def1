"""Counts the records of a batch job from the tables of its journal."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Container

from headrace.batch.journal.job_records import JobTotals
from headrace.batch.journal.tables import ERRORS_FILE, RESULTS_FILE

ACTIVITY_SLOT = 10
"""Seconds of work that one row of the table ``activity`` counts."""
_RATE_SECONDS = 60


def count_totals(connection: sqlite3.Connection) -> JobTotals:
    """Count all rows and records. Takes some 100 ms for a million."""
    (rows,) = connection.execute("SELECT count(*) FROM rows").fetchone()
    sums = connection.execute(
        "SELECT file, count(*), sum(cost), sum(input_tokens), sum(output_tokens) FROM records GROUP BY file"
    ).fetchall()
    counts = {int(file): int(count) for file, count, _, _, _ in sums}
    return JobTotals(
        rows=rows,
        done=counts.get(RESULTS_FILE, 0),
        failed=counts.get(ERRORS_FILE, 0),
        cost=float(sum(cost for _, _, cost, _, _ in sums)),
        input_tokens=sum(tokens for _, _, _, tokens, _ in sums),
        output_tokens=sum(tokens for _, _, _, _, tokens in sums),
    )


def count_errors(connection: sqlite3.Connection, numbers: Container[int] | None = None) -> dict[str, int]:
    """Return kind of error → rows, the most frequent first. ``numbers``: count only these rows; None: all."""
    if numbers is not None:
        failed = connection.execute("SELECT number, kind FROM records WHERE file = ? ORDER BY kind", (ERRORS_FILE,))
        return dict(Counter(str(kind) for number, kind in failed if number in numbers).most_common())
    query = "SELECT kind, count(*) FROM records WHERE file = ? GROUP BY kind ORDER BY 2 DESC, 1"
    return {str(kind): int(count) for kind, count in connection.execute(query, (ERRORS_FILE,))}


def count_activity(connection: sqlite3.Connection, rows: int, now: float) -> None:
    """Note that so many rows were recorded. ``now``: seconds since 1970."""
    connection.execute(
        "INSERT INTO activity VALUES (?, ?, ?)"
        " ON CONFLICT (slot) DO UPDATE SET rows = rows + excluded.rows, last = excluded.last",
        (int(now / ACTIVITY_SLOT) * ACTIVITY_SLOT, rows, now),
    )


def recent_rate(connection: sqlite3.Connection, started_at: float) -> tuple[float, float]:
    """Return the rows a second in the last minute of work, and the time of the last record (seconds since 1970, or 0.0)."""
    (last,) = connection.execute("SELECT coalesce(max(last), 0.0) FROM activity").fetchone()
    since = max(started_at, last - _RATE_SECONDS)
    first_slot = int(since / ACTIVITY_SLOT) * ACTIVITY_SLOT
    (rows,) = connection.execute(
        "SELECT coalesce(sum(rows), 0) FROM activity WHERE slot >= ?", (first_slot,)
    ).fetchone()
    seconds = last - max(started_at, first_slot)
    return (rows / seconds if seconds > 0 else 0.0), last
