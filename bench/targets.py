"""What Headrace aims at in the benchmark, and in how many rounds it is met. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from bench.summary import FLOOR, Result
from bench.works import Reading

HEADRACE = "headrace"
THREADS = "headrace, threads"
_WORD = {"ratio": "{:.2f}", "ms": "{:.1f}", "KB": "{:.1f}", "streams": "{:.0f}"}
_TITLES = {"ratio": "times the floor", "ms": "ms", "KB": "KB per stream", "streams": "streams"}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A bound on a figure of one contestant in one work.

    ``figure`` takes the contestant's round and the floor's round with the same number. ``unit``: ``ratio``, ``ms``, ``KB`` or
    ``streams``. ``is_least``: the bound is the least that is wanted, not the most.
    """

    title: str
    work: str
    bound: float
    figure: Callable[[Result, Result], float]
    unit: str = "ratio"
    contestant: str = HEADRACE
    is_least: bool = False

    @property
    def wanted(self) -> str:
        """The bound in words."""
        return f"{'≥' if self.is_least else '≤'} {self.bound:g} {_TITLES[self.unit]}"

    def is_met(self, value: float) -> bool:
        """Return whether a round with this figure is good enough."""
        return value >= self.bound if self.is_least else value <= self.bound

    def word(self, value: float) -> str:
        """Return a round's figure as text."""
        return _WORD[self.unit].format(value)


def _ratio(result: Result, floor: Result) -> float:
    return result.total_cpu() / floor.total_cpu()


def _of_reading(figure: Callable[[Reading], float]) -> Callable[[Result, Result], float]:
    def of_round(result: Result, _: Result) -> float:
        assert result.reading is not None
        return figure(result.reading)

    return of_round


def _added_first(place: int) -> Callable[[Result, Result], float]:
    def of_round(result: Result, floor: Result) -> float:
        assert result.reading is not None
        assert floor.reading is not None
        return result.reading.first[place] - floor.reading.first[place]

    return of_round


TARGETS = [
    Target(title="W1", work="W1", bound=1.5, figure=_ratio),
    Target(title="W1b", work="W1b", bound=2.2, figure=_ratio),
    Target(title="W2", work="W2", bound=1.8, figure=_ratio),
    Target(
        title="W2 held",
        work="W2",
        bound=500,
        figure=_of_reading(lambda reading: reading.held),
        unit="streams",
        is_least=True,
    ),
    Target(
        title="W2 latency p99",
        work="W2",
        bound=5,
        figure=_of_reading(lambda reading: reading.latency[1]),
        unit="ms",
    ),
    Target(title="W2M", work="W2M", bound=2.4, figure=_ratio),
    Target(title="W2L", work="W2L", bound=3, figure=_ratio),
    Target(title="W3", work="W3", bound=5, figure=_ratio),
    Target(title="W4", work="W4", bound=12, figure=lambda result, _: result.total_memory(), unit="KB"),
    Target(title="W2 in 500 threads", work="W2", bound=3, figure=_ratio, contestant=THREADS),
    Target(title="time to first chunk added in W2L, p50", work="W2L", bound=1, figure=_added_first(0), unit="ms"),
    Target(title="time to first chunk added in W2L, p99", work="W2L", bound=3, figure=_added_first(1), unit="ms"),
]


class Verdict(msgspec.Struct, frozen=True):
    """A target, and the figure of each round in which both the contestant and the floor have a reading."""

    target: Target
    figures: list[float]

    @property
    def met(self) -> int:
        """In how many rounds the target is met."""
        return sum(map(self.target.is_met, self.figures))


def verdicts(results: Sequence[Result]) -> list[Verdict]:
    """Return the verdict on each target that has a figure."""
    good = {(result.contestant, result.work, result.number): result for result in results if result.reading is not None}
    found = []
    for target in TARGETS:
        figures = [
            target.figure(result, floor)
            for (contestant, work, number), result in good.items()
            if (contestant, work) == (target.contestant, target.work)
            and (floor := good.get((FLOOR, work, number))) is not None
        ]
        if figures:
            found.append(Verdict(target, figures))
    return found
