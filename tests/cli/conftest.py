"""Shared by tests of commands: a data directory, a command in this process, and a directory for an engine's sockets."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from headrace.cli.main import main
from tests.cli.spans.span_rows import close_all


class Done(NamedTuple):
    """The result of a command: its exit code and its output."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def ids(self) -> list[str]:
        return [each["span_id"] for each in self.objects]


Run = Callable[..., Done]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data directory. The spans, settings and clock of this machine are not used."""
    for name in ("HEADRACE_DATA", "HEADRACE_CONFIG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    time.tzset()
    directory = tmp_path / "data"
    directory.mkdir()
    yield directory
    close_all()
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def spans(data: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run ``headrace spans`` on the test's data."""

    def run(command: str, *arguments: str) -> Done:
        capfd.readouterr()
        try:
            code = main(["spans", command, *arguments, "--data", str(data)])
        except SystemExit as error:  # argparse exits like this
            code = int(error.code or 0)
        return Done(code, *capfd.readouterr())

    return run


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for an engine's sockets."""
    made = Path(tempfile.mkdtemp(prefix="hr-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)
    made.with_name(f"{made.name}-target").unlink(missing_ok=True)  # some tests put a link to it into the directory
