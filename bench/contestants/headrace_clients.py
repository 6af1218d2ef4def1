"""Headrace as a service: ``headrace serve`` with one worker, and two client programs, each of which does half of the work.

This program only starts and joins them: each client is a process of ``headrace.py``, with the same protocol.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.contestants.common import say
from bench.works import Reading, Work

_CLIENTS = 2


def main() -> None:
    """Be the contestant."""
    work = msgspec.json.decode(sys.argv[1], type=Work)
    part = msgspec.structs.replace(work, requests=work.requests // _CLIENTS, at_once=work.at_once // _CLIENTS)
    with _engine() as address, contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "bench.contestants.headrace", msgspec.json.encode(part).decode()]
        clients = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"HEADRACE_ENGINE": address},
                )
            )
            for _ in range(_CLIENTS)
        ]
        for word in ("warm", "done"):
            for client in clients:
                _expect(client, word)
            say(word)
            for client in clients:
                _line_to(client)
        readings = [msgspec.json.decode(client.communicate()[0], type=Reading) for client in clients]
    print(msgspec.json.encode(joined(readings)).decode(), flush=True)


def joined(readings: list[Reading]) -> Reading:
    """Return the readings of clients that worked at the same time as one. Of times it has those of the slowest client."""

    def slowest(lists: list[list[float]]) -> list[float]:
        return [max(values) for values in zip(*lists, strict=True)]

    return Reading(
        seconds=max(reading.seconds for reading in readings),
        chunks=sum(reading.chunks for reading in readings),
        deltas=sum(reading.deltas for reading in readings),
        complete=sum(reading.complete for reading in readings),
        held=sum(reading.held for reading in readings),
        first=slowest([reading.first for reading in readings]),
        latency=slowest([reading.latency for reading in readings]),
        latency_curve=slowest([reading.latency_curve for reading in readings]),
        faults=sum(reading.faults for reading in readings),
        fault=next((reading.fault for reading in readings if reading.fault), ""),
    )


@contextlib.contextmanager
def _engine() -> Iterator[str]:
    """Start ``headrace serve``, wait until its clients can use it, and end it. Yields its address."""
    folder = tempfile.mkdtemp(prefix="hr-", dir="/tmp")  # the path of a socket has room for 107 bytes
    command = [sys.executable, "-m", "headrace", "serve", "--directory", folder, "--workers", "1"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as engine:
        try:
            yield f"ipc://{Path(folder)}"
        finally:
            engine.terminate()
            engine.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _expect(client: subprocess.Popen[str], word: str) -> None:
    assert client.stdout is not None
    if (line := client.stdout.readline().strip()) != word:
        raise SystemExit(f"a client said {line!r} where {word!r} was due")


def _line_to(client: subprocess.Popen[str]) -> None:
    assert client.stdin is not None
    client.stdin.write("\n")
    client.stdin.flush()


if __name__ == "__main__":
    main()
