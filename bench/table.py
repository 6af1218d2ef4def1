"""The benchmark's results as Markdown tables: ratios to the floor, latency, CPU by process, and targets. Pure, but for printing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from bench.summary import FLOOR, Result, Spread, Summaries, Summary, spread
from bench.targets import Verdict
from bench.works import Reading, Work

Rows = list[list[str]]
Cell = Callable[[Summary], str]
_SHOWN_DECIMALS = 10
"""Below this, a ratio and a latency have one decimal."""


def ratio_rows(names: Sequence[str], works: Sequence[Work], found: Summaries, absolute: bool = False) -> Rows:
    """Return the table of CPU as a multiple of the floor's, with titles: a row for each contestant that has results.

    ``absolute``: with the microseconds in each cell; without, the floor alone has them.
    """
    columns = _columns(works, absolute)
    rows = [["", *(title for title, _, _ in columns)]]
    for name in names:
        cells = [_cell(found.get((name, work)), cell) for _, work, cell in columns]
        if any(cells):
            rows.append([name, *cells])
    return _without_empty_columns(rows)


def latency_rows(names: Sequence[str], works: Sequence[Work], found: Summaries) -> Rows:
    """Return the table of latencies, p50 / p99 in milliseconds: of a chunk, and of the first chunk."""
    columns: list[tuple[str, str, Cell]] = []
    for work in works:
        if work.is_stamped:
            columns.append((f"{work.name} chunk", work.name, _chunk_latency))
        if not work.stays_open:
            columns.append((f"{work.name} first", work.name, _first_latency))
    rows = [["", *(title for title, _, _ in columns)]]
    for name in names:
        cells = [_cell(found.get((name, work)), cell) for _, work, cell in columns]
        if any(cells):
            rows.append([name, *cells])
    return _without_empty_columns(rows)


def process_rows(names: Sequence[str], works: Sequence[Work], found: Summaries) -> Rows:
    """Return the table of CPU by process in microseconds per chunk, for contestants with more than one process."""
    counted = [work.name for work in works if not work.stays_open]
    rows = [["", "process", *counted]]
    for name in names:
        mine = {work: summary for work in counted if (summary := found.get((name, work))) is not None}
        roles = sorted({role for summary in mine.values() for role in summary.roles()})
        if len(roles) > 1:
            rows += [
                [name, role, *(f"{mine[work].micro(role):.1f}" if work in mine else "" for work in counted)]
                for role in roles
            ]
    return rows


def target_rows(found: Sequence[Verdict]) -> Rows:
    """Return the table of targets: the figure of each round, and in how many rounds the target is met."""
    rows = [["target", "", "rounds", "met"]]
    for verdict in found:
        target = verdict.target
        figures = ", ".join(target.word(value) for value in verdict.figures)
        rows.append([target.title, target.wanted, figures, f"{verdict.met} of {len(verdict.figures)}"])
    return rows


def by_streams_rows(names: Sequence[str], works: Sequence[Work], found: Summaries) -> Rows:
    """Return the table of CPU per chunk in microseconds by the number of streams."""
    rows = [["streams at once", *(str(work.at_once) for work in works)]]
    for name in names:
        cells = [_cell(found.get((name, work.name)), lambda summary: f"{summary.micro():.1f}") for work in works]
        if any(cells):
            rows.append([name, *cells])
    return _without_empty_columns(rows)


def provider_line(results: Sequence[Result], work: str) -> str:
    """Return what share of one core the provider used, contestant by contestant, or an empty string without results.

    A provider that uses a whole core is as slow as the contestant or slower.
    """
    shares: dict[str, list[float]] = {}
    for result in results:
        if result.work == work and result.reading is not None and result.reading.seconds:
            shares.setdefault(result.contestant, []).append(result.provider_cpu / result.reading.seconds)
    return ", ".join(f"{name} {max(values):.0%}" for name, values in shares.items())


def markdown(rows: Sequence[Sequence[str]], bold: str = "") -> str:
    """Return rows, titles first, as a Markdown table without padding. The name in the row ``bold`` is set in bold."""
    titles, *others = rows
    marked = [[f"**{row[0]}**" if bold and row[0] == bold else row[0], *row[1:]] for row in others]
    lines = [titles, ["---"] * len(titles), *marked]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def print_rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table with padding."""
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    for row in [titles, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def print_table(title: str, rows: Rows) -> None:
    """Print a table under its title, if it has any row."""
    if len(rows) > 1:
        print(f"\n{title}")
        print_rows(rows[0], rows[1:])


def print_faults(found: Mapping[tuple[str, str], Summary]) -> None:
    """Print what went wrong, if anything."""
    wrong = [summary for summary in found.values() if summary.fault]
    if wrong:
        print("\nfaults")
    for summary in wrong:
        count = summary.faults if summary.rounds else "all"
        print(f"  {summary.contestant} {summary.work}: {count}: {summary.fault}")


def _columns(works: Sequence[Work], absolute: bool) -> list[tuple[str, str, Cell]]:
    ratio = _ratio_and_micro if absolute else _ratio
    columns: list[tuple[str, str, Cell]] = []
    for work in works:
        if work.stays_open:
            columns.append((f"{work.name} KB", work.name, _memory))
            continue
        columns.append((work.name, work.name, ratio))
        if work.name == "W2":
            columns += [("W2 chunks/s", "W2", _speed), ("W2 held", "W2", _held), ("W2 p99", "W2", _p99)]
    return columns


def _without_empty_columns(rows: Rows) -> Rows:
    kept = [column for column in range(len(rows[0])) if column == 0 or any(row[column] for row in rows[1:])]
    return [[row[column] for column in kept] for row in rows]


def _cell(summary: Summary | None, cell: Cell) -> str:
    if summary is None:
        return ""
    return cell(summary) if summary.rounds else "failed"


def _ratio(summary: Summary) -> str:
    if not summary.ratios:
        return f"{summary.micro():.1f} µs{_wrong(summary)}"
    absolute = f" = {summary.micro():.1f} µs" if summary.contestant == FLOOR else ""
    return _words(spread(summary.ratios), times) + absolute + _wrong(summary)


def _ratio_and_micro(summary: Summary) -> str:
    ratio = f"{_words(spread(summary.ratios), times)}, " if summary.ratios else ""
    return f"{ratio}{summary.micro():.1f} µs{_wrong(summary)}"


def _words(values: Spread, word: Callable[[float], str]) -> str:
    low, middle, high = (word(value) for value in (values.low, values.middle, values.high))
    return middle if low == middle == high else f"{middle} ({low} to {high})"


def times(value: float) -> str:
    """Return a ratio as text."""
    return f"{value:.1f}" if value < _SHOWN_DECIMALS else f"{value:.0f}"


def milliseconds(value: float) -> str:
    """Return a time as text, without its unit."""
    return f"{value:.1f}" if value < _SHOWN_DECIMALS else f"{value:,.0f}"


def _wrong(summary: Summary) -> str:
    return f", {summary.faults} faults" if summary.faults else ""


def _speed(summary: Summary) -> str:
    return f"{summary.of_readings(lambda reading: reading.chunks / reading.seconds).middle:,.0f}"


def _held(summary: Summary) -> str:
    return f"{summary.of_readings(lambda reading: reading.held).low:.0f}"


def _p99(summary: Summary) -> str:
    return f"{_words(summary.of_readings(lambda reading: reading.latency[1]), milliseconds)} ms"


def _memory(summary: Summary) -> str:
    if not all(result.reading and result.reading.held for result in summary.rounds):
        return "none held"
    return _words(summary.over_rounds(Result.total_memory), lambda value: f"{value:.0f}") + _wrong(summary)


def _chunk_latency(summary: Summary) -> str:
    return _pair(summary, lambda reading: reading.latency)


def _first_latency(summary: Summary) -> str:
    return _pair(summary, lambda reading: reading.first)


def _pair(summary: Summary, figures: Callable[[Reading], list[float]]) -> str:
    return " / ".join(
        milliseconds(median(figures(result.reading)[place] for result in summary.rounds if result.reading))
        for place in (0, 1)
    )
