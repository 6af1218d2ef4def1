"""The scripts remove a virtual environment that they made, and no other."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A directory with odd letters in its name, and a script that makes its virtual environment anew."""
    repository = tmp_path / "re[p]o sitory"
    (repository / "scripts").mkdir(parents=True)
    shutil.copy(SCRIPTS / "environment", repository / "scripts")
    return repository


def run(repository: Path, *, is_phoenix: bool = False) -> subprocess.CompletedProcess[str]:
    script = "source scripts/environment; python() { :; }; find_python() { echo true; }; "
    script += 'venv="$root/.venv-phoenix"; begin' if is_phoenix else "begin"
    return subprocess.run(
        ["bash", "-euc", script], cwd=repository, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("name", [".venv", ".venv-phoenix"])
def test_a_virtual_environment_of_another_tool_stays(repository: Path, name: str) -> None:
    """`uv venv` makes environments without pip, which the scripts need."""
    venv = repository / name
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text("mine")

    done = run(repository, is_phoenix=name != ".venv")

    assert done.returncode == 1
    assert "move it elsewhere" in done.stderr
    assert (venv / "bin" / "python").read_text() == "mine"


@pytest.mark.parametrize("mark", [".headrace-test", ".headrace-begun", ".headrace"])
def test_a_virtual_environment_of_the_scripts_is_made_anew(repository: Path, mark: str) -> None:
    venv = repository / ".venv"
    venv.mkdir()
    (venv / mark).touch()
    (venv / "pyvenv.cfg").touch()

    assert run(repository).returncode == 0
    assert [path.name for path in venv.iterdir()] == [".headrace-begun"]


def test_a_link_is_removed_and_its_target_stays(repository: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".headrace-test").touch()
    (repository / ".venv").symlink_to(elsewhere)

    assert run(repository).returncode == 0
    assert (elsewhere / ".headrace-test").exists()


def test_no_script_removes_a_directory_otherwise() -> None:
    removals = {(path.name, line.strip()) for path in SCRIPTS.iterdir() for line in path.read_text().splitlines()}

    assert {(name, line) for name, line in removals if "rm -r" in line} == {
        ("environment", 'rm -rf "$venv"'),
        ("lock", "trap 'rm -rf \"$tools\"' EXIT"),
    }
