"""The benchmark of batch jobs: rows of a file asked of the simulated provider, by Headrace and by other tools in turn, in one run.

``python -m bench.batch_bench`` from the root of the repository, or ``scripts/bench --batch``. Each tool is a process of its own.
It reads a file in the form of OpenAI's Batch API, and writes one line for each row. It does this twice a round: with a few rows,
and with all. The difference is what the rows cost; starting and ending are shown beside it.

Counted is the CPU time of the whole process tree, with processes that outlive the program for a moment, but not the provider's.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import msgspec

from bench.batch_provider import TEXT
from bench.measure import children, peak_memory, process_cpu
from bench.table import print_rows

ROOT = Path(__file__).resolve().parent.parent
FEW = 64
"""Rows of the short job."""
_SLOW_PART = 10
"""A slow tool is given this part of the rows."""
_LOOK = 0.5
"""Seconds between two looks at the memory and the processes of a tool."""
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2): processes whose parent has ended become children of this one
_CURATOR = ROOT / ".venv-curator" / "bin" / "python"


class BatchTool(msgspec.Struct, frozen=True):
    """A tool: its module in ``bench/batch_tools``, or the command line of Headrace for an empty name."""

    module: str
    is_slow: bool = False
    python: str = sys.executable

    def command(self, source: Path, output: Path, concurrency: int) -> list[str]:
        """Return the command that runs a job."""
        if not self.module:
            return [self.python, "-m", "headrace", "batch", str(source), "-o", str(output)]
        return [self.python, "-m", f"bench.batch_tools.{self.module}", str(source), str(output), str(concurrency)]


TOOLS = {
    "headrace batch": BatchTool(""),
    "headrace, plain loop": BatchTool("headrace_loop"),
    "lm-deluge": BatchTool("lm_deluge_batch"),
    "openai SDK, semaphore": BatchTool("openai_sdk", is_slow=True),
    "curator": BatchTool("curator_batch", is_slow=True, python=str(_CURATOR)),
}


class JobFigures(msgspec.Struct, frozen=True):
    """What one job took: seconds, seconds of CPU (also by role), and the most memory of the program in MiB."""

    rows: int
    seconds: float
    cpu: float
    roles: dict[str, float]
    memory: float


class ToolFigures(msgspec.Struct, frozen=True):
    """What a row costs one tool in one round: the difference between its long and its short job."""

    long: JobFigures
    short: JobFigures

    @property
    def rate(self) -> float:
        """Rows a second."""
        return (self.long.rows - self.short.rows) / (self.long.seconds - self.short.seconds)

    @property
    def cpu_per_row(self) -> float:
        """Seconds of CPU."""
        return (self.long.cpu - self.short.cpu) / (self.long.rows - self.short.rows)

    def share(self, role: str) -> float:
        """Return the seconds of CPU a row of the processes with one role."""
        spent = self.long.roles.get(role, 0.0) - self.short.roles.get(role, 0.0)
        return spent / (self.long.rows - self.short.rows)


class ToolError(Exception):
    """A tool has failed, or its output is wrong."""


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m bench.batch_bench", description="The benchmark of batch jobs.")
    parser.add_argument("--rows", type=int, default=5000, help="rows of a job; slow tools get a tenth")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured; the median counts")
    parser.add_argument("--concurrency", type=int, default=128, help="calls at once of tools that must be told")
    parser.add_argument("--tools", default=";".join(TOOLS), help="which tools, by semicolons")
    arguments = parser.parse_args()
    tools = {name: tool for name, tool in TOOLS.items() if name in arguments.tools.split(";")}
    ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)
    found: dict[str, list[ToolFigures]] = {name: [] for name in tools}
    faults: dict[str, str] = {}
    with _provider() as (provider, port), tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        os.environ |= {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "sk-simulated"}
        os.environ |= {"HEADRACE_DATA": f"{folder}/spans", "TELEMETRY_ENABLED": "0", "HF_DATASETS_OFFLINE": "1"}
        for number in range(arguments.rounds):
            names = list(tools)
            for name in [*names[number % len(names) :], *names[: number % len(names)]]:
                if name in faults:
                    continue
                rows = arguments.rows // (_SLOW_PART if tools[name].is_slow else 1)
                print(f"\rround {number + 1}: {name}, {rows:,} rows{' ' * 20}", end="", file=sys.stderr, flush=True)
                try:
                    jobs = (
                        _job(tools[name], Path(folder), count, arguments.concurrency, provider) for count in (rows, FEW)
                    )
                    found[name].append(ToolFigures(*jobs))
                except ToolError as error:
                    faults[name] = str(error)
                _forget_requests(port)
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    _print(found, faults, arguments.rounds, arguments.concurrency)
    if faults:
        sys.exit(1)


def _job(tool: BatchTool, folder: Path, rows: int, concurrency: int, provider: int) -> JobFigures:
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    _write_rows(source, rows)
    _remove_outputs(folder)
    roles: dict[int, tuple[str, float]] = {}
    memory = 0.0
    before = _reaped_cpu()
    started = time.monotonic()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            tool.command(source, output, concurrency), stdout=subprocess.DEVNULL, stderr=errors, cwd=ROOT
        ) as process,
    ):
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK)
                break
            with contextlib.suppress(OSError):
                memory = max(memory, peak_memory(process.pid))
            found = process_cpu(os.getpid())  # a process whose parent has ended is a child of this one
            roles |= {pid: used for pid, used in found.items() if pid not in (os.getpid(), provider)}
        seconds = time.monotonic() - started
        errors.seek(0)
        last_words = errors.read().decode(errors="replace").strip().splitlines()[-2:]
    _reap(provider)
    if process.returncode:
        raise ToolError(f"exit code {process.returncode}: {' | '.join(last_words)}")
    if wrong := _wrong_rows(output, rows):
        raise ToolError(f"{wrong} of {rows} rows have no answer or a wrong one")
    by_role: dict[str, float] = {}
    for role, spent in roles.values():
        by_role[role] = by_role.get(role, 0.0) + spent
    return JobFigures(rows, seconds, _reaped_cpu() - before, by_role, memory)


def _write_rows(source: Path, rows: int) -> None:
    with source.open("wb") as lines:
        for number in range(rows):
            messages = [{"role": "user", "content": f"Count to five, for the {number}th time."}]
            body = {"model": "gpt-4o-mini", "messages": messages}
            row = {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            lines.write(msgspec.json.encode(row) + b"\n")


def _remove_outputs(folder: Path) -> None:
    for path in sorted(folder.glob("out.*"), key=lambda path: len(path.parts), reverse=True):
        if path.is_dir():
            for inner in path.iterdir():
                inner.unlink()
            path.rmdir()
        else:
            path.unlink()


def _wrong_rows(output: Path, rows: int) -> int:
    right = set()
    with output.open("rb") as lines:
        for line in lines:
            row = msgspec.json.decode(line)
            if "text" not in row:
                row["text"] = row["response"]["body"]["choices"][0]["message"]["content"]
            if row["text"].strip() == TEXT.strip():
                right.add(row["custom_id"])
    return rows - len(right)


def _reaped_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _reap(provider: int) -> None:
    """Wait for the processes that a tool has left, so that their time counts."""
    deadline = time.monotonic() + 20.0
    while left := [pid for pid in children(os.getpid()) if pid != provider]:
        for pid in left:
            os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            raise ToolError(f"processes go on after its end: {left}")
        time.sleep(0.01)


def _print(found: dict[str, list[ToolFigures]], faults: dict[str, str], rounds: int, concurrency: int) -> None:
    rows = []
    for name, figures in found.items():
        if not figures:
            continue
        cells = [f"{figures[0].long.rows:,}", f"{median(one.rate for one in figures):,.0f}"]
        cells.append(f"{median(one.cpu_per_row for one in figures) * 1e6:,.0f}")
        parts = (
            median(one.share(role) for one in figures) * 1e6 for role in ("client", "broker", "workers", "collector")
        )
        is_headrace = "headrace" in name
        cells.append(" + ".join(f"{part:.0f}" for part in parts) if is_headrace else "")
        cells.append(f"{median(one.short.cpu for one in figures):.1f} s")
        cells.append(f"{max(one.long.memory for one in figures):,.0f} MiB")
        rows.append([name, *cells])
    titles = [
        "",
        "rows",
        "rows/s",
        "CPU µs/row",
        "client + broker + workers + collector",
        f"CPU of {FEW} rows",
        "memory",
    ]
    print_rows(titles, rows)
    print(
        f"\nMedians of {rounds} rounds, tools in turn, {concurrency} calls at once where a tool must be told. CPU: the whole process "
        f"tree, without the provider. A row's cost is the difference to a job of {FEW} rows. Memory: peak of the program."
    )
    for name, fault in faults.items():
        print(f"{name}: {fault}")


@contextlib.contextmanager
def _provider() -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "bench.batch_provider"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())


def _forget_requests(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/_headrace/clear")
    connection.getresponse().read()
    connection.close()


if __name__ == "__main__":
    main()
