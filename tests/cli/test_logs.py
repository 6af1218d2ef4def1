"""``headrace logs`` shows the log of an engine, follows it, and says where a log is that it cannot show."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.cli.log_reader import LogReader
from headrace.cli.main import main
from headrace.connections.kept_logs import new_log, open_locked
from headrace.testing import SimulatedProvider
from tests.e2e.engines import running_engine
from tests.waiting import wait_until

NOW = 1_796_000_000.0
Show = Callable[..., tuple[int, str, str]]


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of logs."""
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("HEADRACE_ENGINE", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return tmp_path / "data" / "logs"


@pytest.fixture(autouse=True)
def _zone() -> Iterator[None]:
    yield
    time.tzset()


@pytest.fixture
def show(logs: Path, capfd: pytest.CaptureFixture[str]) -> Show:
    """Run ``headrace logs`` in this process."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["logs", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def ended_log(logs: Path, text: str, age: float = 0.0) -> Path:
    path = new_log(logs, NOW - age)
    os.close(open_locked(path))
    path.write_text(text)
    os.utime(path, (NOW - age, NOW - age))
    return path


def test_the_newest_log_is_shown_and_which_engine_it_is_of(show: Show, logs: Path) -> None:
    ended_log(logs, "of an older engine\n", age=60.0)
    path = ended_log(logs, "one\ntwo\n    a traceback\nthe last line, without an end")

    code, out, err = show()

    assert (code, out) == (0, "one\ntwo\n    a traceback\nthe last line, without an end\n")
    when = "2026-11-30 00:53:20"
    assert err == f"the engine of process {os.getpid()}, started {when}, which ended {when}: {path}\n"
    assert show("-n", "1")[1] == "    a traceback\nthe last line, without an end\n"
    assert show("--lines", "0")[1] == ""


def test_all_logs_are_listed_the_oldest_first(show: Show, logs: Path) -> None:
    first, second = ended_log(logs, "x" * 100, age=60.0), ended_log(logs, "y" * 2**21)
    descriptor = open_locked(second)

    code, out, _ = show("--list")
    os.close(descriptor)

    head, *rows = (line.split() for line in out.splitlines())
    assert (code, head) == (0, ["STARTED", "PROGRAM", "STATE", "SIZE", "FILE"])
    pid = str(os.getpid())
    assert rows == [
        ["2026-11-30", "00:52:20", pid, "ended", "2026-11-30", "00:52:20", "100", "B", str(first)],
        ["2026-11-30", "00:53:20", pid, "running", "2.0", "MiB", str(second)],
    ]


def test_a_log_may_be_chosen_by_the_program(show: Show, logs: Path) -> None:
    ended_log(logs, "mine\n")
    (logs / "engine-20990101T000000Z-1-abcdef.log").write_text("another's\n")

    assert show("--program", str(os.getpid()))[1] == "mine\n"
    assert show()[1] == "another's\n"


def test_what_a_log_holds_does_not_reach_the_terminal_as_a_command(show: Show, logs: Path) -> None:
    ended_log(logs, "\x1b[2J gone\r\n\x00\udc80".encode("utf-8", "surrogateescape").decode("latin-1"))

    assert show()[1].splitlines() == ["\\u001b[2J gone\\u000d", "\\u0000\\u0080"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 1, "there is no log of a program's own engine in "),
        (("--list",), 1, "there is no log of a program's own engine in "),
        (("--program", "17"), 1, "there is no log of an engine of process 17 in "),
        (("--engine", "nowhere"), 2, "engine address 'nowhere': takes ipc://"),
        (("--engine", "ipc:///nowhere/at/all"), 3, "no engine runs in /nowhere/at/all, and none has left a log there"),
        (("--engine", "ipc:///tmp"), 3, "no engine at ipc:///tmp: /tmp "),
    ],
)
def test_where_there_is_no_log_the_command_says_so(
    show: Show, arguments: tuple[str, ...], code: int, text: str
) -> None:
    found, out, err = show(*arguments)

    assert (found, out) == (code, "")
    assert text in err


@pytest.mark.parametrize("arguments", [("--lines", "-1"), ("--program", "x"), ("--list", "--program", "1")])
def test_wrong_usage_is_one_line(show: Show, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match="2"):
        show(*arguments)


def test_a_log_is_followed_until_its_engine_ends(show: Show, logs: Path) -> None:
    path = new_log(logs, NOW)
    descriptor = open_locked(path)
    os.write(descriptor, b"at the start\nhalf a ")

    def write() -> None:
        os.write(descriptor, b"line\n")
        threading.Event().wait(0.4)  # meanwhile the command looks, and finds an engine that runs
        os.write(descriptor, b"the last\n")
        os.close(descriptor)

    engine = threading.Timer(0.1, write)
    engine.start()

    assert show("--follow")[:2] == (0, "at the start\nhalf a line\nthe last\n")
    engine.join(60)


def test_a_log_that_is_cut_meanwhile_is_read_on_without_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(50)))
    with LogReader(path) as reader:
        assert len(list(reader.lines())) == 50
        path.write_text("".join(f"line {number}\n" for number in range(40, 52)))
        assert list(reader.lines()) == ["line 50", "line 51"]
        path.write_text("of another time\n")
        assert list(reader.lines()) == ["of another time"]


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_only_a_file_is_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    match kind:
        case "link":
            path.symlink_to(tmp_path / "secret")
        case "pipe":
            os.mkfifo(path)
        case _:
            path.mkdir()
    with pytest.raises(OSError, match=r"."):
        LogReader(path)


@pytest.mark.slow
def test_the_log_of_a_service_is_shown_if_it_is_a_file_and_named_if_not(
    provider: SimulatedProvider, tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_LOG", "INFO")
    to_file = ["sh", "-c", 'exec "$@" 2> "$0"', str(tmp_path / "service.log")]
    with running_engine(provider, "--workers", "1", wrapper=to_file) as address:
        code, out, _ = show("--engine", address)
        assert code == 0
        assert "engine starts" in out
        monkeypatch.setenv("HEADRACE_ENGINE", address)
        assert "engine starts" in show("--lines", "1000")[1]
    monkeypatch.delenv("HEADRACE_ENGINE")
    with running_engine(provider, "--workers", "1", wrapper=["sh", "-c", 'exec "$@" 2> /dev/null', "sh"]) as address:
        code, out, err = show("--engine", address)
        assert (code, out) == (1, "")
        assert "which is no file: /dev/null; if systemd runs it, use `journalctl _PID=" in err


PROGRAM = """
import sys
from headrace import Client
client = Client()
client.run_local(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
print(client.engine_log.read_text().count("worker serves"), flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_the_log_of_a_running_program_and_of_one_that_was_killed(
    provider: SimulatedProvider, show: Show, logs: Path
) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "1\n"
    assert " running " in show("--list")[1]

    program.kill()
    program.communicate()
    wait_until(lambda: " ended " in show("--list")[1], 20.0, "the end of the engine")

    code, out, err = show()
    assert (code, f"process {program.pid}, " in err) == (0, True)
    assert "engine ended exit_code=0" in out
