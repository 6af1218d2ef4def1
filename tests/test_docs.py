"""What the documentation names exists: tests, and recordings where they are at hand."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from headrace.provider_table import BUILT_IN
from tests.conftest import ROOT
from tests.workers import corpus

PROVIDERS = (ROOT / "docs" / "providers.md").read_text()
TEST = re.compile(r"`(?:(?P<file>[\w/]+\.py)::)?(?P<name>test_\w+)`")
RECORDING = re.compile(r"`((?:openai-chat|openai-responses|anthropic-messages|google-generate)--[\w-]+)`")
FOUR = ("OpenAI Chat", "OpenAI Responses", "Anthropic", "Google")


@cache
def names_in(path: Path) -> set[str]:
    """Return the tests that a file defines."""
    functions = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in functions if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def table_rows(heading: str) -> list[list[str]]:
    """Return the cells of the rows below a heading's table head."""
    section = PROVIDERS.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("named", sorted({match[0] for match in TEST.finditer(PROVIDERS)}))
def test_a_test_that_the_documentation_names_exists(named: str) -> None:
    match = TEST.fullmatch(named)
    assert match is not None
    # Without a file it stands in the table of compatible servers, whose head names the file; without a folder in e2e.
    file = match["file"] or "tests/workers/test_openai_chat.py"
    path = ROOT / file if "/" in file else ROOT / "tests" / "e2e" / file

    assert match["name"] in names_in(path)


def test_each_feature_says_something_of_each_provider_and_names_a_test() -> None:
    rows = table_rows("What each provider gives")

    assert len(rows) > 20
    for row in rows:
        assert len(row) == 1 + len(FOUR) + 1
        assert all(row), row
        assert TEST.search(row[-1]), row


def test_each_compatible_server_has_its_row() -> None:
    listed = [row[0].strip("`") for row in table_rows("Compatible servers")]

    assert listed == sorted(set(BUILT_IN) - {"openai", "openai-responses", "anthropic", "google"})


@corpus.needs_recordings
def test_recordings_that_the_documentation_names_exist() -> None:
    known = set(corpus.case_names("openai.chat"))

    assert set(RECORDING.findall(PROVIDERS)) - known == set()


def test_each_promise_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    named = re.findall(r"`(\w+/\w+\.py)(?:::(test_\w+))?`", text)

    assert len(named) > 40
    for file, name in named:
        path = ROOT / "tests" / file
        assert path.exists(), file
        assert not name or name in names_in(path), f"{file}::{name}"
