"""The benchmark: all contestants side by side in one run, each work in a fresh process, and tables of ratios to the floor.

``python -m bench.run_bench`` from the root of the repository; ``scripts/bench`` sees to the rest. ``works.py`` says what is done,
``contestant_list.py`` by whom. ``--beside CHECKOUT`` measures another version of Headrace in turn with this one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.awake import awake_processors
from bench.contestant_list import CONTESTANTS, QUICK, USUAL, Contestant, named
from bench.kept_results import KeptResults, save, this_commit, this_machine, today, versions_of
from bench.rounds import ROOT, Entry, measure_all, provider, python_of
from bench.side_by_side import print_side_by_side
from bench.start import StartFigures
from bench.start_table import measure_rounds, start_rows
from bench.summary import FLOOR, Result, summaries
from bench.table import (
    by_streams_rows,
    latency_rows,
    print_faults,
    print_table,
    process_rows,
    provider_line,
    ratio_rows,
    target_rows,
)
from bench.targets import HEADRACE, verdicts
from bench.works import USUAL_WORKS, WORKS, Work

_IDLE = 10.0
"""Seconds that the idle engine is watched."""
_BUSY = 0.5
"""Load for each core from which on the machine is too busy."""


def main() -> None:
    """Measure, print, and keep."""
    arguments = _arguments()
    works = [work for work in WORKS if work.name in arguments.works]
    contestants = [one for one in named(arguments.contestants) if _is_there(one)]
    entries = [Entry(one.name, one) for one in contestants]
    if arguments.beside is not None:
        entries = [each for one in entries for each in (one, _in_checkout(one, arguments.beside))]
    machine, started = this_machine(), time.monotonic()
    if machine.load > _BUSY * machine.cores:
        print(f"this machine is busy (load {machine.load:.1f}): the figures will vary", file=sys.stderr)
    with (
        awake_processors() if arguments.awake else contextlib.nullcontext(),
        provider() as served,
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as data,
    ):
        os.environ["HEADRACE_DATA"] = data  # what is measured is nothing for the user's own spans
        results = list(measure_all(served, entries, works, arguments.rounds))
        start = measure_rounds(served.port, arguments.rounds, _IDLE) if arguments.start else None
    seconds = time.monotonic() - started
    _print_all([entry.name for entry in entries], works, results, start)
    if arguments.beside is not None:
        for here, other in zip(entries[::2], entries[1::2], strict=True):
            print_side_by_side(results, (here.name, other.name), works)
    print(f"\n{arguments.rounds} round(s) in {seconds:.0f} s, on {machine.processor}, {machine.cores} cores")
    kept = KeptResults(
        commit=this_commit(),
        date=today(),
        machine=machine,
        versions=versions_of(contestants),
        rounds=arguments.rounds,
        seconds=seconds,
        is_awake=arguments.awake,
        results=results,
        start=start,
    )
    if arguments.keep:
        print(f"kept in {save(kept, arguments.keep).relative_to(ROOT)}")
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    if any(result.reading is None or result.reading.faults for result in results):
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.run_bench", description="Headrace's benchmark.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="headrace and the floor only, one round")
    size.add_argument("--full", action="store_true", help="all contestants and all works, in up to 25 minutes")
    parser.add_argument("--rounds", type=int, help="how often each is measured; the median counts")
    parser.add_argument("--works", help="which works, by commas")
    parser.add_argument("--contestants", help="which contestants, by semicolons")
    parser.add_argument("--no-start", action="store_true", help="do not measure how fast an engine starts")
    parser.add_argument("--awake", action="store_true", help="keep idle processors awake, as root: see bench/awake.py")
    parser.add_argument("--keep", type=_name, metavar="NAME", help="write the run to bench/results/NAME.json")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    parser.add_argument(
        "--beside",
        type=_checkout,
        metavar="CHECKOUT",
        help="measure headrace (or --contestants) in turn with the version in this checkout, whose scripts/bench has run once",
    )
    arguments = parser.parse_args()
    chosen = [one.name for one in CONTESTANTS] if arguments.full else QUICK if arguments.quick else USUAL
    if arguments.beside is not None:
        chosen = [HEADRACE]
    arguments.start = not (arguments.quick or arguments.beside or arguments.works or arguments.no_start)
    arguments.contestants = arguments.contestants.split(";") if arguments.contestants else chosen
    all_works = [work.name for work in WORKS] if arguments.full else USUAL_WORKS
    arguments.works = arguments.works.split(",") if arguments.works else all_works
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3 if arguments.full else 2)
    if unknown := set(arguments.works) - {work.name for work in WORKS}:
        known = ", ".join(work.name for work in WORKS)
        parser.error(f"no work is named {', '.join(sorted(unknown))}; there are: {known}")
    try:
        named(arguments.contestants)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def _name(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a file: use letters, digits, '.', '_' and '-'")
    return text


def _checkout(text: str) -> Path:
    root = Path(text).resolve()
    if not python_of(root).exists():
        raise argparse.ArgumentTypeError(f"{python_of(root)} does not exist; run scripts/bench --quick in {root} first")
    return root


def _is_there(contestant: Contestant) -> bool:
    if not contestant.is_installed:
        print(f"{contestant.name} is left out: {contestant.python} does not exist", file=sys.stderr)
    return contestant.is_installed


def _in_checkout(entry: Entry, root: Path) -> Entry:
    return Entry(f"{entry.name} of {root.name}", entry.contestant, root)


def _print_all(
    names: Sequence[str], works: Sequence[Work], results: Sequence[Result], start: StartFigures | None
) -> None:
    usual = [work for work in works if not work.is_by_streams]
    found = summaries(results)
    for work in usual:
        print(f"{work.name:4} {work.shows}")
    print_table(
        "times the floor: median of the rounds (smallest to largest), CPU of the whole client-side tree per chunk; W3: per request",
        ratio_rows(names, usual, found, absolute=True),
    )
    print_table("targets for headrace", target_rows(verdicts(results)))
    print_table(
        "p50 / p99 in ms: of a chunk from the provider's write to the reader, of the first chunk from the call",
        latency_rows(names, usual, found),
    )
    print_table("CPU µs per chunk or request by process", process_rows(names, usual, found))
    by_streams = [work for work in works if work.is_by_streams]
    print_table("CPU µs per chunk by the number of streams at once, 20 ms", by_streams_rows(names, by_streams, found))
    if start is not None:
        print_table("start and idle use", start_rows(start))
    if used := provider_line(results, "W1"):
        print(
            f"\nthe provider's own CPU in W1, of one core: {used}; near 100 % the provider limits the throughput of {FLOOR}"
        )
    print_faults(found)


if __name__ == "__main__":
    main()
