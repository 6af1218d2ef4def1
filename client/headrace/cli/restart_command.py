"""``headrace restart``: have an engine replace its workers, one after another. No stream is lost by it.

The engine is asked over its socket, whose other end the kernel vouches for. No process is sent a signal.
"""

from __future__ import annotations

import argparse

from headrace.cli.engine_question import answer_of
from headrace.cli.serve_directory import address_of, found_directory
from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.cli.shared.option_types import timeout
from headrace.cli.shared.terminal import one_line
from headrace.connections.connection import Connection

NAME = "restart"
HELP = "Replace an engine's workers, one after another"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--engine", metavar="ADDRESS", help="default: $HEADRACE_ENGINE, else where `headrace serve` has it"
    )
    parser.add_argument("--timeout", type=timeout, default=10.0, metavar="SECONDS", help="for its answer; default: 10")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Ask the engine, and say that it does so; raises CommandError or EngineUnavailableError where it does not."""
    directory = found_directory(arguments.engine)
    answer = answer_of(address_of(directory), arguments.timeout, Connection.post_restart)
    if answer.problem:
        raise CommandError(ExitCode.UNAVAILABLE, f"no workers are replaced: {one_line(answer.problem)}")
    print("The workers are being replaced, one after another; `headrace status` shows it.")
    return ExitCode.OK
