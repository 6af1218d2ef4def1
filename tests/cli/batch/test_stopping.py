"""``headrace batch`` is stopped, killed, watched: on a terminal and in a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from headrace.cli.shared.exit_codes import ExitCode
from headrace.testing.batches.batch_control import BatchRecord
from tests.cli.batch.conftest import HEADRACE, Batch, openai_row
from tests.repetition import long_test
from tests.waiting import wait_until

pytestmark = pytest.mark.slow  # every test starts processes of its own

SLOW = {"first_token_delay": 0.1}
HANGS = {"silent": True}


class Terminal:
    """A command on a terminal of its own, which it controls: Ctrl-C is for it."""

    def __init__(self, batch: Batch, *arguments: str, program: tuple[str, ...] = (HEADRACE,)) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *program, "batch", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=batch.directory,
            env=batch.commands.environment,
        )
        os.close(theirs)
        self.shown = ""

    def read_until(self, pattern: str) -> str:
        """Read until the text since the start has the pattern. Return that text."""
        while not re.search(pattern, self.shown):
            piece = self._read()
            assert piece, f"no {pattern!r} in {self.shown!r}"
        return self.shown

    def type(self, keys: bytes) -> None:
        """Type keys, as a person does."""
        os.write(self._ours, keys)

    def read_to_the_end(self) -> str:
        """Return all that was shown, and wait for the end of the command."""
        while self._read():
            pass
        self.process.wait()
        return self.shown

    def close(self) -> None:
        """End the command."""
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _read(self) -> bytes:
        try:
            piece = os.read(self._ours, 65_536)
        except OSError:  # Linux raises this if the other side is closed
            piece = b""
        self.shown += piece.decode(errors="replace")
        return piece


@pytest.fixture
def terminal(batch: Batch) -> Iterator[Callable[..., Terminal]]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, program: tuple[str, ...] = (HEADRACE,)) -> Terminal:
            started = Terminal(batch, *arguments, program=program)
            stack.callback(started.close)
            return started

        yield start


def last_frame(shown: str) -> str:
    """Return what stays on the terminal: the text behind the last place where lines were taken away."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", re.split(r"(?:\x1b\[1A\x1b\[2K)+", shown)[-1]).replace("\r\n", "\n")


def test_of_an_input_that_changes_on_the_way_the_cause_is_told_before_the_summary(batch: Batch) -> None:
    path = batch.write("in.jsonl", [openai_row(number, **SLOW) for number in range(1, 6)])
    process = batch.start("in.jsonl", "-o", "out.jsonl", "--concurrency", "1")
    batch.wait_for_results(1)
    with path.open("a") as file:
        file.write("{}\n")

    _, err = process.communicate()

    assert process.returncode == ExitCode.USAGE
    assert err.index("in.jsonl: changed while the job read it") < err.index("5 rows done")
    assert err.count("changed while") == 1
    assert "The same command goes on" not in err


def test_a_terminal_gets_a_display_that_is_gone_at_the_end_and_a_summary(
    batch: Batch, terminal: Callable[..., Terminal]
) -> None:
    batch.write("in.jsonl", [openai_row(number, **SLOW) for number in range(1, 11)])

    shown = terminal("in.jsonl", "-o", "out.jsonl", "--concurrency", "2")
    text = shown.read_to_the_end()

    assert shown.process.returncode == ExitCode.OK
    assert re.search(r"of 10 rows, \d+ %", text)
    assert "Ctrl-C finishes the rows that run, and stops." in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is shown again
    assert re.fullmatch(
        r"10 rows done\n"
        r"  [0-9.]+ s, [0-9.]+ rows/s; [0-9,]+ prompt tokens and [0-9,]+ answer tokens; cost [^;]+\n"
        r"Results: out.jsonl\n",
        last_frame(text),
    )


