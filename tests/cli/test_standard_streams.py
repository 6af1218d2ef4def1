"""Every command handles standard streams that are closed, full, left by their reader, or without UTF-8.

The commands are those of the parser; a new one is tested here without being named.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from headrace.cli.main import command_parser
from headrace.testing import SimulatedProvider
from tests.cli.forking import ForkingProgram
from tests.cli.spans.span_rows import Database, content, span
from tests.e2e.engines import running_engine
from tests.repetition import is_long, only_long

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


class Runs(Protocol):
    """Runs a module with its arguments through a shell. ``encoding`` is one of the variables for it, above."""

    def __call__(
        self,
        *arguments: str,
        redirection: str = "",
        encoding: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        read_as: str = "utf-8",
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="module")
def run() -> Iterator[Runs]:
    """Each redirection and each encoding has a program of its own, which lasts as long as the module's tests."""
    started: dict[tuple[object, ...], ForkingProgram] = {}
    with ExitStack() as programs:

        def run_one(
            *arguments: str,
            redirection: str = "",
            encoding: Mapping[str, str] | None = None,
            environ: Mapping[str, str] | None = None,
            read_as: str = "utf-8",
        ) -> subprocess.CompletedProcess[str]:
            key = (redirection, *(encoding or {}).items())
            if key not in started:
                started[key] = programs.enter_context(ForkingProgram(redirection, {**os.environ, **(encoding or {})}))
            return started[key].run(*arguments, environ=environ, encoding=read_as)

        yield run_one


def some_of(redirections: Sequence[str], number: int) -> Sequence[str]:
    """Return one of the cases, by the number; with `scripts/test --long`, all of them."""
    return redirections if is_long() else [redirections[number % len(redirections)]]


def assert_calm(done: subprocess.CompletedProcess[str]) -> None:
    for said in (done.stdout, done.stderr):
        assert "Traceback" not in said
        assert "Exception ignored" not in said
        assert "Error:" not in said


@pytest.mark.slow
@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_every_help_text_is_printed_or_its_loss_is_reported(arguments: tuple[str, ...], run: Runs) -> None:
    for redirection in some_of([*TOLD, "<&- >&- 2>&-"], HELPS.index(arguments)):
        done = run(*arguments, redirection=redirection)
        assert (done.returncode, done.stdout) == (LOST[redirection], ""), redirection
        if redirection in TOLD:
            assert done.stderr == f"headrace: the output cannot be written: {TOLD[redirection]}\n"


@pytest.mark.slow
@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_every_help_text_can_be_shown_on_an_ascii_terminal(arguments: tuple[str, ...], run: Runs) -> None:
    done = run(*arguments, encoding=C_LOCALE)
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


@pytest.fixture(scope="module")
def engine(session_provider: SimulatedProvider) -> Iterator[str]:
    """The address of an engine that the module's tests share."""
    with running_engine(session_provider, "--workers", "1", "--drain-timeout", "0") as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("arguments", SHOWN, ids=" ".join)
def test_no_output_ends_in_a_traceback(
    arguments: tuple[str, ...], run: Runs, data: Path, directory: Path, engine: str
) -> None:
    environ = {"HEADRACE_DATA": str(data), "XDG_RUNTIME_DIR": str(directory)}
    if arguments[0] == "run":
        environ["HEADRACE_ENGINE"] = engine
    needs_engine = arguments[0] in ("status", "restart")
    number = SHOWN.index(arguments)
    for redirection in (*some_of(KEPT, number), *some_of(list(LOST), number)):
        done = run("headrace", *arguments, redirection=redirection, environ=environ)
        assert_calm(done)
        assert done.returncode == (3 if needs_engine else LOST.get(redirection, 0)), redirection


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["<&- 2>&-", "<&- >&- 2>&-", *only_long(*KEPT[1:], *TOLD, "1</dev/null")])
def test_a_run_whose_engine_inherits_lost_streams_ends_in_no_traceback(
    redirection: str, provider: SimulatedProvider, directory: Path, tmp_path: Path
) -> None:
    environ = {"HEADRACE_DATA": str(tmp_path), "XDG_RUNTIME_DIR": str(directory)}
    for arguments in SHOWN[-2:] if is_long() else SHOWN[-1:]:
        done = subprocess.run(
            ["bash", "-c", f'exec "$0" -m headrace "$@" {redirection}', sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **environ},
        )
        assert_calm(done)
        assert done.returncode == LOST.get(redirection, 0)
        assert len(provider.requests()) == 1
        provider.clear()


@pytest.mark.parametrize("encoding", [ASCII, C_LOCALE, LATIN_1], ids=["ascii", "C", "latin-1"])
@pytest.mark.parametrize(
    "arguments", [("spans", "list", "--json"), ("spans", "show", "sp_", "--json"), ("spans", "export")], ids=" ".join
)
def test_json_says_the_same_in_every_encoding(
    arguments: tuple[str, ...], encoding: dict[str, str], run: Runs, data: Path
) -> None:
    done = run("headrace", *arguments, encoding=encoding, environ={"HEADRACE_DATA": str(data)})
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["content"]["text"] == DATA_TEXT


