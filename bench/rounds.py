"""Runs the contestants in turn, round by round, and measures each from outside: CPU and memory of its process tree, and the provider's CPU.

The order of the contestants turns by one in each round, so that none always runs behind the same other one.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.contestant_list import Contestant
from bench.measure import TreeFigures, end_tree, mark, own_cpu, used
from bench.summary import Result
from bench.works import Reading, Work

ROOT = Path(__file__).resolve().parent.parent


class Entry(msgspec.Struct, frozen=True):
    """A contestant of one checkout, under the name that its results have."""

    name: str
    contestant: Contestant
    root: Path = ROOT

    @property
    def python(self) -> str:
        """The Python that runs it."""
        return self.contestant.python if self.root == ROOT else str(python_of(self.root))


class Provider(NamedTuple):
    """The simulated provider: the port it listens at, and its process."""

    port: int
    pid: int


class ContestantError(Exception):
    """A contestant gave no reading."""


def python_of(root: Path) -> Path:
    """Return the Python of a checkout's virtual environment."""
    return root / ".venv" / "bin" / "python"


@contextlib.contextmanager
def provider() -> Iterator[Provider]:
    """Run the simulated provider."""
    command = [sys.executable, "-m", "bench.stamping_provider"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        yield Provider(int(process.stdout.readline()), process.pid)


def measure_all(served: Provider, entries: Sequence[Entry], works: Sequence[Work], rounds: int) -> Iterator[Result]:
    """Yield the result of each round of each contestant and work, as it comes. Tells on standard error what runs."""
    for number in range(rounds):
        at = number % max(len(entries), 1)
        for work in works:
            for entry in [*entries[at:], *entries[:at]]:
                if not entry.contestant.does(work.name, number):
                    continue
                print(f"\rround {number + 1}: {work.name} {entry.name:30}", end="", file=sys.stderr, flush=True)
                try:
                    yield _measure(served, entry, work, number)
                except ContestantError as error:
                    yield Result(entry.name, work.name, fault=str(error), number=number)
                _forget_requests(served.port)
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)


def _measure(served: Provider, entry: Entry, work: Work, number: int) -> Result:
    contestant = entry.contestant
    command = [entry.python, "-m", f"bench.contestants.{contestant.module}", msgspec.json.encode(work).decode()]
    address = {"OPENAI_BASE_URL": f"http://127.0.0.1:{served.port}/v1", "OPENAI_API_KEY": "sk-simulated"}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_surroundings() | address | contestant.environ,
            cwd=ROOT,  # the same contestants for both versions: each Python has its own version of Headrace
        ) as process,
    ):
        watchdog = threading.Timer(work.limit + contestant.starting, end_tree, [process.pid])
        watchdog.start()
        try:
            before, provider_before = _mark_at(process, "warm", served.pid)
            after, provider_after = _mark_at(process, "done", served.pid)
            reading = msgspec.json.decode(process.communicate()[0], type=Reading)
        except (ContestantError, msgspec.DecodeError, BrokenPipeError) as error:
            end_tree(process.pid)
            errors.seek(0)
            last_words = errors.read().decode(errors="replace").strip().splitlines()[-3:]
            raise ContestantError(f"{error}; {' | '.join(last_words)}") from None
        finally:
            watchdog.cancel()
    return Result(
        entry.name,
        work.name,
        cpu=used(before.cpu, after.cpu),
        memory=used(before.memory, after.memory),
        reading=reading,
        number=number,
        provider_cpu=provider_after - provider_before,
    )


def _surroundings() -> dict[str, str]:
    """Return this process's environment without what would change a contestant: the user's engine and settings, and proxies."""
    own = {"HEADRACE_DATA": os.environ["HEADRACE_DATA"]} if "HEADRACE_DATA" in os.environ else {}
    return own | {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HEADRACE_") and not name.lower().endswith("_proxy")
    }


def _mark_at(process: subprocess.Popen[bytes], word: str, provider_pid: int) -> tuple[TreeFigures, float]:
    assert process.stdout is not None
    assert process.stdin is not None
    line = process.stdout.readline().decode().strip()
    if line != word:
        raise ContestantError(f"it said {line!r} where {word!r} was due")
    taken = mark(process.pid), own_cpu(provider_pid)
    process.stdin.write(b"\n")
    process.stdin.flush()
    return taken


def _forget_requests(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/_headrace/clear")
    connection.getresponse().read()
    connection.close()