def test_without_rich_a_terminal_gets_lines(batch: Batch, terminal: Callable[..., Terminal]) -> None:
    batch.write("in.jsonl", [openai_row(1)])
    program = "import sys; sys.modules['rich'] = None; from headrace.cli.main import main; sys.exit(main())"

    shown = terminal("in.jsonl", "-o", "out.jsonl", program=(sys.executable, "-c", program))
    text = shown.read_to_the_end()

    assert shown.process.returncode == ExitCode.OK
    assert "headrace: `pip install 'headrace[batch]'` shows a live display here" in text
    assert "1 row done" in text
    assert "\x1b" not in text


def test_ctrl_c_finishes_what_runs_and_the_same_command_goes_on(
    batch: Batch, terminal: Callable[..., Terminal]
) -> None:
    batch.write("in.jsonl", [openai_row(number, **SLOW) for number in range(1, 41)])

    shown = terminal("in.jsonl", "-o", "out.jsonl", "--concurrency", "2")
    batch.wait_for_results(2)
    shown.type(b"\x03")
    text = shown.read_to_the_end()

    assert shown.process.returncode == ExitCode.INTERRUPTED
    recorded = batch.ids()
    # All that was asked is recorded: nothing that ran was thrown away.
    assert sorted(recorded) == sorted(question.replace("Question", "row") for question in batch.asked())
    assert 2 <= len(recorded) < 40
    assert f"Interrupted: {len(recorded)} of 40 rows done, {40 - len(recorded)} left" in text
    assert "The same command goes on from here." in last_frame(text)

    done = batch.run("in.jsonl", "-o", "out.jsonl")
    assert done.returncode == ExitCode.OK
    assert sorted(batch.ids()) == sorted(f"row {number}" for number in range(1, 41))
    assert len(batch.asked()) == 40


def test_a_second_ctrl_c_stops_at_once(batch: Batch, terminal: Callable[..., Terminal]) -> None:
    batch.write("in.jsonl", [openai_row(1), openai_row(2, **HANGS)])

    shown = terminal("in.jsonl", "-o", "out.jsonl")
    batch.wait_for_results(1)
    shown.type(b"\x03")
    shown.read_until("Stopping: waits for 1 row that runs. Ctrl-C again stops at once")
    shown.type(b"\x03")
    text = shown.read_to_the_end()

    assert shown.process.returncode == ExitCode.INTERRUPTED
    assert "Interrupted: 1 of 2 rows done, 1 left" in text
    assert batch.ids() == ["row 1"]
    # The provider sees that its request was given up.
    batch.provider.wait_until(lambda requests: all(request.outcome != "open" for request in requests))


def test_a_killed_job_goes_on_and_asks_nothing_twice_whose_result_is_recorded(own_engine: Batch) -> None:
    batch = own_engine
    rows = [openai_row(number, first_token_delay=0.02) for number in range(1, 151)]
    batch.write("in.jsonl", rows)
    job = batch.start("in.jsonl", "-o", "out.jsonl", "--concurrency", "8")
    batch.wait_for_results(20)

    job.kill()
    job.wait()
    recorded = set(batch.ids_of_whole_lines())
    before = Counter(batch.asked())

    done = batch.run("in.jsonl", "-o", "out.jsonl")
    assert done.returncode == ExitCode.OK, done.stderr
    assert sorted(batch.ids()) == sorted(row["custom_id"] for row in rows)
    again = Counter(batch.asked()) - before
    assert 20 <= len(recorded) < 150
    assert {question.replace("Question", "row") for question in again} & recorded == set()


def test_sigterm_finishes_what_runs(batch: Batch) -> None:
    batch.write("in.jsonl", [openai_row(number, **SLOW) for number in range(1, 41)])
    job = batch.start("in.jsonl", "-o", "out.jsonl", "--concurrency", "2")
    batch.wait_for_results(2)

    job.send_signal(signal.SIGTERM)
    _, err = job.communicate()

    assert job.returncode == ExitCode.INTERRUPTED
    assert f"Interrupted: {len(batch.ids())} of 40 rows done" in err
    assert len(batch.ids()) == len(batch.asked()) < 40


