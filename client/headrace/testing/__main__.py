"""``python -m headrace.testing``: the simulated provider as a child process of ``SimulatedProvider(process=True)``.

Reads the default script from standard input, as one line of JSON. Prints one line with its port. Serves until standard
input ends.
"""

from __future__ import annotations

import argparse
import os
import sys

import msgspec

from headrace.process.standard_streams import guarded
from headrace.testing.server import run_server
from headrace.testing.shared.script import Script


def main() -> int:
    """Serve until the parent process has ended; return the exit code."""
    return guarded(_serve)


def _serve() -> int:
    parser = argparse.ArgumentParser(prog="python -m headrace.testing", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    line = sys.stdin.buffer.readline().strip()
    try:
        script = msgspec.json.decode(line, type=Script) if line else None
        run_server(arguments.host, arguments.port, script, _announce, until=_read_to_end)
    except (msgspec.DecodeError, RecursionError) as error:
        return _failed(f"standard input has no script that can be used: {error}")
    except (OSError, OverflowError) as error:
        return _failed(f"cannot listen on {arguments.host} port {arguments.port}: {error}")
    return 0


def _failed(text: str) -> int:
    print(f"headrace: {text}", file=sys.stderr)
    return 2


def _announce(port: int) -> None:
    print(msgspec.json.encode({"port": port}).decode(), flush=True)


def _read_to_end() -> None:
    # Not through sys.stdin: a waiting thread would hold its lock, and the interpreter's shutdown would fail.
    while os.read(sys.stdin.fileno(), 4096):
        pass


if __name__ == "__main__":
    sys.exit(main())
