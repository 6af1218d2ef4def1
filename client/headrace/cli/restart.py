"""``headrace restart``: have an engine replace its workers, one after another. No stream is lost by it."""

from __future__ import annotations

import argparse
import os
import signal

from headrace.cli.engine_directory import found_directory
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.engine_folders import LOCK_FILE

NAME = "restart"
HELP = "Replace an engine's workers, one after another"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--engine", metavar="ADDRESS", help="default: $HEADRACE_ENGINE, else where `headrace serve` has it"
    )


def main(arguments: argparse.Namespace) -> ExitCode:
    """Tell the engine's supervisor, and return; raises CommandError where there is none."""
    directory = found_directory(arguments.engine)
    try:
        pid = int((directory / LOCK_FILE).read_text())
        os.kill(pid, signal.SIGHUP)
    except (OSError, ValueError) as error:
        raise CommandError(ExitCode.UNAVAILABLE, f"the engine in {directory} cannot be told: {error}") from error
    print("The workers are being replaced, one after another; `headrace status` shows it.")
    return ExitCode.OK
