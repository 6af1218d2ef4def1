"""Two versions of Headrace measured in turn on the same load: the ratio of their CPU time, round by round.

The two figures of one round are seconds apart, so a machine whose speed drifts has little influence on their ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median, quantiles

import msgspec

from bench.summary import Result
from bench.table import print_rows
from bench.works import Work

_SMALL = 0.2e-6
"""Seconds per chunk below which the kernel's clock ticks say nothing."""


class PairedFigures(msgspec.Struct, frozen=True):
    """The CPU time of one work per chunk or request, in seconds: one item a round, here and in the other version."""

    here: list[float]
    other: list[float]

    @property
    def ratios(self) -> list[float]:
        """What this version takes, as a part of what the other one takes in the same round."""
        return [one / another for one, another in zip(self.here, self.other, strict=True)]

    @property
    def least(self) -> float:
        """The ratio of the means of the cheaper half of the rounds: what disturbs a round only makes it dearer."""
        half = (len(self.here) + 1) // 2
        return mean(sorted(self.here)[:half]) / mean(sorted(self.other)[:half])


def paired(results: Sequence[Result], names: tuple[str, str], work: str, role: str | None = None) -> PairedFigures:
    """Return the figures of ``names``, this version first, from the rounds that both finished.

    ``role``: of these processes only.
    """
    here, other = ([one for one in results if (one.contestant, one.work) == (name, work)] for name in names)
    both = [pair for pair in zip(here, other, strict=True) if pair[0].reading and pair[1].reading]
    return PairedFigures([one.cpu_of(role) for one, _ in both], [another.cpu_of(role) for _, another in both])


def print_side_by_side(results: Sequence[Result], names: tuple[str, str], works: Sequence[Work]) -> None:
    """Print for each work, and for its processes, what this version takes and how that compares with the other one."""
    rows = []
    for work in works:
        if work.stays_open:
            continue
        roles = sorted({role for one in results if one.work == work.name for role in one.cpu})
        for role in (None, *roles):
            figures = paired(results, names, work.name, role)
            if figures.here and median(figures.other) > _SMALL:
                rows.append(_row(work.name if role is None else f"  {role}", figures))
    print(f"\nCPU µs per chunk or request: {names[0]} (here) and {names[1]} in turn, medians of the rounds")
    print_rows(["", "rounds", "here", "other", "ratio", "quartiles", "cheaper half"], rows)


def _row(title: str, figures: PairedFigures) -> list[str]:
    ratios = figures.ratios
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    micro = (f"{median(values) * 1e6:.1f}" for values in (figures.here, figures.other))
    return [
        title,
        str(len(ratios)),
        *micro,
        f"{median(ratios):.3f}",
        f"{low:.2f} to {high:.2f}",
        f"{figures.least:.3f}",
    ]
