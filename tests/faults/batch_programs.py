"""Runs ``headrace batch`` as a process of its own, for tests that kill it and the engine's processes."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from headrace.testing import SimulatedProvider
from tests.conftest import ROOT, processes
from tests.leftovers import processes_with
from tests.waiting import busyness, wait_until


def write_rows(path: Path, count: int, script: dict[str, Any]) -> list[str]:
    """Write lines of OpenAI's Batch API. Return their ids, which their prompts name too."""
    ids = [f"row-{number:05}" for number in range(count)]
    path.write_text("".join(batch_line(name, script) for name in ids))
    return ids


def batch_line(name: str, script: dict[str, Any], **fields: Any) -> str:
    """Return a line of OpenAI's Batch API. ``fields``: further ones of its body."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": name}], "simulate": script} | fields
    line = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line) + "\n"


class BatchProgram:
    """A job that is started again and again. ``engine``: its address; None: each start has an engine of its own."""

    def __init__(self, folder: Path, provider: SimulatedProvider, engine: str | None, *options: str) -> None:
        self.input = folder / "in.jsonl"
        self.output = folder / "out.jsonl"
        self.errors = folder / "out.errors.jsonl"
        self._provider = provider
        # What a killed engine leaves. Its path is short, because paths of sockets are.
        self._temporary = Path(tempfile.mkdtemp(prefix="hr-"))
        self._environment = {
            **os.environ,
            **provider.environment,
            "HEADRACE_ENGINE": engine or "",
            "TMPDIR": str(self._temporary),
        }
        self._options = options
        self._said = folder / "stderr"
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: list[tuple[int, frozenset[str]]] = []
        """At some moments: how many requests the provider had, and which rows were recorded."""

    def start(self, largest_file: int | None = None) -> None:
        """Start the job, or start it again. ``largest_file``: bytes that a file of this process may have at most."""
        command = [sys.executable, "-m", "headrace", "batch", str(self.input), "-o", str(self.output), "--quiet"]
        with self._said.open("wb") as said:
            self._process = subprocess.Popen([*command, *self._options], cwd=ROOT, env=self._environment, stderr=said)
        if largest_file is not None:
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (largest_file, largest_file))

    @property
    def pid(self) -> int:
        """The process that runs the job now."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the job has not ended."""
        assert self._process is not None
        return self._process.poll() is None

    def lines(self) -> list[dict[str, Any]]:
        """Return the complete records of successes."""
        return _records(self.output)

    def failures(self) -> list[dict[str, Any]]:
        """Return the records of failures."""
        return _records(self.errors)

    def wait_for(self, count: int) -> None:
        """Wait until so many rows are recorded, or the job has ended."""
        assert self._process is not None
        process = self._process
        wait_until(
            lambda: process.poll() is not None or len(self.lines()) >= count, 60.0, f"{count} records", self.said
        )

    def note(self) -> None:
        """Note which rows are recorded now: they must not be sent any more."""
        recorded = frozenset(line["custom_id"] for line in self.lines())
        self._seen.append((len(self._provider.requests()), recorded))

    def kill(self) -> None:
        """Kill the job."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.note()

    def kill_everything(self) -> None:
        """Kill the job and all processes of its own engine at once."""
        assert self._process is not None
        known = list(processes())
        below = {self.pid}
        for _ in range(4):
            below |= {pid for pid, parent, _ in known if parent in below}
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self.note()

    def finish(self, timeout: float = 60.0) -> int:
        """Wait for the end of the job, and return its exit code."""
        assert self._process is not None
        self._process.wait(timeout * busyness())
        return self._process.returncode

    def said(self) -> str:
        """Return what the last start of the job has said."""
        return self._said.read_text()[-4000:]

    def end(self) -> None:
        """End the job, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        wait_until(lambda: not processes_with(str(self._temporary)), 20.0, "the end of the job's engine")
        shutil.rmtree(self._temporary)

    def faults_midway(self, rows: int) -> int:
        """Return at how many of the noted moments some of the rows were recorded, and some were not."""
        return sum(0 < len(recorded) < rows for _, recorded in self._seen)

    def sent_again(self) -> list[str]:
        """Return the rows that were sent after their record was seen."""
        prompts = [request.body["messages"][-1]["content"] for request in self._provider.requests()]
        return [name for count, recorded in self._seen for name in prompts[count:] if name in recorded]


def _records(path: Path) -> list[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError):
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]
    return []
