"""Promises of what is told before an engine starts whose settings cannot be used.

Nothing hangs, nothing stays behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import Client
from tests.cli.forking import ForkingProgram
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

HOOKS = {
    "no_such_module_x:hook": "the import path has no module no_such_module_x",
    "no_such_module_x.inner:hook": "the import path has no module no_such_module_x",
    "json.no_such:hook": "json.no_such cannot be imported: ModuleNotFoundError: No module named 'json.no_such'",
    "json:no_such": "json has no function no_such",
    "json:__name__": "json has no function __name__",
    "asyncio:open_connection": "the function must not be async",
    "hooks_that_fail:hook": "hooks_that_fail cannot be imported: RuntimeError: not today",
    "hooks_that_exit:hook": "hooks_that_exit cannot be imported: SystemExit: 0",
}

FIGURES = {
    "--workers=-1": "--workers is -1; it takes a whole number from 0 to 1_024",
    "--workers=100000": "--workers is 100000; it takes a whole number from 0 to 1_024",
    "--drain-timeout=nan": "--drain-timeout is nan; it takes a number of seconds from 0 to 31_622_400",
    "--drain-timeout=-1": "--drain-timeout is -1; it takes a number of seconds from 0 to 31_622_400",
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hooks_that_fail.py").write_text('raise RuntimeError("not today")\n')
    (tmp_path / "hooks_that_exit.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    path = tmp_path / "headrace.toml"
    monkeypatch.setenv("HEADRACE_CONFIG", str(path))
    return path


PROGRAM = """
import json, os, sys
from pathlib import Path
from headrace import Client
from headrace.errors import ConfigurationError
from tests.conftest import HELLO, engine_processes

said = {}
for hook in json.load(sys.stdin):
    Path(os.environ["HEADRACE_CONFIG"]).write_text(f'[spans]\\nredact = "{hook}"\\n')
    try:
        with Client(connect_timeout=60) as client:
            client.run_local(model="gpt-4o", messages=HELLO, timeout_ms=60_000)
    except ConfigurationError as error:
        said[hook] = [str(error), engine_processes(os.getpid())]
json.dump(said, sys.stdout)
"""
"""A program of its own: an engine that the tests have already would be used, whatever the settings say by now."""


def test_a_hook_that_cannot_be_used_fails_the_first_run_with_file_and_key(config: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        input=json.dumps([*HOOKS]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said == {hook: [f"{config}: spans.redact is '{hook}': {words}", []] for hook, words in HOOKS.items()}


@pytest.mark.parametrize("hook", ["no_such_module_x:hook", "json:no_such"])
def test_a_service_with_such_a_hook_ends_before_it_says_where_it_is(hook: str, config: Path, tmp_path: Path) -> None:
    config.write_text(f'[spans]\nredact = "{hook}"\n')
    command = [sys.executable, "-m", "headrace", "serve", "--directory", str(tmp_path / "engine")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"headrace: {config}: spans.redact is '{hook}': ")
    assert done.stderr.count("\n") == 1


def test_a_hook_is_not_looked_for_where_no_spans_are_kept(config: Path) -> None:
    config.write_text('[spans]\nenabled = false\nredact = "no_such_module_x:hook"\n')
    Client().close()


def test_a_client_of_a_service_needs_not_the_services_hook(config: Path, tmp_path: Path) -> None:
    config.write_text('[spans]\nredact = "no_such_module_x:hook"\n')
    Client(f"ipc://{tmp_path}").close()


def test_an_engine_refuses_figures_of_its_command_line(tmp_path: Path) -> None:
    with ForkingProgram() as program:
        for option, said in FIGURES.items():
            done = program.run("headrace_engine", "--directory", str(tmp_path / "engine"), option)
            assert (done.returncode, done.stderr) == (2, f"headrace: {said}\n"), option
