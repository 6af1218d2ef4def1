"""The benchmark's results as text.

Ratios to the floor, absolute figures beside them, Headrace's targets, and who used the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from bench.works import TARGETS, Reading, Work


class Result(msgspec.Struct, frozen=True):
    """One contestant's round of one work. CPU in seconds and memory in KB are by role; ``p99`` is the median of the rounds'."""

    contestant: str
    work: str
    cpu: dict[str, float] = {}
    memory: dict[str, float] = {}
    reading: Reading | None = None
    fault: str = ""
    p99: float = 0.0

    def total_cpu(self) -> float:
        """Return the whole tree's CPU per chunk, so that works that were given up compare."""
        return self.cpu_of(None)

    def cpu_of(self, role: str | None) -> float:
        """Return the CPU per chunk of the processes with this role; ``None``: of the whole tree."""
        seconds = sum(self.cpu.values()) if role is None else self.cpu.get(role, 0.0)
        return seconds / max(self.reading.chunks if self.reading else 0, 1)

    def total_memory(self) -> float:
        """Return the whole tree's growth in KB per answer held."""
        return sum(self.memory.values()) / max(self.reading.held if self.reading else 0, 1)


Results = dict[tuple[str, str], Result]
Cell = Callable[[Result, Result | None], str]


def print_tables(names: Sequence[str], works: Sequence[Work], results: Results) -> None:
    """Print everything."""
    for work in works:
        print(f"{work.name:4} {work.shows}")
    print("\ntimes the floor (CPU µs of the whole client-side tree per chunk; W3: per request)")
    columns = _columns([work.name for work in works])
    rows = [[name, *(_cell(results, name, work, cell) for _, work, cell in columns)] for name in names]
    target = ["target for headrace", *(TARGETS.get(title, "") for title, _, _ in columns)]
    at = names.index("headrace") + 1 if "headrace" in names else len(rows)
    print_rows(["", *(title for title, _, _ in columns)], [*rows[:at], target, *rows[at:]])
    print("\np50 / p99 in ms: of a chunk from the provider's write to the reader, of the first chunk from the call")
    titles: list[str] = []
    for work in works:
        titles += [f"{work.name} chunk"] if work.is_stamped else []
        titles += [f"{work.name} first"] if not work.stays_open else []
    print_rows(["", *titles], [[name, *(_latency(results, name, title) for title in titles)] for name in names])
    print("\nCPU µs per chunk or request by process")
    for result in (results.get((name, work.name)) for name in names for work in works if not work.stays_open):
        if result is not None and result.reading is not None and len(result.cpu) > 1:
            parts = ", ".join(f"{role} {_per_chunk(result, cpu):.1f}" for role, cpu in sorted(result.cpu.items()))
            reading = result.reading
            print(f"  {result.contestant} {result.work}: {parts}; {reading.chunks} chunks in {reading.deltas} deltas")
    _print_faults(results)


def _columns(works: Sequence[str]) -> list[tuple[str, str, Cell]]:
    columns: list[tuple[str, str, Cell]] = []
    for name in works:
        if name == "W4":
            columns.append((name, name, _memory))
            continue
        columns.append((name, name, _ratio))
        if name == "W2":
            columns += [("W2 chunks/s", name, _speed), ("W2 held", name, _held), ("W2 p99", name, _p99)]
    return columns


def _cell(results: Results, name: str, work: str, cell: Cell) -> str:
    result = results.get((name, work))
    if result is None:
        return ""
    return cell(result, results.get(("floor", work))) if result.reading is not None else "failed"


def _per_chunk(result: Result, seconds: float) -> float:
    return seconds / max(result.reading.chunks if result.reading else 0, 1) * 1e6


def _ratio(result: Result, floor: Result | None) -> str:
    cpu = result.total_cpu()
    ratio = f"{cpu / floor.total_cpu():.1f} " if floor is not None and floor.reading is not None else ""
    wrong = f" {result.reading.faults} faults" if result.reading and result.reading.faults else ""
    return f"{ratio}({cpu * 1e6:.1f}){wrong}"


def _speed(result: Result, _: Result | None) -> str:
    return f"{result.reading.chunks / result.reading.seconds:,.0f}" if result.reading else ""


def _held(result: Result, _: Result | None) -> str:
    return str(result.reading.held) if result.reading else ""


def _p99(result: Result, _: Result | None) -> str:
    return _milliseconds(result.p99) + " ms"


def _memory(result: Result, _: Result | None) -> str:
    if result.reading is None or not result.reading.held:
        return "none held"
    wrong = f" {result.reading.faults} faults" if result.reading.faults else ""
    return f"{result.total_memory():.0f} KB{wrong}"


def _latency(results: Results, name: str, title: str) -> str:
    work, kind = title.split()
    result = results.get((name, work))
    if result is None or result.reading is None:
        return ""
    figures = result.reading.latency if kind == "chunk" else result.reading.first
    return " / ".join(_milliseconds(figure) for figure in figures)


def _milliseconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _print_faults(results: Results) -> None:
    lines = [(result, result.fault or (result.reading.fault if result.reading else "")) for result in results.values()]
    if any(fault for _, fault in lines):
        print("\nfaults")
    for result, fault in lines:
        if fault:
            print(f"  {result.contestant} {result.work}: {result.reading.faults if result.reading else 'all'}: {fault}")


def print_rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    for row in [titles, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
