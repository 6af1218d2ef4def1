"""``headrace``: parses the command line, runs the command, and turns errors into a line of text and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import headrace
from headrace.cli import (
    config_command,
    logs_command,
    record_command,
    reload_command,
    restart_command,
    run_command,
    serve_command,
    simulate_command,
    status_command,
)
from headrace.cli.batch import batch_command, batch_status_command
from headrace.cli.interrupt import end_on_interrupt, on_interrupt, raise_interrupt
from headrace.cli.shared.exit_codes import CommandError, ExitCode, exit_code
from headrace.cli.shared.explain import explanation
from headrace.cli.shared.terminal import complain, one_line
from headrace.cli.spans import spans_command
from headrace.errors import HeadraceError
from headrace.process.logs import log_in_program
from headrace.process.standard_streams import OutputLostError, guarded
from headrace.text.similar_names import meant

_COMMANDS = (
    run_command, batch_command, batch_status_command, spans_command, serve_command, restart_command, reload_command, status_command, logs_command, config_command,
    simulate_command, record_command,
)  # fmt: skip

_EPILOG = """\
try it without a key:
  headrace simulate                            a simulated model provider; prints what to export
  headrace run "Tell me a story" --model gpt-4o
  headrace spans list                          the spans of these runs

exit codes: 0 done, 1 run failed, 2 wrong usage or request, 3 no engine, 4 no key or key refused,
5 try later, 6 timed out, 7 some rows of a batch failed, 8 a batch stopped at --max-cost,
130 interrupted, 141 output closed
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Shows no traceback for an error that a user can cause."""
    return guarded(partial(_command, argv))


def _command(argv: Sequence[str] | None) -> int:
    try:
        log_in_program()
        parser = command_parser()
        arguments = parser.parse_args(argv)
        if "command" not in arguments:
            parser.print_help(sys.stderr)
            return ExitCode.USAGE
        with on_interrupt(raise_interrupt):
            code: int = arguments.command(arguments)
            sys.stdout.flush()
            return code
    except HeadraceError as error:
        complain(explanation(error))
        return exit_code(error)
    except CommandError as error:
        complain(error.text)
        return error.code
    except KeyboardInterrupt:
        complain("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError as error:
        raise OutputLostError(error) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        complain(f"{where}{error.strerror or error}")
        return ExitCode.FAILED
    finally:
        end_on_interrupt()


class _Parser(argparse.ArgumentParser):
    """Prints each error on one line, even if an argument holds line ends or control characters; and no usage, which is long."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: error: {one_line(message)}\nsee `{self.prog} --help`\n")

    # pyright knows the overloads of typeshed only; they depend on the type of the namespace.
    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Refuse what the command does not take, with the command's name, and say which option may be meant."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [option for action in self._actions for option in action.option_strings if option[:2] == "--"]
            close = meant(unknown[0].partition("=")[0], options) if unknown[0].startswith("--") else None
            advice = f"; did you mean {close}?" if close is not None else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
        return found, unknown


class _ParserOfAll(_Parser):
    """Joins the words of a command whose name has two words: ``batch status``. Subparsers cannot: ``batch`` takes a file there."""

    # See _Parser.
    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Join the words, and parse."""
        words = [*(sys.argv[1:] if args is None else args)]
        name = " ".join(words[:2])
        if any(name == module.NAME and " " in name for module in _COMMANDS):
            words[:2] = [name]
        return super().parse_known_args(words, namespace)


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _ParserOfAll(
        prog="headrace",
        description="Streaming LLM calls through a pool of worker processes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"headrace {headrace.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    for module in _COMMANDS:
        command = commands.add_parser(module.NAME, help=module.HELP, description=module.HELP + ".", allow_abbrev=False)
        module.add_arguments(command)
        command.set_defaults(command=module.main)
    return parser


if __name__ == "__main__":
    sys.exit(main())
