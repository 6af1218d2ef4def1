"""Runs schedules by their seeds, finds the first that breaks a promise, and says how to see it again."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import msgspec

from tests.simulation.admission_model import CheckedAdmission
from tests.simulation.edges import installed
from tests.simulation.guards import without
from tests.simulation.plans import Plan, draw_io_plan, draw_plan
from tests.simulation.schedule import Simulation
from tests.simulation.world import SimulationViolation

_COLLECT_EVERY = 100
_TRACE_LINES = 120
_BATCH = 250
"""Schedules that a process takes at a time."""

Draw = Callable[[int], Plan]
DRAWS: dict[bool, Draw] = {False: draw_plan, True: draw_io_plan}
"""What a seed stands for, by whether the client's I/O thread is hurt."""


class Finding(msgspec.Struct):
    """A schedule that breaks a promise."""

    seed: int
    what: str


class SearchReport(msgspec.Struct):
    """What many schedules came to."""

    seed: int
    schedules: int
    seconds: float
    finding: Finding | None = None

    def line(self) -> str:
        if self.finding is not None:
            return f"seed {self.finding.seed}, schedule {self.finding.seed - self.seed + 1}: {self.finding.what}"
        rate = self.schedules / max(self.seconds, 0.001) * 60
        return f"{self.schedules} schedules in {self.seconds:.0f} s ({rate:.0f} a minute), no promise broken"


@contextmanager
def simulating() -> Iterator[None]:
    """Put the simulated edges in place. Garbage is collected between schedules, when it costs least."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with installed({"headrace_engine.broker.broker.Admission": CheckedAdmission}):
            yield
    finally:
        if was_enabled:
            gc.enable()


def search(seeds: Iterable[int], *, hurts_io: bool = False) -> Finding | None:
    """Run the schedules of these seeds; return the first that breaks a promise."""
    for count, seed in enumerate(seeds, 1):
        finding = run_one(seed, hurts_io=hurts_io)
        if finding is not None:
            return finding
        if count % _COLLECT_EVERY == 0:
            gc.collect()
    return None


def search_in_parallel(
    seed: int,
    schedules: int,
    processes: int = 0,
    guard: str | None = None,
    told: Callable[[int], object] = lambda _: None,
    *,
    hurts_io: bool = False,
) -> SearchReport:
    """Run schedules in several processes, until the first in the order of seeds that breaks a promise.

    ``told`` is called now and then with how many are done.
    """
    starts = range(seed, seed + schedules, _BATCH)
    batches = [(start, min(start + _BATCH, seed + schedules)) for start in starts]
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(processes or os.cpu_count() or 1, len(batches))) as pool:
        for finding, (_, end) in zip(
            pool.imap(partial(_search_batch, guard=guard, hurts_io=hurts_io), batches), batches, strict=True
        ):
            told(end - seed)
            if finding is not None:
                return SearchReport(seed, schedules, time.monotonic() - started, finding)
    return SearchReport(seed, schedules, time.monotonic() - started)


def _search_batch(batch: tuple[int, int], guard: str | None, *, hurts_io: bool) -> Finding | None:
    with without(guard), simulating():
        return search(range(*batch), hurts_io=hurts_io)


def run_one(seed: int, *, hurts_io: bool = False) -> Finding | None:
    """Run one schedule."""
    try:
        Simulation(DRAWS[hurts_io](seed)).run()
    except (SimulationViolation, Exception) as error:  # noqa: BLE001 - whatever is raised, nobody expected it
        return Finding(seed, _describe(error))
    return None


def explain(seed: int, guard: str | None = None, *, hurts_io: bool = False) -> list[str]:
    """Run one schedule again, and tell what happened in it."""
    simulation = Simulation(DRAWS[hurts_io](seed), is_traced=True)
    what = "no promise is broken"
    try:
        simulation.run()
    except (SimulationViolation, Exception) as error:  # noqa: BLE001
        what = _describe(error)
    trace = simulation.world.trace or []
    command = (
        f"scripts/simulate --trace --seed {seed}"
        + (f" --guard {guard}" if guard else "")
        + (" --io-thread" if hurts_io else "")
    )
    return [
        f"seed {seed}: {what}",
        *simulation.plan.lines(),
        f"trace (the last {min(len(trace), _TRACE_LINES)} of {len(trace)} lines):",
        *trace[-_TRACE_LINES:],
        f"again: {command}",
    ]


def _describe(error: BaseException) -> str:
    return str(error) if isinstance(error, SimulationViolation) else f"{type(error).__name__}: {error}"
