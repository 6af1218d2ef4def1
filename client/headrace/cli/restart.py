"""``headrace restart``: have an engine replace its workers, one after another. No stream is lost by it."""

from __future__ import annotations

import argparse
import os
import signal

from headrace.cli.engine_directory import default_directory
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.embedded import is_engine_running
from headrace.engine_folders import LOCK_FILE
from headrace.settings import directory_of

NAME = "restart"
HELP = "Replace an engine's workers, one after another"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--engine", metavar="ADDRESS", help="default: $HEADRACE_ENGINE, else where `headrace serve` has it"
    )


def main(arguments: argparse.Namespace) -> ExitCode:
    """Tell the engine's supervisor, and return; raises CommandError where there is none."""
    address = arguments.engine or os.environ.get("HEADRACE_ENGINE")
    directory = directory_of(address) if address else default_directory()
    if not is_engine_running(directory):
        raise CommandError(ExitCode.UNAVAILABLE, f"no engine runs in {directory}; start one with `headrace serve`")
    try:
        pid = int((directory / LOCK_FILE).read_text())
        os.kill(pid, signal.SIGHUP)
    except (OSError, ValueError) as error:
        raise CommandError(ExitCode.UNAVAILABLE, f"the engine in {directory} cannot be told: {error}") from error
    print("The workers are being replaced, one after another; `headrace status` shows it.")
    return ExitCode.OK
