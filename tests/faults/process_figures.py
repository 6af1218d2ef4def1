"""Reads memory, CPU time, descriptors and threads of a process from /proc. Linux only; never touches the process."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

MIB = 1024 * 1024


class Figures(msgspec.Struct, frozen=True):
    """A process at one moment; ``memory`` in bytes."""

    memory: int
    descriptors: int
    threads: int


def figures(pid: int) -> Figures:
    """Return what a process uses; raises OSError where it has ended."""
    descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    threads = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    return Figures(resident_bytes(pid), descriptors, threads)


def resident_bytes(pid: int) -> int:
    """Return the memory of a process, exactly: the figure in ``statm`` may be half a MiB behind."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")  # a zombie has no memory


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def slope_per_minute(samples: Sequence[tuple[float, float]]) -> float:
    """Return by how much a figure grows in a minute, by least squares; samples are (seconds, figure)."""
    return statistics.linear_regression(*zip(*samples, strict=True)).slope * 60


def percentile_99(values: Sequence[float]) -> float:
    """Return the value that 99 of 100 stay below."""
    return statistics.quantiles(values, n=100, method="inclusive")[98]
