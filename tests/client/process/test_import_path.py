"""Promises of where the processes that a program starts import from.

Where the program does, and never the current directory as such.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import headrace

OF_AN_ENGINE = """
import json, os, sys
{before}
from headrace.process.import_path import child_environment, engine_environment
print(json.dumps([engine_environment(os.environ, sys.path), child_environment(os.environ)]))
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    path = tmp_path / "here"
    path.mkdir()
    return path


def environments(here: Path, before: str = "", *, script: Path | None = None, **variables: str) -> list[dict[str, str]]:
    """Return the environments of an engine's process, and of a command's child, as a program in ``here`` makes them."""
    program = OF_AN_ENGINE.format(before=before)
    if script is not None:
        script.write_text(program)
    command = [sys.executable, *(["-c", program] if script is None else [str(script)])]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(command, cwd=here, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert all(one["PYTHONSAFEPATH"] == "1" for one in found)
    return found


def paths(environ: dict[str, str]) -> list[str]:
    return environ.get("PYTHONPATH", "").split(os.pathsep)


WRITTEN = "'', '.', os.getcwd(), os.path.join(os.getcwd(), '.'), '../here', '/proc/self/cwd', b'.', '../link'"
"""The current directory, as a program may have it in its path."""


def test_the_current_directory_is_left_out_in_every_spelling(here: Path) -> None:
    (here.parent / "link").symlink_to(here)
    engine, _ = environments(here, f"sys.path[:0] = [{WRITTEN}, {str(here.parent)!r}, 'below']")

    assert [path for path in paths(engine) if os.path.realpath(path) == str(here) or not path] == []
    assert {str(here.parent), str(here / "below")} <= {*paths(engine)}


@pytest.mark.parametrize("named", [".", "/nowhere:{here}/../here"])
def test_the_current_directory_stays_where_pythonpath_names_it(named: str, here: Path) -> None:
    for environ in environments(here, PYTHONPATH=named.format(here=here)):
        assert str(here) in {os.path.realpath(path) for path in paths(environ)}


@pytest.mark.parametrize("named", ["::", ":/nowhere"])
def test_an_empty_entry_is_left_out(named: str, here: Path) -> None:
    engine, child = environments(here, PYTHONPATH=named)

    assert str(here) not in {os.path.realpath(path) for path in [*paths(engine), *paths(child)] if path}
    assert "" not in paths(engine)
    assert child.get("PYTHONPATH", "/nowhere") == "/nowhere"


@pytest.mark.parametrize(
    ("named", "kept"), [(":/nowhere", "/nowhere"), ("/nowhere;;/else:", "/nowhere:/else"), (":", None), (".", ".")]
)
def test_an_empty_entry_is_left_out_for_the_loader_of_libraries_too(named: str, kept: str | None, here: Path) -> None:
    for environ in environments(here, LD_LIBRARY_PATH=named):
        assert environ.get("LD_LIBRARY_PATH") == kept


def test_a_relative_path_means_the_directory_of_the_start(here: Path) -> None:
    (here.parent / "cloned").mkdir()
    engine, _ = environments(here, "os.chdir('../cloned')", PYTHONPATH=".")

    assert str(here) in paths(engine)
    assert str(here.parent / "cloned") not in paths(engine)


AWAY = "import headrace; headrace.Client().close(); os.chdir('../cloned')"


def test_a_program_that_changes_its_directory_imports_from_neither(here: Path) -> None:
    (here.parent / "cloned").mkdir()
    (here.parent / "cloned" / "lib").mkdir()
    (here / "data").mkdir()
    before = f"sys.path[:0] = ['', {str(here)!r}, 'lib']; {AWAY}"
    engine, child = environments(here, before, HEADRACE_DATA="data")

    assert str(here / "lib") in paths(engine)
    assert not {str(here), str(here.parent / "cloned"), str(here.parent / "cloned" / "lib")} & {*paths(engine)}
    named, _ = environments(here, before, PYTHONPATH=".")
    assert str(here) in paths(named)
    assert str(here.parent / "cloned") not in paths(named)
    assert engine["HEADRACE_DATA"] == child["HEADRACE_DATA"] == str(here / "data")


@pytest.mark.parametrize("hook", ["my_hook:redact", "my_package.hooks:redact", "json:dumps"])
def test_a_scripts_directory_stays_only_for_the_hook_in_it(hook: str, here: Path) -> None:
    (here / "my_hook.py").touch()
    (here / "my_package").mkdir()
    (here.parent / "headrace.toml").write_text(f'[spans]\nredact = "{hook}"\n')
    engine, _ = environments(here, script=here / "program.py", HEADRACE_CONFIG=str(here.parent / "headrace.toml"))

    assert (str(here) in paths(engine)) == hook.startswith("my_")


def test_a_hook_of_the_found_file_keeps_no_directory(here: Path) -> None:
    (here / "my_hook.py").touch()
    (here / "headrace.toml").write_text('[spans]\nredact = "my_hook:redact"\n')
    engine, _ = environments(here, script=here / "program.py")

    assert str(here) not in paths(engine)


def test_a_scripts_directory_elsewhere_stays(here: Path) -> None:
    engine, _ = environments(here, script=here.parent / "program.py")

    assert str(here.parent) in paths(engine)


def test_the_directory_of_headrace_itself_stays(here: Path) -> None:
    """As where everything was installed with `pip install --target .`."""
    (here / "headrace").symlink_to(Path(headrace.__file__).parent)
    engine, _ = environments(here)

    assert str(here) in paths(engine)
