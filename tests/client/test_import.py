"""What ``from headrace import Client`` costs: little time, and neither thread, socket nor the libraries of the worker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_PROGRAM = """
import json, os, sys, time

def open_files():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink("/proc/self/fd/" + name)
        except FileNotFoundError:  # that of the listing itself
            pass
    return found

modules, files = set(sys.modules), open_files()
started = time.process_time()
from headrace import Client, LocalStream
seconds = time.process_time() - started
print(json.dumps({
    "seconds": seconds,
    "modules": sorted(set(sys.modules) - modules),
    "threads": len(os.listdir("/proc/self/task")),
    "opened": [target for name, target in open_files().items() if name not in files],
}))
"""


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what each of five fresh interpreters saw."""
    folder: Path = tmp_path_factory.mktemp("import")
    program = [sys.executable, "-c", _PROGRAM]
    return [
        json.loads(subprocess.run(program, cwd=folder, capture_output=True, check=True, timeout=60).stdout)
        for _ in range(5)
    ]


def test_the_import_takes_less_than_150_ms_of_a_processor(imports: list[dict[str, Any]]) -> None:
    least = min(seen["seconds"] for seen in imports)
    print(f"{least * 1000:.0f} ms")
    assert least < 0.150


def test_the_import_starts_no_thread(imports: list[dict[str, Any]]) -> None:
    assert {seen["threads"] for seen in imports} == {1}


def test_the_import_opens_no_socket_and_keeps_no_file_open(imports: list[dict[str, Any]]) -> None:
    assert [seen["opened"] for seen in imports] == [[]] * len(imports)


@pytest.mark.parametrize("library", ["httpx", "uvloop", "httptools", "django", "zmq"])
def test_the_import_leaves_out_what_the_client_does_not_need(imports: list[dict[str, Any]], library: str) -> None:
    assert not any(name.partition(".")[0] == library for seen in imports for name in seen["modules"])


CLIENT = ("headrace.client", "headrace.streams", "headrace.arguments", "headrace.connections")
SLOW_TO_IMPORT = ("importlib.metadata", "urllib.request", "http.client", "email", "tempfile", "zipfile")
"""Modules that take 10 ms of CPU or more at the start of a process, and that no process of an engine needs there."""


@pytest.mark.parametrize(
    ("module", "needs_asyncio"),
    [
        ("headrace_workers.worker", True),
        ("headrace_engine.broker.broker", False),
        ("headrace_engine.spans.collector", False),
        ("headrace_engine.supervisor.supervisor", False),
    ],
)
def test_the_processes_of_an_engine_import_no_client_and_nothing_slow(module: str, needs_asyncio: bool) -> None:
    program = f"import sys, {module.partition('.')[0]}.__main__, {module}; print(*sys.modules)"
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60)

    unwanted = {*CLIENT, *SLOW_TO_IMPORT, "zmq", *(() if needs_asyncio else ("asyncio", "ssl"))}
    assert not unwanted & {*seen.stdout.split()}


def test_a_program_ends_well_under_an_allocator_that_checks_all_memory() -> None:
    program = "from headrace import *; import headrace.connections.client_process"
    command = [sys.executable, "-X", "dev", "-c", program]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stderr) == (0, "")
