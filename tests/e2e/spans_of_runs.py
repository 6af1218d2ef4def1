"""Spans of runs: waits until they are stored. Also programs with runs, and kills of an engine's processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from headrace import LocalStream
from headrace.cli.status_command import engine_status
from headrace.spans.data_directory import database_files, slots
from headrace.spans.span_database import StoredSpan, from_row, open_for_reading
from headrace.wire.messages import Status
from tests.conftest import engine_process
from tests.waiting import wait_until

MODEL = "gpt-4o"
PATIENCE = 45.0
"""Seconds for what takes one on a machine that has nothing else to do."""

Rows = dict[str, StoredSpan]


def stored(data: Path) -> Rows:
    """Return what all slots hold, by id; there is one row for each."""
    found: list[StoredSpan] = []
    for slot in slots(data):
        for path in database_files(slot):
            with closing(open_for_reading(path)) as connection:
                found += [from_row(row) for row in connection.execute("SELECT * FROM spans")]
                assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    rows = {row.span.span_id: row for row in found}
    assert len(rows) == len(found)
    return rows


def stored_span(data: Path, span_id: str) -> StoredSpan:
    """Wait until a run is stored; return its row."""
    return until(data, lambda rows: span_id in rows)[span_id]


def until(data: Path, is_so: Callable[[Rows], bool], seconds: float = PATIENCE) -> Rows:
    """Wait until what is stored is as asked for; return it."""

    def ranks() -> dict[str, tuple[str, str]]:
        return {name: (row.span.rank.name, row.span.status) for name, row in stored(data).items()}

    wait_until(lambda: is_so(stored(data)), seconds, "what is to be stored", ranks)
    return stored(data)


@contextmanager
def running_program(program: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program, which is ended with the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def take(stream: LocalStream, count: int) -> str:
    iterator = iter(stream)
    return "".join(next(iterator) for _ in range(count))


def status_when(engine: str, is_so: Callable[[Status], bool]) -> Status:
    """Return the engine's status, once it is as asked for."""

    def status() -> Status:
        return engine_status(engine, PATIENCE)

    return wait_until(lambda: found if is_so(found := status()) else None, PATIENCE, "the status", status)


def kill(engine: str, marker: str) -> None:
    """Kill a process of an engine, which may have to come back first."""

    def is_killed() -> bool:
        with suppress(StopIteration):
            os.kill(engine_process(engine, marker), signal.SIGKILL)
            return True
        return False

    wait_until(is_killed, PATIENCE, f"a process {marker}")
