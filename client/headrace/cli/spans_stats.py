"""``headrace spans stats``: runs, errors, latency, tokens and cost by group, added up over files. Pure: given rows, returns lines."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TextIO

import msgspec

from headrace.cli.spans_table import dollars, fitted, milliseconds
from headrace.cli.terminal import bold, dim, one_line, red
from headrace.spans.value_bounds import real
from headrace.spans.value_bounds import seconds as seconds_within

TOTAL = "total"
_PERCENTILES = (50, 95, 99)
_HEADS = ("RUNS", "ERRORS", "ABORTED", "P50 MS", "P95", "P99", "FIRST P50", "P95", "P99", "IN", "OUT", "COST $")
_WIDEST_KEY = 40


class Sums(NamedTuple):
    """What is added up. ``unpriced`` counts the runs whose usage is known and whose price is not."""

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
    """Sums of some runs; seconds are those of runs that ended well. What is known of no run at all is unknown, and not zero."""

    def __init__(self) -> None:
        self._sums = Sums()
        self.durations = array("d")
        self.first_chunks = array("d")

    def add(self, sums: Iterable[float]) -> None:
        """Add what a file says of the group."""
        self._sums = Sums(*(real(one + _number(other)) for one, other in zip(self._sums, sums, strict=True)))

    def add_group(self, other: Group) -> None:
        """Add a group that has no run in common with this one."""
        self.add(other._sums)
        self.durations.extend(other.durations)
        self.first_chunks.extend(other.first_chunks)

    def add_seconds(self, duration: float, first_chunk: float | None) -> None:
        """Add one run's times."""
        self.durations.append(_seconds(duration))
        if first_chunk is not None:
            self.first_chunks.append(_seconds(first_chunk))

    @property
    def runs(self) -> int:
        """How many runs there were."""
        return int(self._sums.runs)

    @property
    def cost(self) -> float | None:
        """What the runs cost whose price is known, in US dollars; None where it is known of none."""
        return round(real(self._sums.cost), 12) if self._sums.with_cost else None

    @property
    def tokens(self) -> tuple[int | None, int | None]:
        """Input and output tokens of the runs whose usage is known; None where it is known of none."""
        if not self._sums.with_usage:
            return None, None
        return int(self._sums.input_tokens), int(self._sums.output_tokens)

    def fields(self) -> dict[str, Any]:
        """Return the group for programs: null is what is not known."""
        sums = self._sums
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
            "duration_seconds": _percentiles(self.durations),
            "first_chunk_seconds": _percentiles(self.first_chunks),
        }

    def cells(self) -> Sequence[str]:
        """Return the group for people: a dash is what is not known."""
        sums = self._sums
        return [
            *(f"{count:.0f}" for count in (sums.runs, sums.errors, sums.aborted)),
            *(milliseconds(seconds) for seconds in _percentiles(self.durations).values()),
            *(milliseconds(seconds) for seconds in _percentiles(self.first_chunks).values()),
            *("-" if count is None else f"{count}" for count in self.tokens),
            dollars(self.cost),
        ]


class Stats(msgspec.Struct, frozen=True):
    """Everything that is shown. The total counts a run once, whatever its number of tags."""

    by: str
    groups: dict[str, Group]
    total: Group
    errors: dict[str, int]
    unpriced: dict[str, int]

    def fields(self) -> dict[str, Any]:
        """Return all of it for programs."""
        return {
            "by": self.by,
            "groups": [{self.by: key, **group.fields()} for key, group in self.groups.items()],
            "total": self.total.fields(),
            "errors": self.errors,
            "models_without_price": self.unpriced,
        }

    def lines(self, out: TextIO) -> Iterator[str]:
        """Yield it for people."""
        yield from self._table(out)
        if self.errors:
            yield from ("", bold("errors", out))
            for name, count in self.errors.items():
                yield f"  {count:>7}  {red(one_line(name) or 'unknown', out)}"
        if self.unpriced:
            models = ", ".join(f"{one_line(model)} ({count})" for model, count in self.unpriced.items())
            yield from ("", f"Cost unknown, and not in the sums: {models}.")
            yield dim("[prices] in headrace.toml says what a model costs.", out)

    def _table(self, out: TextIO) -> Iterator[str]:
        rows = [(one_line(key) or "-", group) for key, group in self.groups.items()]
        cells = [(key, group.cells()) for key, group in [*rows, (TOTAL, self.total)]]
        key_width = min(max(len(self.by), *(len(key) for key, _ in cells)), _WIDEST_KEY)
        widths = [max(map(len, column)) for column in zip(_HEADS, *(row for _, row in cells), strict=True)]
        for number, (key, row) in enumerate([(self.by.upper(), _HEADS), *cells]):
            figures = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            text = "  ".join([fitted(key, key_width), *figures])
            is_aside = number == 0 or (number == len(cells) and len(cells) > 1)
            yield dim(text, out) if is_aside else text


def collected(by: str, sums: Iterable[Sequence[Any]], seconds: Iterable[Sequence[Any]]) -> dict[str, Group]:
    """Return the groups of the rows of all files, the most runs first; days in their order."""
    groups: dict[str, Group] = {}
    for key, *figures in sums:
        groups.setdefault(_name(key), Group()).add(figures)
    for key, duration, first_chunk in seconds:
        groups.setdefault(_name(key), Group()).add_seconds(duration, first_chunk)
    if by == "day":
        return dict(sorted(groups.items()))
    return dict(sorted(groups.items(), key=lambda item: (-item[1].runs, item[0])))


def total(groups: Iterable[Group]) -> Group:
    """Return the sum of groups of which no two have a run in common."""
    whole = Group()
    for group in groups:
        whole.add_group(group)
    return whole


def counted(rows: Iterable[Sequence[Any]]) -> dict[str, int]:
    """Return the counts of the rows of all files, the highest first."""
    counts: dict[str, int] = {}
    for key, count in rows:
        counts[_name(key)] = counts.get(_name(key), 0) + count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _name(key: object) -> str:
    """Return what a group is called: text, whatever somebody else has written into a row."""
    return key if isinstance(key, str) else "" if key is None else str(key)


def _number(figure: object) -> float:
    """Return a sum of a file as a finite number: a single row may say that it has endless tokens, or cost."""
    return real(figure) if isinstance(figure, int | float) else 0.0


def _seconds(figure: object) -> float:
    return seconds_within(_number(figure))


def _percentiles(seconds: array[float]) -> dict[str, float | None]:
    """Return the smallest figures that so many in a hundred do not exceed."""
    ordered = sorted(seconds)
    return {
        f"p{percent}": ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None for percent in _PERCENTILES
    }
