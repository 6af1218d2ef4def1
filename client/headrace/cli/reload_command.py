"""``headrace reload``: has an engine read its settings, limits and key files again. No stream is lost.

The engine checks the settings first. If they cannot be used, nothing changes. Workers with the new settings and keys
replace the present ones, one after another: running streams finish with the key that they began with.
"""

from __future__ import annotations

import argparse

from headrace.cli import restart_command
from headrace.cli.serve_directory import address_of, found_directory
from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.cli.shared.terminal import one_line
from headrace.connections.connection import Connection
from headrace.connections.engine_question import answer_of

NAME = "reload"
HELP = "Have an engine read its settings, limits and key files again; no stream is lost"
add_arguments = restart_command.add_arguments


def main(arguments: argparse.Namespace) -> ExitCode:
    """Ask the engine to read its settings again.

    Raises CommandError if it refuses, for example because the settings cannot be used, and EngineUnavailableError if it
    does not answer.
    """
    directory = found_directory(arguments.engine)
    answer = answer_of(address_of(directory), arguments.timeout, Connection.post_reload)
    if answer.problem:
        code = ExitCode.USAGE if answer.reload else ExitCode.UNAVAILABLE
        raise CommandError(code, f"the engine keeps its settings: {one_line(answer.problem)}")
    print("The engine has read its settings and replaces its workers. `headrace status` shows the progress.")
    return ExitCode.OK
