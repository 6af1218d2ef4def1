"""The result of a contestant's round, and what several rounds say together: medians, spread, ratios to the floor. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import msgspec

from bench.works import Reading

FLOOR = "floor"


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """One contestant's round of one work.

    CPU in seconds and memory in KB are by role. ``fault`` says why there is no reading. ``number`` is that of the round, from 0.
    ``provider_cpu`` is what the provider used meanwhile, in seconds: it is no part of the contestant's CPU.
    """

    contestant: str
    work: str
    cpu: dict[str, float] = {}
    memory: dict[str, float] = {}
    reading: Reading | None = None
    fault: str = ""
    number: int = 0
    provider_cpu: float = 0.0

    def total_cpu(self) -> float:
        """Return the whole tree's CPU per chunk, so that works that were given up compare."""
        return self.cpu_of(None)

    def cpu_of(self, role: str | None) -> float:
        """Return the CPU per chunk of the processes with this role; ``None``: of the whole tree."""
        seconds = sum(self.cpu.values()) if role is None else self.cpu.get(role, 0.0)
        return seconds / max(self.reading.chunks if self.reading else 0, 1)

    def total_memory(self) -> float:
        """Return the whole tree's growth in KB per answer held."""
        return sum(self.memory.values()) / max(self.reading.held if self.reading else 0, 1)


class Spread(msgspec.Struct, frozen=True):
    """A figure of several rounds: the median, the smallest and the largest."""

    middle: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(median(values), min(values), max(values))


class Summary(msgspec.Struct, frozen=True):
    """All rounds of a contestant in one work.

    ``rounds`` are those with a reading. ``ratios`` has the CPU of each of them as a multiple of the floor's in the same round, as far
    as the floor has a reading there. ``fault`` is the first fault, or empty.
    """

    contestant: str
    work: str
    rounds: list[Result]
    ratios: list[float]
    fault: str = ""

    @property
    def faults(self) -> int:
        """How many answers were wrong."""
        return sum(result.reading.faults for result in self.rounds if result.reading)

    def over_rounds(self, figure: Callable[[Result], float]) -> Spread:
        """Return the spread of a figure of each round."""
        return spread([figure(result) for result in self.rounds])

    def of_readings(self, figure: Callable[[Reading], float]) -> Spread:
        """Return the spread of a figure of each round's reading."""
        return spread([figure(result.reading) for result in self.rounds if result.reading])

    def micro(self, role: str | None = None) -> float:
        """Return the median CPU per chunk in microseconds, of the processes with this role or of all."""
        return self.over_rounds(lambda result: result.cpu_of(role)).middle * 1e6

    def roles(self) -> list[str]:
        """Return the roles of its processes."""
        return sorted({role for result in self.rounds for role in result.cpu})

    def curve(self) -> list[float]:
        """Return the median latency at each of ``CURVE_SHARES`` in milliseconds; an empty list if it was not measured."""
        curves = [result.reading.latency_curve for result in self.rounds if result.reading]
        return [median(values) for values in zip(*curves, strict=True)] if curves and all(curves) else []


Summaries = dict[tuple[str, str], Summary]
"""By contestant and work."""


def summaries(results: Sequence[Result]) -> Summaries:
    """Return the summary of each contestant and work that has a result. If no round has a reading, its ``rounds`` are empty."""
    floors = {
        (result.work, result.number): result.total_cpu()
        for result in results
        if result.contestant == FLOOR and result.reading is not None
    }
    found: Summaries = {}
    for key in dict.fromkeys((result.contestant, result.work) for result in results):
        rounds = [result for result in results if (result.contestant, result.work) == key]
        good = [result for result in rounds if result.reading is not None]
        ratios = [
            result.total_cpu() / floor
            for result in good
            if (floor := floors.get((result.work, result.number))) is not None and floor > 0
        ]
        faults = [fault for result in rounds if (fault := _fault(result))]
        found[key] = Summary(*key, good, ratios, faults[0] if faults else "")
    return found


def _fault(result: Result) -> str:
    return result.fault or (result.reading.fault if result.reading else "")
