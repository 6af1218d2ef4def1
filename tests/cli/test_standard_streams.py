"""Every command handles standard streams that are closed, full, left by their reader, or without UTF-8.

The commands are those of the parser; a new one is tested here without being named.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from headrace.cli.main import command_parser
from headrace.testing import SimulatedProvider
from tests.cli.spans.span_rows import Database, content, span
from tests.repetition import is_long

MODULES = ("headrace", "headrace.testing", "headrace_engine", "headrace_workers")
ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
C_LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
DATA_TEXT = "Größe → 水車 👋 é"
LATIN_1 = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}


def commands(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield every command and subcommand, beginning with the program without a command."""
    yield path
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from commands(below, (*path, name))


HELPS = [("headrace", *path, "--help") for path in commands(command_parser())]
HELPS += [(module, "--help") for module in MODULES[1:]] + [("headrace", "--version")]
LOST = {">&-": 141, "1</dev/null": 141, ">/dev/full": 1, "<&- >&- 2>&-": 141, ">/dev/full 2>&1": 1}
"""Ways to lose standard output, and the exit code for each."""
KEPT = ("<&- 2>&-", "2>/dev/full")
TOLD = {">&-": "Bad file descriptor", ">/dev/full": "No space left on device"}


def run(
    arguments: tuple[str, ...], redirection: str = "", encoding: str = "utf-8", **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a module with its arguments through a shell."""
    line = f'exec "$0" -m "$@" {redirection}'
    command = ["bash", "-c", line, sys.executable, *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding=encoding,
        timeout=60,
        check=False,
        env={**os.environ, **environ},
    )


def some_of(redirections: Sequence[str], number: int) -> Sequence[str]:
    """Return one of the cases, by the number; with `scripts/test --long`, all of them. Each case starts a program."""
    return redirections if is_long() else [redirections[number % len(redirections)]]


def assert_calm(done: subprocess.CompletedProcess[str]) -> None:
    for said in (done.stdout, done.stderr):
        assert "Traceback" not in said
        assert "Exception ignored" not in said
        assert "Error:" not in said


@pytest.mark.slow
@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_every_help_text_is_printed_or_its_loss_is_reported(arguments: tuple[str, ...]) -> None:
    for redirection in some_of([*TOLD, "<&- >&- 2>&-"], HELPS.index(arguments)):
        done = run(arguments, redirection)
        assert (done.returncode, done.stdout) == (LOST[redirection], "")
        if redirection in TOLD:
            assert done.stderr == f"headrace: the output cannot be written: {TOLD[redirection]}\n"


@pytest.mark.slow
@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_every_help_text_can_be_shown_on_an_ascii_terminal(arguments: tuple[str, ...]) -> None:
    done = run(arguments, **C_LOCALE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "\\u" not in done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a span that has text in several alphabets."""
    directory = tmp_path_factory.mktemp("spans")
    database = Database(directory)
    database.add(span(content=content(text=DATA_TEXT)))
    database.close()
    return directory


SHOWN = [
    ("spans", "list", "--json"),
    ("spans", "list", "--table"),
    ("spans", "show", "sp_"),
    ("spans", "show", "sp_", "--json"),
    ("spans", "stats"),
    ("spans", "stats", "--json"),
    ("spans", "export"),
    ("spans", "export", "--format", "csv"),
    ("status",),
    ("restart",),
    ("run", "Hi", "--model", "gpt-4o"),
    ("run", "Hi", "--model", "gpt-4o", "--no-stream", "--json"),
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", SHOWN, ids=" ".join)
def test_no_output_ends_in_a_traceback(
    arguments: tuple[str, ...], data: Path, directory: Path, provider: SimulatedProvider, tmp_path: Path
) -> None:
    # A run leaves a span of its own.
    environ = {"HEADRACE_DATA": str(tmp_path if arguments[0] == "run" else data), "XDG_RUNTIME_DIR": str(directory)}
    has_engine = arguments[0] not in ("status", "restart")
    number = SHOWN.index(arguments)
    for redirection in some_of(KEPT, number):
        done = run(("headrace", *arguments), redirection, **environ)
        assert_calm(done)
        assert done.returncode == (0 if has_engine else 3)
    for redirection in some_of(list(LOST), number):
        done = run(("headrace", *arguments), redirection, **environ)
        assert_calm(done)
        assert done.returncode == (LOST[redirection] if has_engine else 3), redirection


@pytest.mark.parametrize("environ", [ASCII, C_LOCALE, LATIN_1], ids=["ascii", "C", "latin-1"])
@pytest.mark.parametrize(
    "arguments", [("spans", "list", "--json"), ("spans", "show", "sp_", "--json"), ("spans", "export")], ids=" ".join
)
def test_json_says_the_same_in_every_encoding(arguments: tuple[str, ...], environ: dict[str, str], data: Path) -> None:
    done = run(("headrace", *arguments), **environ, HEADRACE_DATA=str(data))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["content"]["text"] == DATA_TEXT


@pytest.mark.parametrize("environ", [ASCII, C_LOCALE, LATIN_1], ids=["ascii", "C", "latin-1"])
def test_a_run_says_the_same_in_every_encoding(environ: dict[str, str], provider: SimulatedProvider) -> None:
    option = f"simulate={json.dumps({'chunks': [DATA_TEXT]})}"
    arguments = ("headrace", "run", "Hi", "--model", "gpt-4o", "--option", option)
    lines = [json.loads(line) for line in run((*arguments, "--json"), **environ).stdout.splitlines()]
    assert [line["text"] for line in lines if line["type"] == "text"] == [DATA_TEXT]
    assert lines[-1]["text"] == DATA_TEXT
    text = run(arguments, encoding="latin-1" if environ == LATIN_1 else "ascii", **environ)
    assert (text.returncode, "?" in text.stdout) == (0, False)
    assert json.loads(f'"{text.stdout.strip()}"') == DATA_TEXT, (
        "what the terminal has not is written as JSON escapes it"
    )


@pytest.mark.parametrize("arguments", SHOWN[:8], ids=" ".join)
def test_a_reader_that_has_gone_causes_no_error_text(arguments: tuple[str, ...], data: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "headrace", *arguments]
    environ = {**os.environ, "HEADRACE_DATA": str(data)}
    done = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False, env=environ
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("home", [{}, {"HOME": ""}, {"HOME": "/nonexistent"}], ids=["none", "empty", "no directory"])
@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["spans", "list"], ["status"]], ids=" ".join)
def test_a_user_without_home_and_name_gets_a_useful_error(
    arguments: list[str], home: dict[str, str], tmp_path: Path
) -> None:
    program = (
        "import pwd, sys\n"
        "def unknown(uid): raise KeyError(f'getpwuid(): uid not found: {uid}')\n"
        "pwd.getpwuid = unknown\n"
        "from headrace.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(tmp_path)} | home,
    )
    assert_calm(done)
    assert done.returncode in (0, 2, 3)
    assert done.stdout or done.stderr.startswith(("headrace: ", "no spans"))


