"""Takes a sample of each process of an engine and its clients every second, and says whether anything grows."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tests.conftest import processes
from tests.faults.process_figures import MIB, Figures, figures, slope_per_minute

WARM_UP = 30.0
"""Seconds of a process's life that are left out."""
LEAST_LIFE = 30.0
"""Seconds of samples that a process needs at least, to be judged."""
LONG_LIFE = 180.0
"""Seconds of samples from which on the promised bound counts. Before, the growth in a minute is mostly chance."""
CACHES = {"collector": 12.0}
"""MiB that a process needs for caches of a bounded size. The collector has the cache of its databases."""
PROMISED_SLOPE = 1.0
SHORT_SLOPE = 5.0
MORE_DESCRIPTORS = 10
MORE_THREADS = 2


class Sample(msgspec.Struct, frozen=True):
    """One process at one moment."""

    at: float
    figures: Figures


class Series(msgspec.Struct, frozen=True):
    """One process from its warm-up to its end."""

    name: str
    pid: int
    samples: list[Sample]

    @property
    def life(self) -> float:
        """Seconds between the first and the last sample."""
        return self.samples[-1].at - self.samples[0].at if self.samples else 0.0

    @property
    def slope(self) -> float:
        """MiB that a minute adds to its memory."""
        return slope_per_minute([(each.at, each.figures.memory / MIB) for each in self.samples])

    @property
    def growth(self) -> float:
        """MiB that its whole life added at most."""
        return (max(each.figures.memory for each in self.samples) - self.samples[0].figures.memory) / MIB

    def median(self, figure: Callable[[Figures], int], third: int) -> float:
        """Return the median of a figure in the first, second or last third of its life."""
        size = max(len(self.samples) // 3, 1)
        return statistics.median(figure(each.figures) for each in self.samples[third * size : (third + 1) * size])

    def faults(self) -> list[str]:
        """Return what has grown that must not."""
        bound = PROMISED_SLOPE if self.life >= LONG_LIFE else SHORT_SLOPE
        found = []
        if self.slope >= bound and self.growth > CACHES.get(self.name, 0.0):
            found.append(f"{self.name}: memory grows by {self.slope:.2f} MiB a minute")
        for what, figure, more in (
            ("descriptors", _descriptors, MORE_DESCRIPTORS),
            ("threads", _threads, MORE_THREADS),
        ):
            first, last = self.median(figure, 0), self.median(figure, 2)
            if last > first + more:
                found.append(f"{self.name}: {what} grow from {first:g} to {last:g}")
        return found

    def line(self) -> list[str]:
        """Return its line of the table."""
        memory = [each.figures.memory / MIB for each in self.samples]
        descriptors = f"{self.median(_descriptors, 0):g} → {self.median(_descriptors, 2):g}"
        threads = f"{self.median(_threads, 0):g} → {self.median(_threads, 2):g}"
        return [
            self.name,
            str(self.pid),
            f"{self.life:.0f}",
            f"{memory[0]:.1f} → {memory[-1]:.1f}",
            f"{max(memory):.1f}",
            f"{self.slope:+.2f}",
            descriptors,
            threads,
        ]


HEAD = ["process", "pid", "seconds", "MiB", "most", "MiB/min", "descriptors", "threads"]


def _descriptors(seen: Figures) -> int:
    return seen.descriptors


def _threads(seen: Figures) -> int:
    return seen.threads


class GrowthWatch:
    """Samples, each second, until told to end."""

    def __init__(self, directory: Path, others: dict[str, int]) -> None:
        self._directory = str(directory)
        self._others = others
        self._samples: dict[tuple[str, int], list[Sample]] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self._thread.start()

    def end(self) -> list[Series]:
        """Stop; return the processes that lived for long enough, each without its warm-up."""
        self._is_over.set()
        self._thread.join()
        found = []
        for (name, pid), samples in self._samples.items():
            warm = [each for each in samples if each.at >= samples[0].at + WARM_UP]
            found.append(Series(name, pid, warm))
        return sorted((series for series in found if series.life >= LEAST_LIFE), key=lambda series: series.name)

    def pids(self) -> dict[str, int]:
        """Return the engine's processes now, by name."""
        return {_name(line): pid for pid, _, line in processes() if self._directory in line and "-m headrace_" in line}

    def _run(self) -> None:
        while not self._is_over.wait(1.0):
            now = time.monotonic()
            for name, pid in (self.pids() | self._others).items():
                try:
                    sample = Sample(now, figures(pid))
                except OSError:
                    continue  # it has ended meanwhile
                self._samples.setdefault((name, pid), []).append(sample)


def _name(line: str) -> str:
    """Return which process of an engine has this command line."""
    words = line.split()
    if "--name" in words:
        return words[words.index("--name") + 1]
    after = words[words.index("headrace_engine") + 1] if "headrace_engine" in words else "?"
    return "supervisor" if after.startswith("--") else after


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