@pytest.mark.parametrize("encoding", [ASCII, C_LOCALE, LATIN_1], ids=["ascii", "C", "latin-1"])
def test_a_run_says_the_same_in_every_encoding(encoding: dict[str, str], run: Runs, engine: str) -> None:
    option = f"simulate={json.dumps({'chunks': [DATA_TEXT]})}"
    arguments = ("headrace", "run", "Hi", "--model", "gpt-4o", "--option", option)
    environ = {"HEADRACE_ENGINE": engine}
    said = run(*arguments, "--json", encoding=encoding, environ=environ)
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert [line["text"] for line in lines if line["type"] == "text"] == [DATA_TEXT]
    assert lines[-1]["text"] == DATA_TEXT
    read_as = "latin-1" if encoding == LATIN_1 else "ascii"
    text = run(*arguments, encoding=encoding, environ=environ, read_as=read_as)
    assert (text.returncode, "?" in text.stdout) == (0, False)
    assert json.loads(f'"{text.stdout.strip()}"') == DATA_TEXT, (
        "what the terminal has not is written as JSON escapes it"
    )


def test_a_reader_that_has_gone_causes_no_error_text(data: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with ForkingProgram(stdout=write) as program:
        os.close(write)
        for arguments in SHOWN[:8]:
            done = program.run("headrace", *arguments, environ={"HEADRACE_DATA": str(data)})
            assert (done.returncode, done.stderr) == (141, ""), arguments


NAMELESS = """
import pwd
def unknown(uid): raise KeyError(f'getpwuid(): uid not found: {uid}')
pwd.getpwuid = unknown
"""


@pytest.mark.parametrize("home", [{}, {"HOME": ""}, {"HOME": "/nonexistent"}], ids=["none", "empty", "no directory"])
def test_a_user_without_home_and_name_gets_a_useful_error(home: dict[str, str], tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(tmp_path)} | home
    with ForkingProgram(environ=environ, before=NAMELESS) as program:
        for arguments in (["--help"], ["serve", "--help"], ["spans", "list"], ["status"]):
            done = program.run("headrace", *arguments)
            assert_calm(done)
            assert done.returncode in (0, 2, 3), arguments
            assert done.stdout or done.stderr.startswith(("headrace: ", "no spans")), arguments


def test_a_current_directory_that_is_gone_ends_in_no_traceback(tmp_path: Path) -> None:
    for arguments in ("spans list", "spans list --data here", "status", "run Hi --model none/such"):
        (tmp_path / "gone").mkdir()
        line = f'cd "{tmp_path}/gone" && rmdir ../gone && exec "{sys.executable}" -m headrace {arguments}'
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
        assert_calm(done)


NESTED = "[" * 100_000
RUN = ("run", "Hi", "--model", "gpt-4o")
SIMULATE = ("simulate", "--port", "0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("status", "--timeout", "inf"),
            "argument --timeout: it is inf; it takes a number of seconds from 0.001 to 31_622_400",
        ),
        (
            ("status", "--timeout", "nan"),
            "argument --timeout: it is nan; it takes a number of seconds from 0.001 to 31_622_400",
        ),
        ((*RUN, "--timeout", "-1"), "argument --timeout: it is -1; it takes a number of seconds from 0.001 to"),
        (
            ("serve", "--drain-timeout", "nan"),
            "argument --drain-timeout: it is nan; it takes a number of seconds from 0 to",
        ),
        (("serve", "--drain-timeout", "x"), "argument --drain-timeout: 'x' is not a number"),
        (("serve", "--workers", "x"), "argument --workers: takes a whole number from 0 to"),
        (
            ("serve", "--directory", "~nobody-here/x"),
            "headrace: --directory ~nobody-here/x: the home directory does not exist",
        ),
        ((*RUN, "-o", f"a={NESTED}"), "argument --option/-o: a: the value is nested too deeply"),
        ((*SIMULATE, "--host", "\udcff"), "headrace: host: takes text in UTF-8"),
        ((*SIMULATE, "--text", "\udcff"), "headrace: text: takes text in UTF-8"),
        ((*SIMULATE, "--script", "nested.json"), "it is nested too deeply"),
        (("spans", "list", "--limit", "x"), "argument --limit: takes a whole number from 0 to"),
        (("serve", "--workers", "5000"), "argument --workers: it is 5000; it takes a whole number from 0 to 1_024"),
        (("spans", "list", "--limit", "99999999999999999999"), "argument --limit: takes a whole number from 0 to"),
        (("spans", "list", "--grep", "\udcff"), "headrace: grep: takes text in UTF-8"),
        (("spans", "list", "--tag", "\udcff"), "headrace: tag: takes text in UTF-8"),
        (("status", "--engine", "ipc:///tmp/\udcff"), "has characters that cannot be printed"),
        ((*RUN, "--engine", "ipc:///tmp/a\nb"), "has characters that cannot be printed"),
    ],
)
def test_an_invalid_argument_is_reported_on_one_line(
    arguments: tuple[str, ...], said: str, run: Runs, tmp_path: Path
) -> None:
    """A byte that is no UTF-8 is a lone surrogate in an argument: U+DCFF is 0xFF."""
    (tmp_path / "nested.json").write_text(f'{{"server_steps":{NESTED}')
    script = str(tmp_path / "nested.json")
    done = run("headrace", *(script if argument == "nested.json" else argument for argument in arguments))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert said in done.stderr


def test_an_address_in_the_environment_that_is_not_text_is_reported(run: Runs) -> None:
    done = run("headrace", *RUN, environ={"HEADRACE_ENGINE": "ipc:///tmp/\udcff"})
    assert done.returncode == 2
    assert "has characters that cannot be printed" in done.stderr
    assert "Traceback" not in done.stderr
