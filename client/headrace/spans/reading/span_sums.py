"""Adds up stored runs by group: counts, errors, latency, tokens and cost, over all database files. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from headrace.spans.value_bounds import real
from headrace.spans.value_bounds import seconds as seconds_within

_PERCENTILES = (50, 95, 99)


class Sums(NamedTuple):
    """The sums of some runs. ``unpriced`` counts the runs with a known usage and no known price."""

    runs: float = 0
    errors: float = 0
    aborted: float = 0
    input_tokens: float = 0
    output_tokens: float = 0
    cost: float = 0
    unpriced: float = 0
    with_usage: float = 0
    with_cost: float = 0


class Group:
    """The sums of a group of runs, and the durations of its successful runs, in seconds.

    A sum that no run knows is None, not 0.
    """

    def __init__(self) -> None:
        self.sums = Sums()
        self._durations = array("d")
        self._first_chunks = array("d")

    def add(self, sums: Iterable[float]) -> None:
        """Add the sums of one file."""
        self.sums = Sums(*(real(one + _number(other)) for one, other in zip(self.sums, sums, strict=True)))

    def add_group(self, other: Group) -> None:
        """Add a group that has no run in common with this one."""
        self.add(other.sums)
        self._durations.extend(other._durations)
        self._first_chunks.extend(other._first_chunks)

    def add_seconds(self, duration: float, first_chunk: float | None) -> None:
        """Add the times of one run, in seconds. ``first_chunk`` is None if no chunk came."""
        self._durations.append(_seconds(duration))
        if first_chunk is not None:
            self._first_chunks.append(_seconds(first_chunk))

    @property
    def runs(self) -> int:
        """The number of runs."""
        return int(self.sums.runs)

    @property
    def cost(self) -> float | None:
        """The cost of the runs with a known price, in US dollars. None if no price is known."""
        return round(real(self.sums.cost), 12) if self.sums.with_cost else None

    @property
    def tokens(self) -> tuple[int | None, int | None]:
        """The input and output tokens of the runs with a known usage. None if no usage is known."""
        if not self.sums.with_usage:
            return None, None
        return int(self.sums.input_tokens), int(self.sums.output_tokens)

    def duration_percentiles(self) -> dict[str, float | None]:
        """Return p50, p95 and p99 of the duration, in seconds."""
        return _percentiles(self._durations)

    def first_chunk_percentiles(self) -> dict[str, float | None]:
        """Return p50, p95 and p99 of the time until the first chunk, in seconds."""
        return _percentiles(self._first_chunks)

    def fields(self) -> dict[str, Any]:
        """Return the group for JSON. Unknown values are null."""
        sums = self.sums
        tokens_in, tokens_out = self.tokens
        return {
            "runs": self.runs,
            "errors": int(sums.errors),
            "aborted": int(sums.aborted),
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "cost": self.cost,
            "runs_without_price": int(sums.unpriced),
            "runs_without_usage": int(sums.runs - sums.with_usage),
            "duration_seconds": self.duration_percentiles(),
            "first_chunk_seconds": self.first_chunk_percentiles(),
        }


def grouped(by: str, sums: Iterable[Sequence[Any]], seconds: Iterable[Sequence[Any]]) -> dict[str, Group]:
    """Return the groups in the rows of all files. Days are in order; of other groups the largest comes first."""
    groups: dict[str, Group] = {}
    for key, *figures in sums:
        groups.setdefault(_name(key), Group()).add(figures)
    for key, duration, first_chunk in seconds:
        groups.setdefault(_name(key), Group()).add_seconds(duration, first_chunk)
    if by == "day":
        return dict(sorted(groups.items()))
    return dict(sorted(groups.items(), key=lambda item: (-item[1].runs, item[0])))


def total(groups: Iterable[Group]) -> Group:
    """Return the sum of groups that have no run in common."""
    whole = Group()
    for group in groups:
        whole.add_group(group)
    return whole


def counted(rows: Iterable[Sequence[Any]]) -> dict[str, int]:
    """Return the sum of the counts for each key in the rows of all files, the highest first."""
    counts: dict[str, int] = {}
    for key, count in rows:
        counts[_name(key)] = counts.get(_name(key), 0) + count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _name(key: object) -> str:
    """Return the name of a group as text. Another program may have written any type into the row."""
    return key if isinstance(key, str) else "" if key is None else str(key)


def _number(figure: object) -> float:
    """Return a file's sum as a finite number. A single bad row can make a sum infinite."""
    return real(figure) if isinstance(figure, int | float) else 0.0


def _seconds(figure: object) -> float:
    return seconds_within(_number(figure))


def _percentiles(seconds: array[float]) -> dict[str, float | None]:
    """Return for each percentile the smallest value that this share of the values does not exceed."""
    ordered = sorted(seconds)
    return {
        f"p{percent}": ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None for percent in _PERCENTILES
    }
