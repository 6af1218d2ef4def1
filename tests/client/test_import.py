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


@pytest.mark.parametrize("library", ["httpx", "uvloop", "httptools", "django"])
def test_the_import_leaves_out_what_the_client_does_not_need(imports: list[dict[str, Any]], library: str) -> None:
    assert not any(name.partition(".")[0] == library for seen in imports for name in seen["modules"])


@pytest.mark.parametrize(
    "module", ["headrace_workers.worker", "headrace_engine.broker.broker", "headrace_engine.spans.collector"]
)
def test_the_processes_of_an_engine_import_no_client(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(name for name in sys.modules if name.startswith('headrace.')))"
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60)

    assert not {"headrace.client", "headrace.streams", "headrace.arguments", "headrace.connections"} & {
        *seen.stdout.split()
    }
