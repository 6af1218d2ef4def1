"""``headrace spans stats``: shows sums of runs by group, as a table or as JSON. Pure: returns lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import msgspec

from headrace.cli.shared.terminal import bold, dim, fitted, one_line, red
from headrace.cli.spans.span_figures import dollars, milliseconds
from headrace.spans.reading.span_sums import Group

TOTAL = "total"
_HEADS = ("RUNS", "ERRORS", "ABORTED", "P50 MS", "P95", "P99", "FIRST P50", "P95", "P99", "IN", "OUT", "COST $")
_WIDEST_KEY = 40


class Stats(msgspec.Struct, frozen=True):
    """All that the command shows. ``total`` counts each run once, also a run with several tags."""

    by: str
    groups: dict[str, Group]
    total: Group
    errors: dict[str, int]
    unpriced: dict[str, int]

    def fields(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {
            "by": self.by,
            "groups": [{self.by: key, **group.fields()} for key, group in self.groups.items()],
            "total": self.total.fields(),
            "errors": self.errors,
            "models_without_price": self.unpriced,
        }

    def lines(self, out: TextIO) -> Iterator[str]:
        """Yield the lines for a person to read."""
        yield from self._table(out)
        if self.errors:
            yield from ("", bold("errors", out))
            for name, count in self.errors.items():
                yield f"  {count:>7}  {red(one_line(name) or 'unknown', out)}"
        if self.unpriced:
            models = ", ".join(f"{one_line(model)} ({count})" for model, count in self.unpriced.items())
            yield from ("", f"Cost unknown, and not in the sums: {models}.")
            yield dim("To set the price of a model, add it to [prices] in headrace.toml.", out)

    def _table(self, out: TextIO) -> Iterator[str]:
        rows = [(one_line(key) or "-", group) for key, group in self.groups.items()]
        cells = [(key, _cells(group)) for key, group in [*rows, (TOTAL, self.total)]]
        key_width = min(max(len(self.by), *(len(key) for key, _ in cells)), _WIDEST_KEY)
        widths = [max(map(len, column)) for column in zip(_HEADS, *(row for _, row in cells), strict=True)]
        for number, (key, row) in enumerate([(self.by.upper(), _HEADS), *cells]):
            figures = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            text = "  ".join([fitted(key, key_width), *figures])
            is_aside = number == 0 or (number == len(cells) and len(cells) > 1)
            yield dim(text, out) if is_aside else text


def _cells(group: Group) -> Sequence[str]:
    """Return a group as cells of the table. A dash means unknown."""
    sums = group.sums
    return [
        *(f"{count:.0f}" for count in (sums.runs, sums.errors, sums.aborted)),
        *(milliseconds(seconds) for seconds in group.duration_percentiles().values()),
        *(milliseconds(seconds) for seconds in group.first_chunk_percentiles().values()),
        *("-" if count is None else f"{count}" for count in group.tokens),
        dollars(group.cost),
    ]
