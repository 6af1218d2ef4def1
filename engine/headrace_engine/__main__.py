"""``python -m headrace_engine``: the supervisor; ``python -m headrace_engine broker``: the broker. Started by programs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from headrace.errors import ConfigurationError
from headrace.processes import die_with_parent, ignore_interrupt, log_to_stderr
from headrace.settings import load_settings
from headrace_engine.exit_codes import ExitCode


def main() -> int:
    """Run the process that the command line names; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m headrace_engine", description="A Headrace engine.")
    parser.add_argument("role", nargs="?", choices=["supervisor", "broker"], default="supervisor")
    parser.add_argument("--directory", type=Path, required=True, help="where its sockets are; for its owner only")
    parser.add_argument("--parent", type=int, help="the process to end with")
    parser.add_argument("--workers", type=int, help="worker processes (default: one for every two cores, at most 8)")
    parser.add_argument("--drain-timeout", type=float, default=30.0, help="seconds for running streams after SIGTERM")
    parser.add_argument("--epoch", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    log_to_stderr(arguments.role)
    try:
        config = load_settings(os.environ).engine
    except ConfigurationError as error:
        print(f"headrace: {error}", file=sys.stderr)
        return ExitCode.USAGE
    if arguments.role == "broker":
        from headrace_engine.broker import Broker

        ignore_interrupt()
        die_with_parent(arguments.parent)
        Broker(arguments.directory, config, arguments.parent).run()
        return ExitCode.OK

    from headrace_engine.supervisor import EngineStartError, Supervisor, SupervisorSettings

    if arguments.parent is not None:
        ignore_interrupt()
    settings = SupervisorSettings(
        directory=arguments.directory,
        workers=arguments.workers or config.worker_count(),
        parent=arguments.parent,
        drain_timeout=arguments.drain_timeout,
    )
    try:
        return Supervisor(settings).run()
    except (EngineStartError, OSError) as error:
        print(f"headrace: the engine cannot start: {error}", file=sys.stderr)
        return ExitCode.CANNOT_START


if __name__ == "__main__":
    sys.exit(main())
