"""Measures how fast an embedded engine starts, and what it uses while it is idle: memory (PSS), processor time and wake-ups by process.

``python -m bench.start`` from the root of the repository. ``--beside CHECKOUT`` measures another version of Headrace in turn with
this one. Each round is a new program with a new engine; the median counts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec

from bench.measure import mark, used, wake_ups
from headrace.spans.reading.span_query import Filters
from headrace.spans.reading.stored_spans import opened

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import sys
import headrace
client = headrace.Client()
stream = client.run_local(stream=True, model="gpt-4o", messages=[{"role": "user", "content": "count"}])
for number, text in enumerate(stream):
    if number == 0:
        print(flush=True)
client.flush()
print(flush=True)
sys.stdin.readline()
client.close()
"""
"""Prints a line at the first chunk and one when its span is stored; then it is idle until a line comes."""
_LIMIT = 60.0
"""Seconds that a round may take beside its idle time."""
_SETTLED_AFTER = 2.0
"""Seconds after which an engine that has run once is idle."""


class StartFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One new program with an embedded engine of one worker. Times are in seconds."""

    ready: float
    """From the program's call until its run has a lease: the engine was started, and a worker is there."""
    first_chunk: float
    """From the start of the program's process to the first chunk in its hands."""
    memory: dict[str, float]
    """PSS by role when the engine is idle, in MiB. The program itself is ``client``."""
    processor: dict[str, float]
    """Processor time by role while the engine is idle, in percent of one core. Empty if there was no idle time."""
    wake_ups: dict[str, float]
    """How often the threads of a role woke up in a second while the engine was idle."""

    def of_engine(self, figures: Mapping[str, float]) -> float:
        """Return the sum over the engine's processes: without the program."""
        return sum(amount for role, amount in figures.items() if role != "client")


class StartError(Exception):
    """The program gave no figures."""


def measure_start(port: int, *, python: str = sys.executable, root: Path = ROOT, idle: float = 0.0) -> StartFigures:
    """Start a program and its engine, and return the figures. ``idle`` is how long the engine is watched while it is idle, in seconds.

    ``port`` is that of a simulated provider on this machine. Raises StartError.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as data, tempfile.TemporaryFile() as errors:
        provider = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "sk-simulated"}
        environ = os.environ | provider | {"HEADRACE_DATA": data, "HEADRACE_WORKERS": "1"}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode; a checkout writes it once
        began = time.monotonic()
        with subprocess.Popen(
            [python, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environ,
            cwd=root,
        ) as process:
            watchdog = threading.Timer(_LIMIT + idle, process.kill)
            watchdog.start()
            try:
                first_chunk = _next_line(process) - began
                _next_line(process)
                memory, processor, wakes = _idle_figures(process.pid, idle)
                process.communicate(b"\n")
            except (StartError, BrokenPipeError) as error:
                process.kill()
                errors.seek(0)
                last_words = errors.read().decode(errors="replace").strip().splitlines()[-3:]
                raise StartError(f"{error}; {' | '.join(last_words)}") from None
            finally:
                watchdog.cancel()
        return StartFigures(
            ready=_queue_seconds(Path(data)),
            first_chunk=first_chunk,
            memory=memory,
            processor=processor,
            wake_ups=wakes,
        )


def medians(rounds: Sequence[StartFigures]) -> StartFigures:
    """Return the median of each figure over several rounds."""

    def over(figures: Callable[[StartFigures], Mapping[str, float]]) -> dict[str, float]:
        return {role: median(figures(one).get(role, 0.0) for one in rounds) for role in figures(rounds[0])}

    return StartFigures(
        ready=median(one.ready for one in rounds),
        first_chunk=median(one.first_chunk for one in rounds),
        memory=over(lambda one: one.memory),
        processor=over(lambda one: one.processor),
        wake_ups=over(lambda one: one.wake_ups),
    )


def table(results: Mapping[str, StartFigures]) -> str:
    """Return the figures of several versions as a Markdown table."""
    lines = [
        "| | engine ready | first chunk of a program | engine PSS | engine CPU, idle | wake-ups/s |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in results.items():
        cells = [
            f"{one.ready * 1000:.0f} ms",
            f"{one.first_chunk * 1000:.0f} ms",
            f"{one.of_engine(one.memory):.1f} MiB",
            f"{one.of_engine(one.processor):.2f} %" if one.processor else "-",
            f"{one.of_engine(one.wake_ups):.1f}" if one.wake_ups else "-",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| | process | PSS MiB | CPU % | wake-ups/s |", "|---|---|---|---|---|"]
    for name, one in results.items():
        lines.extend(
            f"| {name} | {role} | {one.memory[role]:.1f} | {one.processor.get(role, 0.0):.3f} |"
            f" {one.wake_ups.get(role, 0.0):.1f} |"
            for role in sorted(one.memory)
        )
    return "\n".join(lines)


def _idle_figures(pid: int, idle: float) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    time.sleep(_SETTLED_AFTER if idle else 0.0)
    before, woken, at = mark(pid), wake_ups(pid), time.monotonic()
    if idle:
        time.sleep(idle)
    after, woken_after, took = mark(pid), wake_ups(pid), time.monotonic() - at
    memory = {role: kilobytes / 1024 for role, kilobytes in after.memory.items()}
    if not idle:
        return memory, {}, {}
    processor = {role: seconds / took * 100 for role, seconds in used(before.cpu, after.cpu).items()}
    return memory, processor, {role: count / took for role, count in used(woken, woken_after).items()}


def _next_line(process: subprocess.Popen[bytes]) -> float:
    assert process.stdout is not None
    if not process.stdout.readline():
        raise StartError("the program ended too early")
    return time.monotonic()


def _queue_seconds(data: Path) -> float:
    with opened(data, _unreadable, Filters()) as store:
        found = list(store.newest(Filters()))
    if len(found) != 1:
        raise StartError(f"{len(found)} spans are stored; one was expected")
    return found[0].span.queue_seconds


def _unreadable(text: str) -> None:
    raise StartError(text)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description="Start time and idle use of an engine.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each version is started; the median counts")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds of the first round to watch the idle engine")
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="measure the version in this checkout too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    arguments = parser.parse_args()
    versions = {"headrace": (sys.executable, ROOT)}
    if arguments.beside is not None:
        other = arguments.beside.resolve()
        versions[f"headrace of {other.name}"] = str(other / ".venv" / "bin" / "python"), other
    rounds: dict[str, list[StartFigures]] = {name: [] for name in versions}
    with _provider() as port:
        for number in range(arguments.rounds + 1):  # the first warms the machine's caches
            for name, (python, root) in versions.items():
                idle = arguments.idle if number == 1 else 0.0
                figures = measure_start(port, python=python, root=root, idle=idle)
                if number:
                    rounds[name].append(figures)
    results = {}
    for name, measured in rounds.items():
        first = measured[0]
        results[name] = msgspec.structs.replace(
            medians(measured), memory=first.memory, processor=first.processor, wake_ups=first.wake_ups
        )
    print(table(results))
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(rounds)))


@contextlib.contextmanager
def _provider() -> Iterator[int]:
    command = [sys.executable, "-m", "bench.stamping_provider"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


if __name__ == "__main__":
    main()
