"""What the tests share: a simulated provider in a process of its own, and a client with an embedded engine on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from headrace import Client
from headrace.testing import SimulatedProvider

ROOT = Path(__file__).resolve().parent.parent
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep settings of the machine out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_")) or name in (
                "HEADRACE_ENGINE",
                "HEADRACE_CONFIG",
            ):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def session_provider(_environment: None) -> Iterator[SimulatedProvider]:
    with SimulatedProvider(process=True) as simulated, pytest.MonkeyPatch.context() as patch:
        for name, value in simulated.environment.items():
            patch.setenv(name, value)
        yield simulated


@pytest.fixture
def provider(session_provider: SimulatedProvider) -> SimulatedProvider:
    session_provider.clear()
    return session_provider


@pytest.fixture(scope="session")
def client(session_provider: SimulatedProvider) -> Iterator[Client]:
    with Client() as shared:
        yield shared
    assert engine_processes(os.getpid()) == []


def simulate(**script: Any) -> dict[str, Any]:
    """Return ``custom_options`` that tell the simulated provider how to answer this run."""
    return {"simulate": script}


def engine_processes(parent: int) -> list[str]:
    """Return the command lines of the engine processes below ``parent``."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()]
    below = {parent}
    for _ in rows:
        below |= {int(pid) for pid, ppid, *_ in rows if int(ppid) in below}
    return [row[2] for row in rows if int(row[0]) in below and len(row) > 2 and "-m headrace_" in row[2]]


Eventually = Callable[[Callable[[], object]], None]
