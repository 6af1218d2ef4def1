"""``headrace status``: shows the state of an engine: its runs, workers, processes, limits and spans."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import msgspec

from headrace.cli.limit_rows import POOL_HEAD, SPENDING_HEAD, pool_row, shown_waits, spending_row
from headrace.cli.serve_directory import address_of, found_directory
from headrace.cli.shared.exit_codes import ExitCode
from headrace.cli.shared.option_types import timeout
from headrace.cli.shared.terminal import as_json, bold, dim, one_line, red
from headrace.connections.connection import Connection
from headrace.connections.engine_question import answer_of
from headrace.process.standard_streams import print_json
from headrace.spans import value_bounds as span_bounds
from headrace.wire.engine_status import SpanStatus
from headrace.wire.messages import Status

NAME = "status"
HELP = "Show the state of an engine: runs, workers, processes, limits, spans"

_STALE = 10.0  # seconds without a report of the collector, which reports every four seconds at least
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--engine", metavar="ADDRESS", help="the engine; default: $HEADRACE_ENGINE, else the engine of `headrace serve`"
    )
    parser.add_argument(
        "--timeout", type=timeout, default=2.0, metavar="SECONDS", help="how long to wait for the answer; default: 2"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Show the engine's state. Raises EngineUnavailableError if no engine answers."""
    address = arguments.engine or os.environ.get("HEADRACE_ENGINE") or address_of(found_directory(None))
    status = engine_status(address, arguments.timeout)
    if arguments.json:
        print_json(as_json({"address": address} | msgspec.to_builtins(_fields(status)), indent=2), sys.stdout)
    else:
        _show(address, status)
    return ExitCode.OK


def engine_status(address: str, timeout: float) -> Status:
    """Return the state of the engine at ``address``. Waits ``timeout`` seconds for it.

    Raises ConfigurationError for an invalid address, and EngineUnavailableError if no answer comes in time.
    """
    return answer_of(address, timeout, Connection.post_status)


def _fields(status: Status) -> dict[str, object]:
    return {name: getattr(status, name) for name in status.__struct_fields__}


def _show(address: str, status: Status) -> None:
    out = sys.stdout
    print(bold(one_line(f"engine {address}"), out))
    print(f"  version {one_line(status.version)}, up {_duration(status.uptime)}, broker pid {status.pid}")
    print(f"  runs: {status.leases} now, {status.waiting} waiting; {_since_start(status)}")
    if waits := shown_waits(status.waiting_for):
        print(f"  waiting: {one_line(', '.join(waits))}")
    print(f"  clients: {status.clients}, this command included\n")
    _table(
        ["WORKER", "PID", "STATE", "RUNS", "LAST SEEN"],
        [[w.name, w.pid, w.state, w.runs, f"{w.last_seen:.1f} s ago"] for w in status.workers],
    )
    if status.processes:  # empty until the supervisor's first report, shortly after the start
        print()
        _table(
            ["PROCESS", "PID", "STATE", "RESTARTS", "LAST END"],
            [[p.name, p.pid or "-", p.state, p.restarts, p.reason] for p in status.processes],
        )
    _show_limits(status)
    print()
    _show_spans(status.spans)


def _show_limits(status: Status) -> None:
    """Show the limits, if there are any."""
    if status.pools:
        print()
        _table(POOL_HEAD, [pool_row(pool) for pool in status.pools])
    if status.spending:
        print()
        _table(SPENDING_HEAD, [spending_row(limit) for limit in status.spending])
    if status.budget:
        print(f"\n  limits shared with other engines: {_shared_budget(status.budget)}")


def _shared_budget(state: str) -> str:
    if state == "ok":
        return state
    return red(f"the store cannot be used, so this engine uses its own part; {one_line(state)}", sys.stdout)


def _show_spans(spans: SpanStatus | None) -> None:
    out = sys.stdout
    if spans is None:
        print("  spans: off")
        return
    counts = [f"{spans.stored} stored", f"{spans.waiting} waiting"]
    counts += [f"{spans.recovered} recovered from processes that died"] if spans.recovered else []
    counts += [f"{spans.untraced} untraced"] if spans.untraced else []
    place = f"; in {one_line(spans.directory)}" if spans.directory else ""
    print(f"  spans: {', '.join(counts)}{place}")
    if spans.state != "ok" or spans.error:
        print(red(f"  {': '.join(one_line(text) for text in (spans.state, spans.error) if text)}", out))
    if spans.dropped:
        reasons = ", ".join(f"{count} {one_line(reason)}" for reason, count in sorted(spans.dropped.items()))
        print(red(f"  dropped: {reasons}", out))
    if spans.age > _STALE:
        print(red(f"  the collector's last report is {spans.age:.0f} s old", out))
    if spans.sinks:
        print()
        _table(
            ["SINK", "STATE", "DELIVERED", "PENDING", "FAILED", "ERROR"],
            [[s.name, s.state, s.delivered, s.pending, s.failed, s.error] for s in spans.sinks],
        )
        for sink in spans.sinks:
            if sink.aside:
                text = f"{sink.aside} set aside by {sink.name}, kept in the store; `headrace spans list` names them"
                print(red(f"  {one_line(text)}", out))


def _since_start(status: Status) -> str:
    return f"since the start {status.granted_total} admitted, {status.refused_total} refused"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    out = sys.stdout
    texts = [[one_line(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    for number, row in enumerate([list(head), *texts]):
        line = "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        is_fine = {"ok", "running", "draining"} & set(row)
        print(dim(line, out) if number == 0 else line if is_fine else red(line, out))


def _duration(seconds: float) -> str:
    whole = int(span_bounds.seconds(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
