"""``headrace serve``: runs an engine in the foreground, shared by many programs. This process becomes the engine."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from headrace.cli.serve_directory import address_of, default_directories, made_directory, make_private
from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.cli.shared.option_types import count, figure, number
from headrace.cli.shared.terminal import dim
from headrace.files.engine_directory import foreign_entries, is_engine_running
from headrace.files.state_directory import expanded
from headrace.process.child_environment import environment_of
from headrace.process.hook_check import is_hook_usable
from headrace.process.import_path import child_environment
from headrace.process.interpreter import find_interpreter
from headrace.settings.log_variables import FORMAT_VARIABLE, LOG_FORMATS, log_format
from headrace.settings.provider_keys import check_keys
from headrace.settings.settings import directory_of, load_settings

NAME = "serve"
HELP = "Run an engine that many programs share"

_HINT = (
    "Programs with this variable in their environment share the engine. `headrace status` shows it, Ctrl-C ends it"
    " (a second Ctrl-C: at once), `headrace restart` replaces its workers."
)
"""A remark for people. Not printed if the log is JSON: then each line on standard error is a JSON object."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    default = next(map(str, default_directories()), "a new one in the temporary directory").replace("%", "%%")
    parser.add_argument(
        "--directory", type=Path, metavar="PATH", help=f"the directory for its sockets; default: {default}"
    )
    parser.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="number of worker processes; default: one for every two cores, at most 8",
    )
    parser.add_argument(
        "--drain-timeout",
        type=_seconds,
        metavar="SECONDS",
        default=30.0,
        help="at the end, how long running streams may go on; default: 30",
    )
    parser.add_argument(
        "--log-format",
        choices=LOG_FORMATS,
        help=f"the format of the log on standard error; default: ${FORMAT_VARIABLE}, else text",
    )


def main(arguments: argparse.Namespace) -> NoReturn:
    """Become the engine. Raises CommandError if it cannot start, and ConfigurationError for invalid settings."""
    # The engine checks all of this again. It is checked here so that errors come before any output.
    environ = {**os.environ}
    if arguments.log_format is not None:
        environ[FORMAT_VARIABLE] = arguments.log_format
    settings = load_settings(environ)
    check_keys(settings, environ)
    if not is_hook_usable(settings.spans, environment_of("worker", environ, settings)):
        raise SystemExit(ExitCode.USAGE)
    directory = _prepared(arguments.directory)
    if is_engine_running(directory):
        raise CommandError(ExitCode.UNAVAILABLE, f"an engine runs in {directory} already; `headrace status` shows it")
    print(f"export HEADRACE_ENGINE={shlex.quote(address_of(directory))}", flush=True)
    if log_format(environ) == "text":
        print(dim(_HINT, sys.stderr), file=sys.stderr, flush=True)
    interpreter = find_interpreter()
    command = [interpreter, "-m", "headrace_engine", "--directory", str(directory)]
    command += ["--drain-timeout", f"{arguments.drain_timeout}"]
    if arguments.workers is not None:
        command += ["--workers", f"{arguments.workers}"]
    # `python -m` would put the current directory on the import path. The environment prevents that.
    os.execve(interpreter, command, child_environment(environment_of("supervisor", environ, settings)))  # noqa: S606 - no shell is wanted


def _prepared(given: Path | None) -> Path:
    directory = made_directory() if given is None else _made(given)
    try:
        problem = foreign_entries(directory)
    except OSError as error:
        problem = f"{directory} cannot be read: {error.strerror}"
    if problem is not None:
        raise CommandError(ExitCode.UNAVAILABLE, f"{problem}; choose an empty directory with --directory")
    return directory


def _made(given: Path) -> Path:
    try:
        directory = expanded(str(given)).absolute()
    except RuntimeError:
        raise CommandError(
            ExitCode.USAGE, f"--directory {given}: the home directory does not exist; name the directory without ~"
        ) from None
    directory_of(address_of(directory))  # raises ConfigurationError if the path is too long for sockets
    make_private(directory)
    return directory


def _count(text: str) -> int:
    workers = count(text)
    if workers == 0:
        raise argparse.ArgumentTypeError("takes a number above 0")
    figure(workers, "workers")
    return workers


def _seconds(text: str) -> float:
    return figure(number(text), "worker_drain_timeout")
