"""Processes that write records and are killed (SIGKILL) at a random moment: what they had recorded stays, once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.batch.journal.jobs import check_whole, ids, opened, rows
from tests.repetition import times

COUNT = 600
_WRITER = """
import random, sys
from pathlib import Path
from tests.client.batch.journal.jobs import done, failed, groups, opened, rows

folder, seed, retry_failed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1"
draw = random.Random(seed)
with opened(folder, rows(int(sys.argv[4])), retry_failed=retry_failed) as journal:
    waiting = list(journal.waiting_numbers())
    print("waiting", *waiting, flush=True)
    draw.shuffle(waiting)
    while waiting:
        numbers = [waiting.pop() for _ in range(min(len(waiting), draw.randint(1, 12)))]
        text = "x" * draw.choice([1, 100, 20_000])
        journal.record([failed(n) if draw.random() < 0.2 else done(n, text) for n in numbers])
        print("recorded", *numbers, flush=True)
"""


@times(5, 60)
def test_what_a_killed_writer_had_recorded_does_not_run_again(tmp_path: Path, times: int) -> None:
    draw = random.Random(times)
    recorded: set[int] = set()
    done: set[int] = set()
    for start in range(times):
        retry_failed = start % 3 == 2
        command = [sys.executable, "-c", _WRITER, str(tmp_path), str(start), str(int(retry_failed)), str(COUNT)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            word, *waiting = writer.stdout.readline().split()
            assert word == "waiting"
            assert not {*map(int, waiting)} & (set() if retry_failed else recorded)
            # The kill comes while the writer is at work, at any place of it.
            lines = [writer.stdout.readline() for _ in range(draw.randint(0, 8))]
            writer.send_signal(signal.SIGKILL)
            lines += writer.stdout.readlines()
        if retry_failed:
            recorded = done
        for line in lines:
            if line.startswith("recorded") and line.endswith("\n"):
                recorded |= {*map(int, line.split()[1:])}
        with opened(tmp_path, rows(COUNT)) as journal:
            known = {int(name[1:]) for name in check_whole(journal.files, journal)}
            assert recorded <= known
            recorded = known
            done = {int(name[1:]) for name in ids(tmp_path / "out.jsonl")}
    assert recorded


@pytest.mark.parametrize("retry_failed", [False, True])
def test_a_writer_that_is_not_killed_records_all_rows(tmp_path: Path, retry_failed: bool) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path), "1", str(int(retry_failed)), str(COUNT)]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=60, check=True)
    with opened(tmp_path, rows(COUNT)) as journal:
        assert len(check_whole(journal.files, journal)) == COUNT
