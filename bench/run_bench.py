"""The benchmark: all contestants side by side in one run, each work in a fresh process, medians, and a table of ratios to the floor.

``python -m bench.run_bench`` from the root of the repository; ``scripts/bench`` sees to the rest. ``works.py`` says what is done.
``--beside CHECKOUT`` measures another version of Headrace in turn with this one.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec

from bench.measure import TreeFigures, mark, used
from bench.side_by_side import print_side_by_side
from bench.table import Result, Results, print_tables
from bench.works import WORKS, Reading, Work

ROOT = Path(__file__).resolve().parent.parent
CONTESTANTS = {
    "floor": "floor",
    "headrace": "headrace",
    "headrace, threads": "headrace_threads",
    "httpx": "plain_httpx",
    "openai SDK": "openai_sdk",
}
QUICK = ["floor", "headrace"]
ONLY = {"headrace, threads": {"W1", "W3"}}
SLOW = {"httpx", "openai SDK"}
"""Measured in one round: more would take minutes, and the differences here are no matter of noise."""
_GRACE = 30.0
"""Seconds beyond a work's limit for starting, warming up and reporting."""


class ContestantError(Exception):
    """A contestant gave no reading."""


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(prog="python -m bench.run_bench", description="Headrace's benchmark.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the median counts")
    parser.add_argument("--quick", action="store_true", help="headrace and the floor only, one round")
    parser.add_argument("--works", default=",".join(work.name for work in WORKS), help="which works, by commas")
    parser.add_argument("--contestants", default=";".join(CONTESTANTS), help="which contestants, by semicolons")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    parser.add_argument(
        "--beside",
        type=_checkout,
        metavar="CHECKOUT",
        help="measure headrace only, in turn with the version in this checkout, whose scripts/bench has run once",
    )
    arguments = parser.parse_args()
    names = QUICK if arguments.quick else arguments.contestants.split(";")
    roots = dict.fromkeys(names, ROOT)
    if arguments.beside is not None:
        names = ["headrace", f"headrace of {arguments.beside.name}"]
        roots = dict(zip(names, (ROOT, arguments.beside), strict=True))
    works = [work for work in WORKS if work.name in arguments.works.split(",")]
    rounds = 1 if arguments.quick else arguments.rounds
    started = time.monotonic()
    with _provider() as port, tempfile.TemporaryDirectory(prefix="headrace-bench-") as data:
        os.environ["HEADRACE_DATA"] = data  # what is measured is nothing for the user's own spans
        results = list(_measure_all(port, roots, works, rounds))
    print_tables(names, works, _medians(results, {work.name for work in works if work.stays_open}))
    if arguments.beside is not None:
        print_side_by_side(results, (names[0], names[1]), works)
    once = f" ({', '.join(slow)}: 1)" if (slow := sorted(SLOW & set(names))) else ""
    print(f"\n{rounds} rounds{once} in {time.monotonic() - started:.0f} s")
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    if any(result.reading is None or result.reading.faults for result in results):
        sys.exit(1)


def _checkout(text: str) -> Path:
    root = Path(text).resolve()
    if not _python(root).exists():
        raise argparse.ArgumentTypeError(f"{_python(root)} does not exist; run scripts/bench --quick in {root} first")
    return root


def _python(root: Path) -> Path:
    return root / ".venv" / "bin" / "python"


def _measure_all(port: int, roots: Mapping[str, Path], works: Sequence[Work], rounds: int) -> Iterator[Result]:
    names = list(roots)
    for number in range(rounds):
        for work in works:
            for name in [*names[number % len(names) :], *names[: number % len(names)]]:
                if (number and name in SLOW) or work.name not in ONLY.get(name, {work.name}):
                    continue
                print(f"\rround {number + 1}: {work.name} {name:30}", end="", file=sys.stderr, flush=True)
                try:
                    yield _measure(port, name, roots[name], work)
                except ContestantError as error:
                    yield Result(name, work.name, fault=str(error))
                _forget_requests(port)
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)


def _measure(port: int, name: str, root: Path, work: Work) -> Result:
    python = sys.executable if root == ROOT else str(_python(root))
    command = [
        python,
        "-m",
        f"bench.contestants.{CONTESTANTS[name.partition(' of ')[0]]}",
        msgspec.json.encode(work).decode(),
    ]
    provider = {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "sk-simulated"}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=os.environ | provider, cwd=root
        ) as process,
    ):
        watchdog = threading.Timer(work.limit + _GRACE, process.kill)
        watchdog.start()
        try:
            before = _mark_at(process, "warm")
            after = _mark_at(process, "done")
            reading = msgspec.json.decode(process.communicate()[0], type=Reading)
        except (ContestantError, msgspec.DecodeError, BrokenPipeError) as error:
            process.kill()
            errors.seek(0)
            last_words = errors.read().decode(errors="replace").strip().splitlines()[-3:]
            raise ContestantError(f"{error}; {' | '.join(last_words)}") from None
        finally:
            watchdog.cancel()
    return Result(name, work.name, used(before.cpu, after.cpu), used(before.memory, after.memory), reading)


def _mark_at(process: subprocess.Popen[bytes], word: str) -> TreeFigures:
    assert process.stdout is not None
    assert process.stdin is not None
    line = process.stdout.readline().decode().strip()
    if line != word:
        raise ContestantError(f"it said {line!r} where {word!r} was due")
    taken = mark(process.pid)
    process.stdin.write(b"\n")
    process.stdin.flush()
    return taken


def _medians(results: Sequence[Result], memory_works: set[str]) -> Results:
    """Return for each contestant and work the round with the median figure, so that its parts belong together."""
    merged: Results = {}
    for key in {(result.contestant, result.work) for result in results}:
        rounds = [result for result in results if (result.contestant, result.work) == key]
        figure = Result.total_memory if key[1] in memory_works else Result.total_cpu
        good = sorted((result for result in rounds if result.reading is not None), key=figure)
        chosen = good[(len(good) - 1) // 2] if good else rounds[0]
        faults = [result.fault for result in rounds if result.fault]
        merged[key] = msgspec.structs.replace(
            chosen,
            fault=faults[0] if faults else "",
            p99=median(result.reading.latency[1] for result in good if result.reading) if good else 0.0,
        )
    return merged


@contextlib.contextmanager
def _provider() -> Iterator[int]:
    command = [sys.executable, "-m", "bench.stamping_provider"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


def _forget_requests(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/_headrace/clear")
    connection.getresponse().read()
    connection.close()


if __name__ == "__main__":
    main()
