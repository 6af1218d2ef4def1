"""`headrace spans` started by a shell: the live tail, terminals, readers that go away, and a large store."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.shared.exit_codes import ExitCode
from headrace.spans.span import Rank
from tests.cli.conftest import Run
from tests.cli.spans.span_rows import Database, content, span
from tests.conftest import ROOT
from tests.waiting import busyness

HEADRACE = str(Path(sys.prefix, "bin", "headrace"))

# Another process that writes, like an engine, and reports when it is done.
WRITER = """
import sys
from pathlib import Path
from tests.cli.spans.span_rows import Database, span
for line in sys.stdin:
    slot, day, *ids = line.split()
    Database(Path(sys.argv[1]), int(slot), day).add(*(span(span_id=id) for id in ids))
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(data: Path) -> Iterator[Start]:
    """Start ``headrace spans`` on the test's data, in a process group of its own, as a shell does."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        command = [HEADRACE, "spans", *arguments, "--data", str(data)]
        usual: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, process_group=0, **usual | options)
        started.append(process)
        return process

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


@pytest.fixture
def write(data: Path) -> Iterator[Callable[[str], None]]:
    """Have another process write spans: a slot, a day, and their ids."""
    command = [sys.executable, "-c", WRITER, str(data)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True) as process:
        stdin = process.stdin
        assert stdin is not None

        def send(line: str) -> None:
            stdin.write(line + "\n")
            stdin.flush()

        yield send
        stdin.close()


def next_ids(process: subprocess.Popen[str], count: int) -> list[str]:
    """Read ``count`` spans. Only the timeout of the test limits the time."""
    assert process.stdout is not None
    return [json.loads(process.stdout.readline())["span_id"] for _ in range(count)]


def test_tail_shows_spans_in_new_files_and_new_slots(start: Start, write: Callable[[str], None], data: Path) -> None:
    Database(data).add(span(span_id="sp_old"), span(span_id="sp_new"))
    tail = start("tail", "-n", "1")
    assert next_ids(tail, 1) == ["sp_new"]

    write("0 2026-03-14 sp_1 sp_2")
    assert next_ids(tail, 2) == ["sp_1", "sp_2"]
    write("0 2026-03-15 sp_3")
    assert next_ids(tail, 1) == ["sp_3"]
    write("7 2026-03-15 sp_4")
    assert next_ids(tail, 1) == ["sp_4"]

    os.killpg(tail.pid, signal.SIGINT)
    out, err = tail.communicate()
    assert (tail.returncode, out, err) == (ExitCode.INTERRUPTED, "", "headrace: interrupted\n")


def test_tail_may_start_before_the_first_span(start: Start, write: Callable[[str], None]) -> None:
    tail = start("tail")

    write("0 2026-03-14 sp_1")

    assert next_ids(tail, 1) == ["sp_1"]


def test_tail_takes_filters_and_shows_again_what_is_replaced(start: Start, data: Path) -> None:
    database = Database(data)
    database.add(span(span_id="sp_1", model="o3", rank=Rank.STUB), span(span_id="sp_2"))
    tail = start("tail", "--model", "o3")
    assert next_ids(tail, 1) == ["sp_1"]

    database.add(span(span_id="sp_3"))
    database.replace(span(span_id="sp_1", model="o3"))

    assert next_ids(tail, 1) == ["sp_1"]


def test_tail_goes_on_when_a_file_is_removed(start: Start, data: Path) -> None:
    old, new = Database(data, day="2026-03-13"), Database(data)
    old.add(span(span_id="sp_1"))
    tail = start("tail")
    assert next_ids(tail, 1) == ["sp_1"]

    old.path.unlink()
    new.add(span(span_id="sp_2"))

    assert next_ids(tail, 1) == ["sp_2"]


def test_tail_ends_when_its_reader_has_gone_even_without_spans(start: Start, data: Path) -> None:
    Database(data).add(span(span_id="sp_1"))
    tail = start("tail")
    assert next_ids(tail, 1) == ["sp_1"]
    assert tail.stdout is not None

    tail.stdout.close()

    assert tail.wait(60) == ExitCode.OUTPUT_CLOSED
    assert tail.stderr is not None
    assert tail.stderr.read() == ""


@pytest.mark.parametrize("command", ["list --limit 0", "export", "export --format csv"])
def test_a_reader_that_goes_away_ends_it_quietly(start: Start, data: Path, command: str) -> None:
    Database(data).add(*(span(content=content(text="x" * 2000)) for _ in range(500)))
    process = start(*command.split())
    assert process.stdout is not None
    process.stdout.readline()

    process.stdout.close()

    assert process.wait(60) == ExitCode.OUTPUT_CLOSED
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_a_terminal_gets_a_table_of_its_width(start: Start, data: Path) -> None:
    Database(data).add(
        span(status="error", error_type="RateLimitError", error="slow down"), span(content=content(text="word " * 99))
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    process = start("list", stdin=theirs, stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm"})
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # Linux raises this if the other side is closed
        while piece := os.read(ours, 4096):
            shown += piece
    os.close(ours)

    assert process.wait(60) == ExitCode.OK
    head, answer, error = shown.decode().splitlines()
    assert head.startswith("\x1b[2mTIME ")
    assert len(answer) == 90
    assert "\x1b[31merror  \x1b[0m" in error


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_hundred_thousand_spans_are_listed_quickly(spans: Run, data: Path) -> None:
    text = content(text="word " * 400)
    for slot, day in [(0, "2026-03-13"), (0, "2026-03-14"), (1, "2026-03-14")]:
        database = Database(data, slot, day)
        for _ in range(34):
            database.add_all((span(content=text), 0.001) for _ in range(1000))
        database.close()

    seconds, done = {}, {}
    commands = [
        "list",
        "list --status ok --model gpt-4o --since 2026-03-01",
        "list --tag none",
        "show 1",
        "stats --json",
    ]
    for command in commands:
        before = time.monotonic()
        done[command] = spans(*command.split())
        seconds[command] = time.monotonic() - before

    assert json.loads(done["stats --json"].out)["total"]["runs"] == 102_000
    assert seconds.pop("stats --json") < 30 * busyness()
    assert max(seconds.values()) < 15 * busyness()
    assert seconds["list"] < 2 * busyness()