def test_a_current_directory_that_is_gone_ends_in_no_traceback(tmp_path: Path) -> None:
    for arguments in ("spans list", "spans list --data here", "status", "run Hi --model none/such"):
        (tmp_path / "gone").mkdir()
        line = f'cd "{tmp_path}/gone" && rmdir ../gone && exec "{sys.executable}" -m headrace {arguments}'
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
        assert_calm(done)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "status --timeout inf",
            "argument --timeout: it is inf; it takes a number of seconds from 0.001 to 31_622_400",
        ),
        (
            "status --timeout nan",
            "argument --timeout: it is nan; it takes a number of seconds from 0.001 to 31_622_400",
        ),
        ("run Hi -m m --timeout -1", "argument --timeout: it is -1; it takes a number of seconds from 0.001 to"),
        ("serve --drain-timeout nan", "argument --drain-timeout: it is nan; it takes a number of seconds from 0 to"),
        ("serve --drain-timeout x", "argument --drain-timeout: 'x' is not a number"),
        ("serve --workers x", "argument --workers: takes a whole number from 0 to"),
        (
            "serve --directory '~nobody-here/x'",
            "headrace: --directory ~nobody-here/x: the home directory does not exist",
        ),
        ("run Hi -m m -o a=$(printf '[%.0s' {1..100000})", "argument --option/-o: a: the value is nested too deeply"),
        ("simulate --port 0 --host $'\\xff'", "headrace: host: takes text in UTF-8"),
        ("simulate --port 0 --text $'\\xff'", "headrace: text: takes text in UTF-8"),
        ("simulate --script <(printf '{\"server_steps\":%s' $(printf '[%.0s' {1..100000}))", "it is nested too deeply"),
        ("spans list --limit x", "argument --limit: takes a whole number from 0 to"),
        ("serve --workers 5000", "argument --workers: it is 5000; it takes a whole number from 0 to 1_024"),
        ("spans list --limit 99999999999999999999", "argument --limit: takes a whole number from 0 to"),
        ("spans list --grep $'\\xff'", "headrace: grep: takes text in UTF-8"),
        ("spans list --tag $'\\xff'", "headrace: tag: takes text in UTF-8"),
        ("status --engine $'ipc:///tmp/\\xff'", "has characters that cannot be printed"),
        ("run Hi -m gpt-4o --engine $'ipc:///tmp/a\\nb'", "has characters that cannot be printed"),
    ],
)
def test_an_invalid_argument_is_reported_on_one_line(line: str, said: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f'exec "{sys.executable}" -m headrace {line}'], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert said in done.stderr.decode()


def test_an_address_in_the_environment_that_is_not_text_is_reported() -> None:
    line = f"HEADRACE_ENGINE=$'ipc:///tmp/\\xff' exec '{sys.executable}' -m headrace run Hi -m gpt-4o"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert b"has characters that cannot be printed" in done.stderr
    assert b"Traceback" not in done.stderr
