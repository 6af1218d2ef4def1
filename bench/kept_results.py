"""A run of the benchmark as a file: its results with the commit, the machine, the date and the versions of what was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.contestant_list import Contestant
from bench.start import StartFigures
from bench.summary import Result

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "bench" / "results"
_DIGITS = 4
"""Significant digits of a figure in the file: more would only show noise."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where the benchmark ran. ``load`` is the machine's load average of the last minute when it began."""

    processor: str
    cores: int
    kernel: str
    python: str
    load: float


class KeptResults(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. ``commit`` ends with ``+`` if files were changed since. ``seconds`` is how long it took.

    ``is_awake``: idle processors were kept awake (``awake.py``).
    """

    commit: str
    date: str
    machine: Machine
    versions: dict[str, str]
    rounds: int
    seconds: float
    results: list[Result]
    start: StartFigures | None = None
    is_awake: bool = False


def this_machine() -> Machine:
    """Describe the machine that this program runs on."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load=os.getloadavg()[0],
    )


def this_commit() -> str:
    """Return the short name of the commit that is checked out."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")


def today() -> str:
    """Return the date."""
    return datetime.now(UTC).date().isoformat()


def versions_of(contestants: Sequence[Contestant]) -> dict[str, str]:
    """Return the version of each package that the contestants name, as it is installed for them."""
    found: dict[str, str] = {}
    for contestant in contestants:
        site = next(Path(contestant.python).parent.parent.glob("lib/python*/site-packages"), None)
        for package in contestant.packages:
            for distribution in importlib.metadata.distributions(name=package, path=[str(site)]):
                found[package] = distribution.version
    return found


def save(kept: KeptResults, name: str) -> Path:
    """Write a run to ``bench/results/NAME.json``, one result a line, and return the file. Replaces an earlier file."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_bytes(encoded(kept))
    return path


def load(path: Path) -> KeptResults:
    """Read a file that ``save`` has written. Raises OSError or msgspec.DecodeError."""
    return msgspec.json.decode(path.read_bytes(), type=KeptResults)


def encoded(kept: KeptResults) -> bytes:
    """Return the file's bytes: JSON with a field of the run, and then a result, on each line."""
    fields = _rounded(msgspec.to_builtins(kept))
    assert isinstance(fields, dict)
    results = fields.pop("results")
    lines = [f'"{name}": '.encode() + msgspec.json.encode(value) for name, value in fields.items()]
    lines.append(b'"results": [\n' + b",\n".join(map(msgspec.json.encode, results)) + b"\n]")
    return b"{\n" + b",\n".join(lines) + b"\n}\n"


def _rounded(value: object) -> object:
    match value:
        case float():
            return float(f"{value:.{_DIGITS}g}")
        case dict():
            return {name: _rounded(one) for name, one in value.items()}
        case list():
            return [_rounded(one) for one in value]
        case _:
            return value


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
