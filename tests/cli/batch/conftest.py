"""Shared by the tests of ``headrace batch``: a simulated provider, an engine for all of them, and commands on it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.testing import Script, SimulatedProvider
from tests.cli.forking import ForkingProgram
from tests.cli.started_commands import Commands, ended, inherited
from tests.conftest import PatientProvider
from tests.waiting import wait_until

HEADRACE = str(Path(sys.prefix, "bin", "headrace"))

Row = dict[str, Any]


def openai_row(number: int, **simulated: object) -> Row:
    """Return a line for OpenAI's Batch API. ``simulated``: fields of the script that the provider answers it by."""
    body: Row = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"Question {number}"}]}
    if simulated:
        body["simulate"] = simulated
    return {"custom_id": f"row {number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


class Batch:
    """Runs ``headrace batch`` in a directory of its own."""

    def __init__(self, commands: Commands, provider: SimulatedProvider) -> None:
        self.commands = commands
        self.provider = provider
        self.directory = commands.directory

    def write(self, name: str, rows: Iterable[Row | str]) -> Path:
        """Write a file of JSON lines. A str is written as it is."""
        path = self.directory / name
        with path.open("w") as file:
            file.writelines(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
        return path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, in a fork of a program."""
        return self.commands.headrace("batch", *arguments)

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start the command as a process of its own."""
        return self.commands.start(HEADRACE, "batch", *arguments, stdin=stdin)

    def lines(self, name: str = "out.jsonl") -> list[Row]:
        """Return the lines of an output."""
        return [json.loads(line) for line in (self.directory / name).read_text().splitlines()]

    def ids(self, name: str = "out.jsonl") -> list[str]:
        """Return the ids of the lines of an output."""
        return [line["custom_id"] for line in self.lines(name)]

    def ids_of_whole_lines(self, name: str = "out.jsonl") -> list[str]:
        """Return the ids of the lines that were written to their end."""
        *lines, _ = (self.directory / name).read_bytes().split(b"\n")
        return [json.loads(line)["custom_id"] for line in lines]

    def asked(self) -> list[str]:
        """Return the last messages that the provider got."""
        return [request.body["messages"][-1]["content"] for request in self.provider.requests()]

    def wait_for_results(self, count: int, name: str = "out.jsonl") -> None:
        """Wait until an output has so many lines."""
        path = self.directory / name
        wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count, what=f"{count} results")


@pytest.fixture(scope="package")
def batch_provider() -> Iterator[SimulatedProvider]:
    with PatientProvider(Script(chunks=["An", " answer"]), process=True) as provider:
        yield provider


@pytest.fixture(scope="package")
def batch_program() -> Iterator[ForkingProgram]:
    with ForkingProgram(environ=inherited()) as program:
        yield program


@pytest.fixture
def make_batch(batch_provider: SimulatedProvider, batch_program: ForkingProgram) -> Iterator[Callable[[], Batch]]:
    """Makes commands with an engine of their own. pytest's directories are too long for sockets."""
    made: list[Commands] = []

    def make() -> Batch:
        commands = Commands(Path(tempfile.mkdtemp(prefix="hr-batch-")), batch_program)
        commands.environment |= batch_provider.environment
        made.append(commands)
        return Batch(commands, batch_provider)

    yield make
    left_over = [line for commands in made for line in commands.left_over()]
    for commands in made:
        commands.close()
    assert left_over == []


@pytest.fixture
def own_engine(make_batch: Callable[[], Batch], batch_provider: SimulatedProvider) -> Batch:
    """Commands whose jobs start an engine of their own."""
    batch_provider.recover()
    batch_provider.clear()
    return make_batch()


@pytest.fixture(scope="package")
def batch_address(batch_provider: SimulatedProvider, batch_program: ForkingProgram) -> Iterator[str]:
    """An engine that all tests share."""
    commands = Commands(Path(tempfile.mkdtemp(prefix="hr-batch-")), batch_program)
    commands.environment |= batch_provider.environment
    serving = commands.start(HEADRACE, "serve", "--workers", "1", "--drain-timeout", "0")
    assert serving.stdout is not None
    address = next(line for line in serving.stdout if "export HEADRACE_ENGINE=" in line).strip().partition("=")[2]
    yield address
    serving.terminate()
    ended(serving)
    commands.close()


@pytest.fixture
def batch(own_engine: Batch, batch_address: str) -> Batch:
    """Commands whose jobs use the shared engine."""
    own_engine.commands.environment["HEADRACE_ENGINE"] = batch_address
    return own_engine
