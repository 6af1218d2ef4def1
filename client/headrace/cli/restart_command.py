"""``headrace restart``: tells an engine to replace its workers, one after another. No stream is lost.

The command asks over the engine's socket, and the kernel says who is at its other end. No process is sent a signal.
"""

from __future__ import annotations

import argparse

from headrace.cli.serve_directory import address_of, found_directory
from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.cli.shared.option_types import timeout
from headrace.cli.shared.terminal import one_line
from headrace.connections.connection import Connection
from headrace.connections.engine_question import answer_of

NAME = "restart"
HELP = "Replace an engine's workers, one after another; no stream is lost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--engine", metavar="ADDRESS", help="the engine; default: $HEADRACE_ENGINE, else the engine of `headrace serve`"
    )
    parser.add_argument(
        "--timeout", type=timeout, default=10.0, metavar="SECONDS", help="how long to wait for the answer; default: 10"
    )


def main(arguments: argparse.Namespace) -> ExitCode:
    """Ask the engine to replace its workers.

    Raises CommandError if it refuses, EngineUnavailableError if it does not answer.
    """
    directory = found_directory(arguments.engine)
    answer = answer_of(address_of(directory), arguments.timeout, Connection.post_restart)
    if answer.problem:
        raise CommandError(ExitCode.UNAVAILABLE, f"the engine does not replace its workers: {one_line(answer.problem)}")
    print("The engine replaces its workers, one after another. `headrace status` shows the progress.")
    return ExitCode.OK