def test_a_running_job_is_seen_from_outside_and_is_not_run_twice(batch: Batch) -> None:
    batch.write("in.jsonl", [openai_row(1), openai_row(2, **HANGS), openai_row(3, status=400), "no JSON"])
    job = batch.start("in.jsonl", "-o", "out.jsonl")
    batch.wait_for_results(1)
    batch.wait_for_results(2, "out.errors.jsonl")

    second = batch.run("in.jsonl", "-o", "out.jsonl")
    assert second.returncode == ExitCode.TRY_LATER
    assert f"process {job.pid}" in second.stderr

    for name in ("out.jsonl", "out.jsonl.job"):
        status = batch.run("status", name)
        assert status.returncode == ExitCode.OK, status.stderr
        assert re.match(rf"out\.jsonl: runs \(process {job.pid}\b", status.stdout)
        assert "3 of 4 rows ended, 75 %; 1 left" in status.stdout
        assert "1 row failed: bad_row\n  1 row failed: invalid_request" in status.stdout
    job.kill()
    job.communicate()

    found = json.loads(batch.run("status", "out.jsonl", "--json").stdout)
    assert (found["rows"], found["done"], found["failed"], found["waiting"]) == (4, 1, 2, 1)
    assert found["is_running"] is False
    assert "not running, rows are left" in batch.run("status", "out.jsonl").stdout


def at_provider(batch: Batch) -> list[BatchRecord]:
    """Return the batches that have not ended."""
    return [each for each in batch.provider.batches.all() if each.ending is None]


def test_a_job_at_the_provider_is_left_and_fetched_later(own_engine: Batch) -> None:
    batch = own_engine
    batch.provider.batches.pace(None)
    batch.write("in.jsonl", [openai_row(1), openai_row(2)])
    arguments = ("in.jsonl", "-o", "out.jsonl", "--via-provider")
    job = batch.start(*arguments)
    wait_until(lambda: "batch_" in batch.run("status", "out.jsonl").stdout, what="the batch in the status")

    job.send_signal(signal.SIGINT)
    _, err = job.communicate()
    assert job.returncode == ExitCode.INTERRUPTED
    assert "Interrupted: 0 of 2 rows done, 2 left" in err
    assert "2 rows stay with the provider: the same command fetches them." in err
    # Without the option the rows would be paid for twice.
    refused = batch.run("in.jsonl", "-o", "out.jsonl")
    assert refused.returncode == ExitCode.USAGE
    assert (
        "2 rows of this job are with the provider, in 1 batch: start the job with it (--via-provider)" in refused.stderr
    )
    anew = batch.run(*arguments, "--force")
    assert anew.returncode == ExitCode.USAGE
    assert "2 rows of this job are with the provider" in anew.stderr

    (sent,) = at_provider(batch)
    batch.provider.batches.end(sent.id, "completed")
    done = batch.run(*arguments)
    assert done.returncode == ExitCode.OK, done.stderr
    assert sorted(batch.ids()) == ["row 1", "row 2"]
    assert batch.provider.batches.all()[-1].id == sent.id


@long_test
def test_a_job_at_the_provider_is_cancelled_and_keeps_what_is_done(own_engine: Batch) -> None:
    batch = own_engine
    batch.provider.batches.pace(None)
    batch.write("in.jsonl", [openai_row(1), openai_row(2)])
    arguments = ("in.jsonl", "-o", "out.jsonl", "--via-provider")
    job = batch.start(*arguments)
    (sent,) = wait_until(lambda: at_provider(batch), what="a batch")
    batch.provider.batches.advance(1, batch_id=sent.id)
    job.kill()
    job.communicate()

    cancelling = batch.start("in.jsonl", "-o", "out.jsonl", "--cancel")
    wait_until(lambda: at_provider(batch)[0].state == "cancelling", what="a batch that is being cancelled")
    batch.provider.batches.advance(batch_id=sent.id)
    _, err = cancelling.communicate()
    assert cancelling.returncode == ExitCode.OK, err
    assert "Cancelled: 1 of 2 rows done, 1 left" in err
    assert len(batch.ids()) == 1
    rest = batch.run("in.jsonl", "-o", "out.jsonl")
    assert rest.returncode == ExitCode.OK, rest.stderr
    assert sorted(batch.ids()) == ["row 1", "row 2"]
