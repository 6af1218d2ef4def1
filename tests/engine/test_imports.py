"""What the processes of an engine import: each module costs time at every start, and memory in each process."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = {"asyncio", "ssl", "sqlite3", "inspect", "typing_extensions", "shutil", "importlib.metadata", "httpx", "zmq"}


@pytest.mark.parametrize(
    ("modules", "needed"),
    [
        ("headrace_engine.supervisor.supervisor", set[str]()),
        ("headrace_engine.broker.broker, headrace_engine.broker.broker_limits", set[str]()),
        ("headrace_engine.spans.collector", {"sqlite3"}),
    ],
)
def test_a_process_of_the_engine_imports_nothing_heavy_that_it_does_not_need(modules: str, needed: set[str]) -> None:
    assert _imported(f"headrace_engine.__main__, {modules}") & _HEAVY == needed


def test_a_worker_imports_no_wire_format_before_a_run_needs_it() -> None:
    found = _imported("headrace_workers.__main__, headrace_workers.worker")

    assert found & (_HEAVY - {"asyncio", "ssl", "inspect", "shutil"}) == set()
    assert [name for name in found if name.startswith("headrace_workers.providers.") and name.endswith(".api")] == []


def _imported(modules: str) -> set[str]:
    code = f"import sys, {modules}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())
