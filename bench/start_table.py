"""How fast an embedded engine starts and what it uses while it is idle, as a table with targets: a part of ``scripts/bench``.

``bench/start.py`` measures it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bench.start import StartFigures, measure_start, medians
from bench.table import Rows


class StartTarget(msgspec.Struct, frozen=True):
    """The most that a figure may be."""

    title: str
    bound: float
    unit: str
    figure: Callable[[StartFigures], float]


START_TARGETS = [
    StartTarget("engine ready", 300, "ms", lambda one: one.ready * 1000),
    StartTarget("first chunk of a new program", 500, "ms", lambda one: one.first_chunk * 1000),
    StartTarget("memory of an idle engine (PSS)", 60, "MiB", lambda one: one.of_engine(one.memory)),
    StartTarget("an idle engine's CPU, of one core", 0.2, "%", lambda one: one.of_engine(one.processor)),
]


def measure_rounds(port: int, rounds: int, idle: float) -> StartFigures:
    """Start a program and its engine ``rounds`` times, and return the medians. In one more round before, nothing is measured.

    The memory, and the CPU of ``idle`` seconds, are those of the first round. ``port`` is that of the simulated provider. Raises
    StartError.
    """
    measure_start(port)  # it brings the files into the machine's memory
    first = measure_start(port, idle=idle)
    others = [measure_start(port) for _ in range(rounds - 1)]
    return msgspec.structs.replace(
        medians([first, *others]), memory=first.memory, processor=first.processor, wake_ups=first.wake_ups
    )


def start_rows(figures: StartFigures) -> Rows:
    """Return the table, titles first."""
    rows = [["an embedded engine with one worker", "target", "measured", "met"]]
    for target in START_TARGETS:
        value = target.figure(figures)
        digits = 2 if target.bound < 1 else 0
        is_met = "yes" if value <= target.bound else "no"
        rows.append([target.title, f"≤ {target.bound:g} {target.unit}", f"{value:.{digits}f} {target.unit}", is_met])
    return rows
