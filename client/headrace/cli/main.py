"""``headrace``: reads the command line, hands it to a command, and turns what comes of it into an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import headrace
from headrace.cli import restart, run, serve, simulate, spans, status
from headrace.cli.exit_codes import CommandError, ExitCode, exit_code
from headrace.cli.explain import explanation
from headrace.cli.interrupt import end_on_interrupt, on_interrupt, raise_interrupt
from headrace.cli.terminal import red
from headrace.errors import HeadraceError

_EPILOG = """\
try it without a key:
  headrace simulate                            a model provider on this machine; says what to export
  headrace run "Tell me a story" --model gpt-4o
  headrace spans list                          what was kept of it

exit codes: 0 done, 1 the run failed, 2 wrong usage or request, 3 no engine, 4 no key or not accepted,
5 try later, 6 timed out, 130 interrupted, 141 output closed
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. Never shows a traceback for what a user can cause."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if "command" not in arguments:
        parser.print_help(sys.stderr)
        return ExitCode.USAGE
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # an answer is worth reading, even if one letter of it cannot be shown
    try:
        with on_interrupt(raise_interrupt):
            code: int = arguments.command(arguments)
            sys.stdout.flush()
            return code
    except HeadraceError as error:
        _complain(explanation(error))
        return exit_code(error)
    except CommandError as error:
        _complain(error.text)
        return error.code
    except KeyboardInterrupt:
        _complain("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return ExitCode.OUTPUT_CLOSED
    finally:
        end_on_interrupt()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headrace",
        description="Streaming LLM calls through a pool of worker processes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"headrace {headrace.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in (run, spans, serve, restart, status, simulate):
        command = commands.add_parser(module.NAME, help=module.HELP, description=module.HELP + ".", allow_abbrev=False)
        module.add_arguments(command)
        command.set_defaults(command=module.main)
    return parser


def _complain(text: str) -> None:
    print(red("headrace:", sys.stderr), text, file=sys.stderr)


def _discard_output() -> None:
    """Leave the interpreter nothing that it could fail to flush at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
