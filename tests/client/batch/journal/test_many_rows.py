"""Many rows need little time and bounded memory: the scan of an input, its second scan, and the records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repetition import long_test
from tests.waiting import cpu_slack

_PROGRAM = """
import json, sys
from pathlib import Path
from time import process_time
from headrace.batch.journal.job_files import job_files
from headrace.batch.journal.job_records import RowRecord
from headrace.batch.journal.journal import Journal
from headrace.batch.row import Row

folder, count = Path(sys.argv[1]), int(sys.argv[2])

def rows():
    arguments = {}
    for number in range(1, count + 1):
        yield Row(number, f"{number * 2654435761 % 2**32:08x}-{number}", "chat", "openai", arguments, number.to_bytes(16, "big"))

def records():
    line = b'{"id":"%08x-%d","text":"' + b"a" * 500 + b'"}\\n'
    for number in range(1, count + 1):
        yield RowRecord(number, line % (number * 2654435761 % 2**32, number), "", 0.001, 10, 20)

def drain(values):
    for value in values:
        pass

def record_all(journal):
    group = []
    for record in records():
        group.append(record)
        if len(group) == 512:
            journal.record(group)
            group = []
    journal.record(group)

def timed(call, *arguments):
    began = process_time()
    call(*arguments)
    return (process_time() - began) / count * 1e6

def peak():
    # Not ru_maxrss: it counts the process that started this one.
    (found,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(found.split()[1]) / 1024

row_cost, record_cost, before = timed(drain, rows()), timed(drain, records()), peak()
figures = {}
with Journal.open(job_files(folder / "out.jsonl")) as journal:
    figures["scan"] = timed(journal.scan, rows(), None) - row_cost
    figures["record"] = timed(record_all, journal) - record_cost
with Journal.open(job_files(folder / "out.jsonl")) as journal:
    figures["second scan"] = timed(journal.scan, rows(), None) - row_cost
    assert journal.totals().done == count
    assert not list(journal.waiting_numbers())
figures["MiB"] = peak() - before
print(json.dumps(figures))
"""


def figures_of(folder: Path, count: int) -> dict[str, float]:
    command = [sys.executable, "-c", _PROGRAM, str(folder), str(count)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
    figures: dict[str, float] = json.loads(ended.stdout)
    print({name: round(figure, 2) for name, figure in figures.items()})
    return figures


def check(figures: dict[str, float]) -> None:
    """Microseconds of CPU a row, and memory."""
    assert figures["MiB"] < 40
    assert figures["scan"] < 6 * cpu_slack()
    assert figures["second scan"] < 6 * cpu_slack()
    assert figures["record"] < 8 * cpu_slack()


def test_a_hundred_thousand_rows(tmp_path: Path) -> None:
    check(figures_of(tmp_path, 100_000))


@long_test
@pytest.mark.timeout(600)
def test_a_million_rows(tmp_path: Path) -> None:
    check(figures_of(tmp_path, 1_000_000))
