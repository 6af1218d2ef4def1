"""docs/guarantees.md names the tests of each promise and fault.

``scripts/test`` tries each of them at least three times.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "guarantees.md"
LEAST = 3
ROW = re.compile(r"^\| ([GF]\d+) \|(.*)\|$", re.MULTILINE)
NAMED = re.compile(r"`((?:[a-z0-9_]+/)*test_[a-z_]+\.py)(?:::(\w+))?`")

COUNT = """
import sys
import pytest

class Count:
    def pytest_collection_finish(self, session):
        for item in session.items:
            is_left_out = any(mark.args[:1] == (True,) for mark in item.iter_markers("skipif"))
            tries = item.get_closest_marker("tries")
            print("TRIES", item.nodeid.split("[")[0], 0 if is_left_out else tries.args[0] if tries else 1)

sys.exit(pytest.main(["--collect-only", "-q", "-n0", *sys.argv[1:]], plugins=[Count()]))
"""


def named_tests() -> dict[str, list[tuple[str, str]]]:
    """Return the tests that each row of the page names: (file, function), the function empty for all of a file."""
    texts = dict(ROW.findall(PAGE.read_text()))
    return {row: NAMED.findall(texts["G1"] if "| as G1 |" in text else text) for row, text in texts.items()}


def tries_of(files: set[str]) -> Counter[tuple[str, str]]:
    """Return how often ``scripts/test`` tries what each test is about, by file and function, and for whole files."""
    environment = {name: value for name, value in os.environ.items() if name != "HEADRACE_FAULTS_LONG"}
    command = [sys.executable, "-c", COUNT, *(f"tests/{file}" for file in sorted(files))]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    tries: Counter[tuple[str, str]] = Counter()
    for path, function, count in re.findall(r"^TRIES tests/(\S+?)::(\S+) (\d+)$", done.stdout, re.MULTILINE):
        tries[path, function] += int(count)
        tries[path, ""] += int(count)
    return tries


def test_scripts_test_tries_each_promise_and_each_fault_at_least_three_times() -> None:
    rows = named_tests()
    tries = tries_of({file for named in rows.values() for file, _ in named})

    assert len(rows) > 45
    assert [
        f"{row}: {file}::{name}" for row, named in rows.items() for file, name in named if not tries[file, name]
    ] == []
    assert {
        row: [tries[test] for test in named]
        for row, named in rows.items()
        if sum(tries[test] for test in named) < LEAST
    } == {}
