"""``python -m tests.mutation``.

Changes a pure module in one place at a time, runs its fast tests, and counts the changes that no test notices.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.util
import io
import os
import signal
import sys
import time
import tomllib
import types
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib.machinery import ModuleSpec
from pathlib import Path

import hypothesis  # noqa: F401 - imported once, for all children
import msgspec
import pytest

from tests.mutation.mutants import Mutant, mutants

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ("client", "engine", "workers")
FOLDERS = ("client", "engine", "workers", "wire", "cli", "testing")
"""Folders of tests that need no processes, except the files that use one of these fixtures."""
NEEDS_PROCESSES = ("provider: SimulatedProvider", "client: Client", "subprocess.", "running_engine")
TOLD_BY = {
    "headrace.runs.run_times": ["tests/client/runs/test_retries.py"],
    "headrace.runs.failed_attempts": ["tests/client/runs/test_retries.py"],
    "headrace.runs.attempt_messages": ["tests/client/runs/test_session.py", "tests/client/runs/test_retries.py"],
    "headrace_workers.runs.answer_reader": [
        "tests/workers/runs/test_provider_run.py",
        "tests/workers/providers/test_answer_forms.py",
        "tests/workers/runs/test_missing_ends.py",
    ],
    "headrace_workers.runs.run_commands": ["tests/workers/runs/test_provider_run.py"],
    "headrace_workers.runs.run_ending": ["tests/workers/runs/test_provider_run.py"],
    "headrace_workers.runs.run_summary": [
        "tests/workers/runs/test_provider_run.py",
        "tests/workers/spans/test_run_span.py",
    ],
    "headrace_workers.runs.answer_bounds": [
        "tests/workers/providers/test_answer_limits.py",
        "tests/workers/providers/test_costly_inputs.py",
    ],
}
"""Cores that tests reach through another one."""
_SLACK = 5.0
_SELECTION = {"stories": ("-k", "not Machine"), "random rules": ("-k", "Machine")}
"""Stages: what is quick comes first, and what lives through it meets Hypothesis's state machines."""
_QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # hypothesis is imported already, and that is the point


class MutantLoader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed tree."""

    def __init__(self, name: str, path: Path, mutant: Mutant) -> None:
        self._name, self._path, self._mutant = name, path, mutant

    def find_spec(self, fullname: str, _path: object, _target: object = None) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        is_package = self._path.name == "__init__.py"
        return importlib.util.spec_from_loader(fullname, self, origin=str(self._path), is_package=is_package)

    def exec_module(self, module: types.ModuleType) -> None:
        exec(compile(self._mutant.tree, str(self._path), "exec"), vars(module))


def cores() -> list[str]:
    """Return the modules of the purity contract, packages with all that is in them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [contract] = [each for each in settings["tool"]["importlinter"]["contracts"] if "pure cores" in each["name"]]
    return [*contract["source_modules"], "headrace.wire.codec"]


def file_of(module: str) -> Path:
    """Return a module's source."""
    relative = Path(*module.split("."))
    found = [ROOT / source / relative for source in SOURCES]
    files = [path.with_suffix(".py") for path in found] + [path / "__init__.py" for path in found]
    return next(path for path in files if path.is_file())


def tests_of(module: str) -> list[str]:
    """Return the test files that import a module and need no processes."""
    marks = (
        f"from {module} import",
        f"import {module}\n",
        f"{module.rpartition('.')[0]} import {module.rpartition('.')[2]}\n",
    )
    files = sorted(path for folder in FOLDERS for path in (ROOT / "tests" / folder).rglob("test_*.py"))
    found = []
    for path in files:
        text = path.read_text()
        if any(mark in text for mark in marks) and not any(need in text for need in NEEDS_PROCESSES):
            found.append(str(path.relative_to(ROOT)))
    return found + [path for path in TOLD_BY.get(module, []) if path not in found]


def run_tests(tests: Sequence[str], timeout: float, stage: str, finder: MutantLoader | None = None) -> bool:
    """Run one stage of the tests in a child; return whether they pass, or find nothing, in time."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(timeout) + 1)
        code = 1
        try:
            if finder is not None:
                sys.meta_path.insert(0, finder)
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                code = pytest.main(
                    [
                        "-x",
                        "-q",
                        "-p",
                        "no:cacheprovider",
                        "-p",
                        "no:xdist",
                        "--timeout=0",
                        "--assert=plain",  # pytest's own importer would come before that of the mutant
                        *_QUIET,
                        *_SELECTION[stage],
                        *tests,
                    ]
                )
        finally:
            os._exit(int(code))
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status) in {0, pytest.ExitCode.NO_TESTS_COLLECTED}


class Count(msgspec.Struct):
    """What became of a module's mutants."""

    killed: int = 0
    survived: int = 0


def examine(module: str, tests: Sequence[str], lines: range, stages: Sequence[str]) -> Count:
    """Run the tests on each mutant of a module; print the mutants that no test notices."""
    path, count = file_of(module), Count()
    began = time.monotonic()
    if not tests or not all(run_tests(tests, 120.0, stage) for stage in stages):
        print(f"{module}: no tests that pass: {' '.join(tests)}", flush=True)
        return count
    timeout = 4 * (time.monotonic() - began) + _SLACK
    print(f"{module}: {' '.join(tests)}", flush=True)
    for mutant in mutants(path.read_text()):
        if mutant.line not in lines:
            continue
        if all(run_tests(tests, timeout, stage, MutantLoader(module, path, mutant)) for stage in stages):
            count.survived += 1
            print(f"  {mutant}", flush=True)
        else:
            count.killed += 1
    print(f"{module}: {count.killed} killed, {count.survived} survived", flush=True)
    return count


def main() -> int:
    """Examine the modules of the command line."""
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("modules", nargs="*", help="such as headrace_engine.broker.lane; default: all pure cores")
    parser.add_argument("--tests", action="append", help="test files; default: those that import the module")
    parser.add_argument("--lines", default="1-99999", metavar="A-B", help="mutate these lines only")
    parser.add_argument("--quick", action="store_true", help="without the state machines")
    arguments = parser.parse_args()
    stages = list(_SELECTION)[:1] if arguments.quick else list(_SELECTION)
    first, last = map(int, arguments.lines.split("-"))
    for module in arguments.modules or cores():
        examine(module, arguments.tests or tests_of(module), range(first, last + 1), stages)
    return 0


if __name__ == "__main__":
    sys.exit(main())
