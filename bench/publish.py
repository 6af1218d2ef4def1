"""Writes the tables and plots of the documentation from a kept run of the benchmark.

``python -m bench.publish bench/results/NAME.json``. A table stands in a page between two comments: the first names the table and the
file, the second is its end. Everything between them is replaced. The plots are files in docs/images.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from bench.contestant_list import CONTESTANTS
from bench.kept_results import ROOT, KeptResults, load
from bench.plots import plots
from bench.start_table import start_rows
from bench.summary import Result, Summary, spread, summaries
from bench.table import (
    Rows,
    by_streams_rows,
    latency_rows,
    markdown,
    milliseconds,
    process_rows,
    provider_line,
    ratio_rows,
    target_rows,
    times,
)
from bench.targets import HEADRACE, verdicts
from bench.works import WORKS

PAGES = [ROOT / "README.md", ROOT / "docs" / "performance.md"]
IMAGES = ROOT / "docs" / "images"
_SECTION = re.compile(
    r"<!-- bench: (?P<table>[a-z ]+) of (?P<file>bench/results/[\w.-]+\.json) -->\n.*?<!-- bench: end -->", re.DOTALL
)
_USUAL = [work for work in WORKS if not work.is_by_streams]
_NAMES = [contestant.name for contestant in CONTESTANTS]
_OTHERS = ("floor", HEADRACE, "aiohttp", "httpx", "openai SDK", "LiteLLM SDK", "LiteLLM proxy")
"""The rows of README's table."""


def filled(page: str, kept: KeptResults, file: str | None = None) -> str:
    """Return a page with its tables made anew from a kept run. ``file``: the file of this run, if not the one that the page names.

    Raises ValueError for a table that nobody makes.
    """

    def section(found: re.Match[str]) -> str:
        table = found["table"]
        if table not in TABLES:
            raise ValueError(f"no table is named {table!r}; there are: {', '.join(TABLES)}")
        name = file or found["file"]
        return f"<!-- bench: {table} of {name} -->\n{TABLES[table](kept)}\n<!-- bench: end -->"

    return _SECTION.sub(section, page)


def files_named(page: str) -> set[str]:
    """Return the files of kept runs that a page names."""
    return {found["file"] for found in _SECTION.finditer(page)}


def _origin(kept: KeptResults) -> str:
    machine = kept.machine
    packages = ", ".join(f"{package} {version}" for package, version in sorted(kept.versions.items()))
    rounds = "One round"
    if kept.rounds > 1:
        once = _once(kept)
        rounds = f"Medians of {kept.rounds} interleaved rounds, the smallest and the largest in brackets"
        rounds += f"; one round of {once}" if once else ""
    awake = ", and its idle processors were kept awake" if kept.is_awake else ""
    return (
        f"Measured on {kept.date} with commit {kept.commit}, on {machine.cores} cores ({machine.processor}), Python {machine.python}, "
        f"{machine.kernel}. The machine's load was {machine.load:.1f} when it began{awake}. {rounds}. Versions: {packages}."
    )


def _once(kept: KeptResults) -> str:
    measured = {result.contestant for result in kept.results}
    return ", ".join(one.name for one in CONTESTANTS if one.is_slow and one.name in measured)


def _short(kept: KeptResults) -> str:
    found = summaries(kept.results)
    columns: list[tuple[str, str, Callable[[Summary], str]]] = [
        ("200 streams, no gap", "W1", _ratio),
        ("500 streams, 50 chunks/s each", "W2", _ratio),
        ("latency there, p99", "W2", _p99),
        ("20 streams, 50 chunks/s each", "W2L", _ratio),
        ("a call without stream", "W3", _ratio),
        ("memory of an open stream", "W4", _memory),
    ]
    rows: Rows = [["", *(title for title, _, _ in columns)]]
    for name in _OTHERS:
        cells = [
            cell(summary) if (summary := found.get((name, work))) is not None and summary.rounds else ""
            for _, work, cell in columns
        ]
        if any(cells):
            rows.append([name, *cells])
    return markdown(rows, bold=HEADRACE)


def _ratio(summary: Summary) -> str:
    if not summary.ratios:
        return ""
    absolute = f" ({summary.micro():.1f} µs)" if summary.contestant == "floor" else ""
    return times(spread(summary.ratios).middle) + absolute


def _p99(summary: Summary) -> str:
    return f"{milliseconds(summary.of_readings(lambda reading: reading.latency[1]).middle)} ms"


def _memory(summary: Summary) -> str:
    return f"{summary.over_rounds(Result.total_memory).middle:.0f} KB"


def _streams(kept: KeptResults) -> str:
    by_streams = [work for work in WORKS if work.is_by_streams]
    return markdown(by_streams_rows(_NAMES, by_streams, summaries(kept.results)), bold=HEADRACE)


def _processes(kept: KeptResults) -> str:
    return markdown(process_rows([HEADRACE], _USUAL, summaries(kept.results)))


def _start(kept: KeptResults) -> str:
    return markdown(start_rows(kept.start)) if kept.start is not None else "Not measured."


TABLES: dict[str, Callable[[KeptResults], str]] = {
    "origin": _origin,
    "short table": _short,
    "ratios": lambda kept: markdown(ratio_rows(_NAMES, _USUAL, summaries(kept.results)), bold=HEADRACE),
    "targets": lambda kept: markdown(target_rows(verdicts(kept.results))),
    "latencies": lambda kept: markdown(latency_rows(_NAMES, _USUAL, summaries(kept.results)), bold=HEADRACE),
    "processes": _processes,
    "streams": _streams,
    "start": _start,
    "provider": lambda kept: f"The provider's own CPU in W1, of one core: {provider_line(kept.results, 'W1')}.",
}
"""What can stand between two comments."""


def main() -> None:
    """Write the pages and the plots."""
    parser = argparse.ArgumentParser(prog="python -m bench.publish", description="Tables and plots of a kept run.")
    parser.add_argument("file", type=Path, help="a file in bench/results")
    path = parser.parse_args().file.resolve()
    kept = load(path)
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8"), kept, path.relative_to(ROOT).as_posix()), "utf-8")
    for name, image in plots(kept.results).items():
        (IMAGES / name).write_text(image, "utf-8")


if __name__ == "__main__":
    main()
