"""The results of ``bench.scale`` as Markdown tables and plots, and their places in docs/performance.md.

A table stands between two comments. The first names it; everything up to the second one is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.kept_results import ROOT
from bench.scale.engine_costs import PointError, capacities, engine_costs, errors
from bench.scale.figures import HeldStreams, ScaleResults
from bench.scale.scale_plots import scale_plots
from bench.table import markdown

PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
ROLES = ("workers", "client", "broker", "collector")
_SECTION = re.compile(r"<!-- bench\.scale: (?P<table>[a-z ]+) -->\n.*?<!-- bench\.scale: end -->", re.DOTALL)


def report(results: ScaleResults) -> str:
    """Return all tables that can be made of the results."""
    return "\n\n".join(f"{name}\n{_made(table, results)}" for name, table in TABLES.items())


def filled(page: str, results: ScaleResults) -> str:
    """Return a page with its tables made anew. Raises ValueError for a table that nobody makes."""

    def section(found: re.Match[str]) -> str:
        name = found["table"]
        if name not in TABLES:
            raise ValueError(f"no table is named {name!r}; there are: {', '.join(TABLES)}")
        return f"<!-- bench.scale: {name} -->\n{_made(TABLES[name], results)}\n<!-- bench.scale: end -->"

    return _SECTION.sub(section, page)


def write_report(results: ScaleResults, page: Path = PAGE, images: Path = IMAGES) -> None:
    """Write the tables into the page, and the plots."""
    page.write_text(filled(page.read_text("utf-8"), results), "utf-8")
    for name, image in scale_plots(results).items():
        (images / name).write_text(image, "utf-8")


def _made(table: Callable[[ScaleResults], str], results: ScaleResults) -> str:
    try:
        return table(results)
    except (ValueError, KeyError, IndexError):
        return "Not measured."


def _origin(results: ScaleResults) -> str:
    if results.machine is None:
        return "Not measured."
    machine = results.machine
    return (
        f"Measured on {results.date} with commit {results.commit}, on {machine.cores} cores ({machine.processor}), "
        f"Python {machine.python}, {machine.kernel}. The machine's load was {machine.load:.1f} when it began."
    )


def _streams(results: ScaleResults) -> str:
    if not results.streams:
        return "Not measured."
    rows = [
        [
            "client processes", "held", "for", "complete, in order", "all open after", "first chunk p99", "chunks/s",
            "latency p50 / p99 / max", "CPU of a chunk: workers + client + broker + collector",
            "memory of a stream: workers + client", "descriptors of the worker",
        ]
    ]  # fmt: skip
    rows += [
        [
            str(one.clients),
            f"{one.held:,} of {one.streams:,}",
            f"{one.seconds:.0f} s",
            f"{one.complete:,}",
            f"{one.open_seconds:.1f} s",
            f"{one.first_p99:.1f} s",
            f"{one.rate:,.0f}",
            f"{_ms(one.latency_p50)} / {_ms(one.latency_p99)} / {_ms(one.latency_max)} ms",
            " + ".join(f"{1e6 * one.per_chunk(role):.1f}" for role in ROLES) + " µs",
            " + ".join(f"{one.memory.get(role, 0.0) / one.streams:.1f}" for role in ("workers", "client")) + " KB",
            f"{one.descriptors.get('workers', 0):,}",
        ]
        for one in results.streams
    ]
    return markdown(rows) + _fault_lines(results.streams)


def _full(results: ScaleResults) -> str:
    rows = [["open files (`ulimit -Hn`)", "streams asked at once", "held at once", "waited for a place", "complete"]]
    rows += [
        [f"{one.open_files:,}", f"{one.asked:,}", f"{one.held:,}", f"{one.waited:,}", f"{one.complete:,}"]
        for one in results.full
    ]
    return markdown(rows) if results.full else "Not measured."


def _storms(results: ScaleResults) -> str:
    if not results.storms:
        return "Not measured."
    rows = [
        [
            "client processes", "all served after", "CPU of connecting, each: broker + worker + client",
            "memory, each: broker + worker", "streams held", "latency p99", "after the kill: runs gone, provider's connections closed, peers forgotten",
            "slowest call of another client",
        ]
    ]  # fmt: skip
    for one in results.storms:
        cpu = (f"{1e3 * one.storm_cpu.get(role, 0.0) / one.clients:.1f}" for role in ("broker", "workers", "client"))
        memory = (f"{one.storm_memory.get(role, 0.0) / one.clients:.0f}" for role in ("broker", "workers"))
        rows.append(
            [
                str(one.clients),
                f"{one.storm_seconds:.1f} s",
                " + ".join(cpu) + " ms",
                " + ".join(memory) + " KB",
                f"{one.streams.held:,} of {one.streams.streams:,}",
                f"{_ms(one.streams.latency_p99)} ms",
                f"{one.runs_gone:.2f} s, {one.connections_gone:.2f} s, {one.peers_gone:.2f} s",
                f"{_ms(one.slowest_call)} ms",
            ]
        )
    return markdown(rows) + _fault_lines([one.streams for one in results.storms])


def _fault_lines(held: list[HeldStreams]) -> str:
    found = {fault: count for one in held for fault, count in one.faults.items()}
    return "".join(f"\n\n{count} times: `{fault}`" for fault, count in found.items())


def _growth(results: ScaleResults) -> str:
    rows = [
        [
            "streams", "clients", "workers", "chunks/s", "latency p50 / p99",
            "CPU of a chunk, µs: workers + client + broker + collector", "all",
        ]
    ]  # fmt: skip
    rows += [
        [
            f"{one.streams:,}",
            str(one.clients),
            str(one.workers),
            f"{one.rate:,.0f}",
            f"{_ms(one.latency_p50)} / {_ms(one.latency_p99)} ms",
            " + ".join(f"{1e6 * one.per_chunk(role):,.0f}" for role in ROLES),
            f"{1e6 * sum(one.per_chunk(role) for role in ROLES):,.0f} µs",
        ]
        for one in results.growth
    ]
    return markdown(rows) if results.growth else "Not measured."


def _runs(results: ScaleResults) -> str:
    rows = [["workers", "calls/s", "CPU of a call, µs: workers + client + broker + collector"]]
    rows += [
        [
            str(one.workers),
            f"{one.calls / one.seconds:,.0f}",
            " + ".join(f"{1e6 * one.cpu.get(role, 0.0):.0f}" for role in ROLES),
        ]
        for one in results.calls
    ]
    decision = [["workers", "the broker's decision about one run, µs"]]
    decision += [[f"{one.workers:,}", f"{1e6 * one.seconds:.0f}"] for one in results.broker]
    return f"{markdown(rows)}\n\n{markdown(decision)}" if results.calls else "Not measured."


def _costs(results: ScaleResults) -> str:
    costs = engine_costs(results)
    rows = [["cost", "worker", "client", "broker", "collector"]]
    worker, client = costs.worker, costs.client
    rows += [
        ["of a wake-up, µs", _us(worker.wake_up), _us(client.wake_up), "", ""],
        ["of a frame to a client, µs", _us(worker.frame), "in the wake-up", "", ""],
        ["of a chunk, µs", _us(worker.chunk), _us(client.chunk), "0", "0"],
        [
            "of a run without its chunks, µs",
            _us(worker.run),
            _us(client.run),
            f"{_us(costs.broker_run)} + {_us(costs.broker_run_per_worker)} for each worker",
            _us(costs.collector_run),
        ],
        [
            "of a process without work, % of a core",
            _percent(worker.idle),
            _percent(client.idle),
            f"{_percent(costs.broker_idle)} + {_percent(costs.broker_worker)} for each worker",
            _percent(costs.collector_idle),
        ],
    ]
    return f"{markdown(rows)}\n\nThe window is {1e3 * costs.window:g} ms."


def _check(results: ScaleResults) -> str:
    costs = engine_costs(results)
    found = list(errors(costs, results.growth))
    rows = [["workers", "measurements", "median error of workers / client / all", "largest error of all", "in the fit"]]
    for workers in sorted({one.held.workers for one in found}):
        some = [one for one in found if one.held.workers == workers]
        worst = max(some, key=lambda one: abs(one.total))
        middle = (median(abs(value(one)) for one in some) for value in _ERRORS)
        rows.append(
            [
                str(workers),
                str(len(some)),
                " / ".join(f"{100 * value:.0f} %" for value in middle),
                f"{100 * worst.total:+.0f} % ({worst.held.streams:,} streams, {worst.held.clients} clients)",
                "yes" if workers == 1 else "no",
            ]
        )
    return markdown(rows)


_ERRORS: list[Callable[[PointError], float]] = [
    lambda one: one.worker,
    lambda one: one.client,
    lambda one: one.total,
]


def _predictions(results: ScaleResults) -> str:
    costs = engine_costs(results)
    rows = [
        [
            "load", "cores", "one engine: streams at once", "chunks/s", "runs/s", "broker / collector, of a core",
            "with as many engines as it takes", "streams at once", "workers / clients",
        ]
    ]  # fmt: skip
    for demand, one, many in capacities(costs):
        rows.append(
            [
                demand.name,
                f"{one.cores:,}",
                f"{_figure(one.streams)}",
                _figure(one.chunk_rate),
                _figure(one.run_rate),
                f"{one.broker:.2f} / {one.collector:.2f}",
                f"{many.engines:,}",
                _figure(many.streams),
                f"{many.workers:,} / {many.clients:,}",
            ]
        )
    return markdown(rows)


def _figure(value: float) -> str:
    """Return a figure with two significant digits: more would promise too much."""
    return f"{float(f'{value:.1e}'):,.0f}"


def _us(seconds: float) -> str:
    return f"{1e6 * seconds:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


TABLES: dict[str, Callable[[ScaleResults], str]] = {
    "origin": _origin,
    "streams": _streams,
    "full": _full,
    "clients": _storms,
    "growth": _growth,
    "runs": _runs,
    "costs": _costs,
    "check": _check,
    "predictions": _predictions,
}
"""What can stand between two comments."""
