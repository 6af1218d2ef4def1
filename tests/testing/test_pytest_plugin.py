"""The fixtures ``headrace_provider`` and ``headrace_client``, in a project of their own, as users have them."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documentation import code_block
from tests.repetition import long_test

PLUGIN = "headrace.pytest_plugin"
_TESTS = """
import asyncio
import os

import pytest

from headrace import Client
from headrace.testing import Script

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("text", ["first", "second", "third"])
def test_each_test_has_its_own_provider(headrace_client, headrace_provider, text):
    headrace_provider.enqueue(Script(text=text))
    assert headrace_client.run_local(model="gpt-4o", messages=HELLO).text == text
    assert len(headrace_provider.requests()) == 1


def test_asyncio(headrace_client):
    async def main():
        return (await headrace_client.arun_local(model="claude-sonnet-5", messages=HELLO)).text

    assert asyncio.run(main())


def test_a_stream_is_left_running(headrace_client, headrace_provider):
    headrace_provider.enqueue(Script(repeat=1000, pace=0.1))
    next(iter(headrace_client.run_local(model="gpt-4o", messages=HELLO, stream=True)))


def test_a_client_is_closed(headrace_client):
    headrace_client.close()


def test_the_engine_is_still_the_first(headrace_client, engines):
    headrace_client.run_local(model="gpt-4o", messages=HELLO)
    assert len(set(engines)) == 1


def test_the_programs_own_client_goes_to_the_provider(headrace_provider):
    with Client() as client:
        client.run_local(model="gemini-3-pro", messages=HELLO)
    assert [record.model for record in headrace_provider.requests()] == ["gemini-3-pro"]


def test_the_environment_is_the_users_again():
    assert os.environ["OPENAI_API_KEY"] == "the-users"
    assert "ANTHROPIC_BASE_URL" not in os.environ
"""
_CONFTEST = """
import os
from pathlib import Path

import pytest

SEEN = []


def running():
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(stat[1]) == os.getpid() and b"headrace_engine" in line:
                yield entry.name


@pytest.fixture
def headrace_client(headrace_client):  # the user's own, made of Headrace's
    yield headrace_client
    SEEN.extend(running())


@pytest.fixture
def engines():
    yield SEEN
"""
_SETTINGS = """
[tool.pytest.ini_options]
filterwarnings = ["error"]
addopts = "-p no:cacheprovider"
"""


def run_pytest(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    """Run the tests of a user in ``folder``, and return what pytest prints."""
    (folder / "test_of_a_user.py").write_text(_TESTS)
    (folder / "test_of_the_guide.py").write_text(code_block("python", "docs/guides/testing.md", "pytest").text)
    (folder / "conftest.py").write_text(_CONFTEST)
    (folder / "pyproject.toml").write_text(_SETTINGS)
    monkeypatch.setenv("OPENAI_API_KEY", "the-users")
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    installed = {point.value for point in importlib.metadata.entry_points(group="pytest11")}
    loaded = [] if PLUGIN in installed else ["-p", PLUGIN]  # an installation of before the entry point
    command = [sys.executable, "-m", "pytest", "-q", "--basetemp", str(folder / "temporary"), *loaded, *options]
    return subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=300).stdout


def test_the_fixtures_serve_each_test_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run_pytest(tmp_path, monkeypatch)

    assert re.search(r"^10 passed in ", said, re.MULTILINE), said


@long_test
def test_the_fixtures_serve_several_test_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run_pytest(tmp_path, monkeypatch, "-n", "3")

    assert re.search(r"^10 passed in ", said, re.MULTILINE), said


def test_the_start_of_pytest_imports_only_the_light_part_of_headrace() -> None:
    program = f"import sys, pytest; before = set(sys.modules); import {PLUGIN}; print(*(set(sys.modules) - before))"
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    modules = set(seen.stdout.split())
    assert PLUGIN in modules
    assert not {name.partition(".")[0] for name in modules} & {"asyncio", "zmq", "httptools", "uvloop", "httpx", "ssl"}
    assert not {
        name for name in modules if name.startswith(("headrace.client", "headrace.testing", "headrace.arguments"))
    }


def test_pytest_finds_the_fixtures_by_an_entry_point() -> None:
    ((name, module),) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
        "pytest11"
    ].items()

    assert name == "headrace"
    assert {"headrace_provider", "headrace_client"} <= set(vars(importlib.import_module(module)))
