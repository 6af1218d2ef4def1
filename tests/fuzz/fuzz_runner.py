"""Runs one fuzz target for some seconds.

Counts inputs, and measures time and memory. Writes an input that fails to a file, so that it can be tried again.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.fuzz.targets import TARGETS, Target

MAX_SECONDS = 2.0
"""For one input, generously."""
MAX_GROWTH = 64 * 1024 * 1024
"""By which a process may grow while a target runs, once it is warm."""
_MEASURED = 97
"""Of so many inputs, one is run with its memory traced, which is several times slower."""
_WARM = 500
_PAGE = 4096


class FuzzError(Exception):
    """An input broke a promise; ``path`` holds it, ``python -m tests.fuzz --replay`` puts it in again."""

    def __init__(self, target: str, seed: int, number: int, path: Path, what: str) -> None:
        super().__init__(target, seed, number, path, what)
        self.path = path
        self.what = what

    def __str__(self) -> str:
        target, seed, number, path, what = self.args
        return f"{target}: input {number} of seed {seed} breaks a promise ({what}); kept in {path}"


class HangError(BaseException):
    """An input takes longer than it may. No Exception, so that nothing under test takes it for its own."""


class FuzzReport(msgspec.Struct):
    """What a target came to. ``peak`` is the most memory that one input took beyond its own size, of those measured."""

    target: str
    seed: int
    inputs: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    peak: int = 0
    growth: int = 0
    outcomes: Counter[str] = msgspec.field(default_factory=Counter)

    def lines(self) -> list[str]:
        rate = self.inputs / max(self.seconds, 0.001)
        head = (
            f"{self.target}: {self.inputs} inputs, {rate:.0f}/s, slowest {self.slowest * 1000:.0f} ms, "
            f"peak {self.peak / 2**20:.1f} MiB, growth {self.growth / 2**20:.1f} MiB"
        )
        return [head, *(f"  {count:8d}  {outcome}" for outcome, count in self.outcomes.most_common())]


def fuzz(
    target: Target[Any],
    seconds: float,
    seed: int,
    folder: Path,
    alarm: Callable[[float], object] = lambda _: None,
    least: int = 0,
) -> FuzzReport:
    """Run a target for so many seconds, and longer where it has not had ``least`` inputs by then.

    Raises FuzzError at the first input that breaks a promise.
    ``alarm`` is called with the seconds after which HangError is to be raised, and with 0 when that has been averted.
    """
    report = FuzzReport(target.name, seed)
    rng = random.Random(f"{target.name} {seed}")
    started = time.monotonic()
    resident = 0
    while time.monotonic() - started < seconds or report.inputs < least:
        entry = target.make(rng)
        is_measured = report.inputs % _MEASURED == _MEASURED - 1
        began = time.thread_time()
        try:
            alarm(MAX_SECONDS * 5)
            outcome = _measured(target, entry, report) if is_measured else target.check(entry)
            alarm(0)
        except (Exception, HangError) as error:
            alarm(0)
            path = _keep(folder, target, entry, report)
            raise FuzzError(target.name, seed, report.inputs, path, f"{type(error).__name__}: {error}"[:300]) from error
        took = time.thread_time() - began  # a hang that costs nothing is the alarm's
        if took > MAX_SECONDS and not is_measured:
            path = _keep(folder, target, entry, report)
            raise FuzzError(target.name, seed, report.inputs, path, f"took {took:.1f} s of CPU")
        if not is_measured:
            report.slowest = max(report.slowest, took)
        report.outcomes[outcome] += 1
        report.inputs += 1
        if report.inputs == _WARM:
            resident = _resident()
    report.seconds = time.monotonic() - started
    if resident:
        report.growth = _resident() - resident
        assert report.growth < MAX_GROWTH, f"{target.name} grew by {report.growth} bytes"
    return report


def replay(path: Path) -> str:
    """Put a kept input in again."""
    kept = msgspec.json.decode(path.read_bytes())
    target = TARGETS[kept["target"]]
    outcome: str = target.check(msgspec.convert(kept["input"], target.input_type))
    return outcome


def _measured(target: Target[Any], entry: msgspec.Struct, report: FuzzReport) -> str:
    size = len(msgspec.msgpack.encode(entry))
    tracemalloc.start(1)
    try:
        outcome: str = target.check(entry)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    report.peak = max(report.peak, peak - size)
    # Small objects for each event, of which an input may hold very many.
    assert peak < 2**20 + 100 * size, f"{peak} bytes for an input of {size}"
    return outcome


def _keep(folder: Path, target: Target[Any], entry: msgspec.Struct, report: FuzzReport) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target.name}-{report.seed}-{report.inputs}.json"
    path.write_bytes(msgspec.json.encode({"target": target.name, "input": entry}))
    return path


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
