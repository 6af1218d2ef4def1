"""The benchmark of scale: 5,000 slow streams and 200 client processes on one engine, how the cost grows, and a model of it.

``python -m bench.scale`` from the root of the repository, or ``scripts/bench --scale``. Each part can be measured alone; its results
replace the earlier ones in ``bench/results/scale.json``. The tables and plots of docs/performance.md are made of this file.
``--small`` tries everything with small figures, and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.kept_results import ROOT, Machine, this_commit, this_machine, today
from bench.scale.figures import ScaleResults
from bench.scale.measured_engine import LoadProvider, provider
from bench.scale.measurements import broker_cost, call_costs, client_storm, full_engine, held_streams
from bench.scale.report import report, write_report

RESULTS = ROOT / "bench" / "results" / "scale.json"


class ScaleSizes(msgspec.Struct, frozen=True):
    """How much is measured."""

    streams: int = 5000
    seconds: float = 30.0
    """Seconds for which the streams are held."""
    storm: int = 200
    point_seconds: float = 8.0
    """Seconds of one point of the growth."""
    calls: int = 4000
    part: float = 1.0
    """The part of the streams of the growth that is measured."""


SMALL = ScaleSizes(streams=200, seconds=2.0, storm=10, point_seconds=1.0, calls=200, part=0.04)


def measure_streams(source: LoadProvider, sizes: ScaleSizes, results: ScaleResults) -> None:
    """Many slow streams, of one client and of ten; and more streams than an engine can hold."""
    results.streams = [
        held_streams(
            source,
            streams=sizes.streams,
            processes=count,
            workers=1,
            pace=1.0,
            seconds=sizes.seconds,
            to_the_end=True,
        )
        for count in (1, 10)
    ]
    results.full = [
        full_engine(source, streams=int(limit * sizes.part), open_files=files, seconds=3.0)
        for files, limit in ((1024, 1000), (4096, 2000), (20_000, 8000))
    ]


def measure_clients(source: LoadProvider, sizes: ScaleSizes, results: ScaleResults) -> None:
    """Many client processes that begin at once, and are killed at once."""
    results.storms = [
        client_storm(source, processes=count, streams=10 * count, seconds=sizes.seconds / 3)
        for count in (sizes.storm // 10, sizes.storm)
    ]


GROWTH = [
    # streams, client processes, workers, pace
    (1, 1, 1, 1.0), (10, 1, 1, 1.0), (100, 1, 1, 1.0), (1000, 1, 1, 1.0), (2500, 1, 1, 1.0), (5000, 1, 1, 1.0),
    (100, 1, 1, 0.1), (100, 1, 1, 0.02), (300, 1, 1, 0.02), (1000, 1, 1, 0.1),
    (2000, 1, 1, 1.0), (2000, 10, 1, 1.0), (2000, 50, 1, 1.0), (2000, 200, 1, 1.0),
    (1000, 10, 1, 0.1), (1000, 1, 2, 0.1), (1000, 1, 4, 0.1), (1000, 10, 2, 0.1), (1000, 10, 4, 0.1),
    (5000, 10, 2, 1.0), (5000, 10, 4, 1.0),
]  # fmt: skip
"""The points of the growth."""


def measure_growth(source: LoadProvider, sizes: ScaleSizes, results: ScaleResults) -> None:
    """How the cost grows with streams, clients and workers."""
    points = []
    for streams, count, workers, pace in GROWTH:
        scaled = max(count, round(streams * sizes.part) // count * count)
        print(
            f"  {scaled} streams, {count} clients, {workers} workers, a chunk each {pace} s",
            file=sys.stderr,
            flush=True,
        )
        points.append(
            held_streams(
                source, streams=scaled, processes=count, workers=workers, pace=pace, seconds=sizes.point_seconds
            )
        )
    results.growth = points


def measure_runs(source: LoadProvider, sizes: ScaleSizes, results: ScaleResults) -> None:
    """What a run costs each process, and the broker's decision with many workers."""
    results.calls = [call_costs(source, workers=workers, calls=sizes.calls) for workers in (1, 2, 4)]
    results.broker = [broker_cost(workers) for workers in (1, 4, 16, 64, 256, 1024)]


PARTS: dict[str, Callable[[LoadProvider, ScaleSizes, ScaleResults], None]] = {
    "streams": measure_streams,
    "clients": measure_clients,
    "growth": measure_growth,
    "runs": measure_runs,
}


def main() -> None:
    """Measure, keep, print, and write the documentation."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="Headrace's benchmark of scale.")
    parser.add_argument(
        "--parts", default=",".join(PARTS), help="which parts, by commas; 'none': only write the report"
    )
    parser.add_argument("--small", action="store_true", help="try with small figures; write nothing")
    arguments = parser.parse_args()
    sizes = SMALL if arguments.small else ScaleSizes()
    wanted = [name for name in PARTS if name in arguments.parts.split(",")]
    machine = this_machine()
    results = ScaleResults() if arguments.small else _earlier(RESULTS)
    if wanted:
        with provider() as source:
            for name in wanted:
                started = time.monotonic()
                print(f"{name} …", file=sys.stderr, flush=True)
                PARTS[name](source, sizes, results)
                print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
                if not arguments.small:
                    _keep(results, machine)
    if arguments.small:
        print(report(results))
    else:
        write_report(results)


def _earlier(path: Path) -> ScaleResults:
    return msgspec.json.decode(path.read_bytes(), type=ScaleResults) if path.exists() else ScaleResults()


def _keep(results: ScaleResults, machine: Machine) -> None:
    results.commit, results.date, results.machine = this_commit(), today(), machine
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")


if __name__ == "__main__":
    main()
